import { describe, expect, it } from 'vitest'
import { cpuSeconds, memoryMiB } from '../../../src/testbed/process-usage.ts'
import { type Result, quantileFigures } from '../../../src/bench/result.ts'
import { median, quantile } from '../../../src/bench/statistics.ts'
import { figureTable, withBenchmarks } from '../../../src/bench/table.ts'

describe('statistics', () => {
  it('take the middle, and the nearest rank', () => {
    expect(median([9, 1, 5])).toBe(5)
    expect(median([4, 1, 2, 3])).toBe(2.5)
    expect(median([])).toBeNaN()
    const hundred = Array.from({ length: 100 }, (_, index) => 100 - index)
    expect([quantile(hundred, 0.5), quantile(hundred, 0.99), quantile(hundred, 1)]).toEqual([50, 99, 100])
  })

  it('are figures of each round', () => {
    const rounds = [
      [1, 2, 3],
      [4, 5, 60],
    ]
    expect(quantileFigures('wait', rounds, { p50: 4, max: undefined })).toEqual([
      { name: 'wait, p50', unit: 'ms', samples: [2, 5], target: { atMost: 4 } },
      { name: 'wait, max', unit: 'ms', samples: [3, 60] },
    ])
  })
})

describe('the table', () => {
  const result: Result = {
    benchmark: 'some',
    date: '2026-01-02T03:04:05.678Z',
    machine: { cpu: 'a cpu', cores: 2, memoryGiB: 1, kernel: '6.1', node: 'v24.0.0', commit: 'abc', load: 0 },
    seed: 's',
    rounds: 3,
    method: 'as it is',
    figures: [
      { name: 'met', unit: 's', samples: [1, 3, 2], target: { atMost: 2 } },
      { name: 'not met', unit: '×', samples: [0.5], target: { atLeast: 0.9 } },
    ],
    conditions: [],
    raw: {},
  }

  it('says which targets are missed', () => {
    expect(figureTable(result).split('\n').slice(2)).toEqual([
      '| met | **2** s | 1 – 3 | ≤ 2 |',
      '| not met | **0.5** × | 0.5 – 0.5 | ≥ 0.9: missed |',
    ])
  })

  it('replaces what is between the marks, and only that', () => {
    const readme = 'before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n'
    const once = withBenchmarks(readme, [result])
    expect(once).toMatch(/^before\n<!-- bench:begin -->\n\n\| [^]*\| some: met \|[^]*<!-- bench:end -->\nafter\n$/)
    expect(withBenchmarks(once, [result])).toBe(once)
    expect(() => withBenchmarks('no marks', [result])).toThrow(/bench:begin/)
  })
})

describe('the usage of a process', () => {
  it('grows with work', () => {
    const before = cpuSeconds(process.pid)
    const endMs = performance.now() + 2_000
    while (cpuSeconds(process.pid) - before < 0.05 && performance.now() < endMs);
    expect(cpuSeconds(process.pid) - before).toBeGreaterThanOrEqual(0.05)
    const { now, files, peak } = memoryMiB(process.pid)
    expect(files).toBeLessThan(now)
    expect(now).toBeLessThanOrEqual(peak)
  })
})
