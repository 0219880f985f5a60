import { describe, expect, it } from 'vitest'
import {
  cells,
  isGood,
  lastNode,
  meanPull,
  medianRun,
  middle,
  samples,
} from '../../../../src/benchmark/analyze/cells.ts'
import { compareMirrors, compareResults } from '../../../../src/benchmark/analyze/comparison.ts'
import { bytesText, milliseconds, rateText, significant, trimmed } from '../../../../src/benchmark/analyze/format.ts'
import { type Measurements, fromResult } from '../../../../src/benchmark/analyze/measurements.ts'
import { summary } from '../../../../src/benchmark/analyze/summary.ts'
import { htmlTable, markdownTable, terminalTable } from '../../../../src/benchmark/analyze/table.ts'
import { costTable, pullTable, requestTable, roundTable } from '../../../../src/benchmark/analyze/tables.ts'
import type { Phase, Pull, Result } from '../../../../src/benchmark/result/schema.ts'
import { simulatedResult } from '../../../support/simulated-result.ts'

/** Two nodes, pulls in ms; a number below 0 is a pull that failed after so long. */
function phase(...pullMs: number[]): Phase {
  const pulls: Pull[] = pullMs.map((ms, index) => ({
    node: `node-${index + 1}`,
    wave: 1,
    image: 'registry.test/10MB-1:v1',
    started: 0,
    duration: Math.abs(ms) * 1e6,
    ...(ms < 0 ? { error: 'no space left' } : {}),
    blobs: [],
  }))
  return {
    started: '2026-11-20T10:00:00Z',
    duration: Math.max(...pulls.map(({ duration }) => duration)),
    pulls,
    imageBytes: 1_000,
    upstream: { linkBytes: 2_500, requests: [{ kind: 'blob', method: 'GET', status: 200, count: 3 }] },
    peerBytes: 2 * 1024 ** 2,
  }
}

interface RoundOf {
  mirror: string
  number: number
  pulls: number[]
  attempt?: number
  counts?: boolean
  noise?: string[]
}

function measured(...rounds: RoundOf[]): Measurements {
  const empty: Result = simulatedResult({
    seed: 1,
    nodes: 2,
    rounds: 0,
    images: ['10MB-1'],
    mirrors: { none: { create: 1, update: 1 }, ours: { create: 1, update: 1 } },
  })
  return fromResult(
    {
      ...empty,
      rounds: rounds.map(({ mirror, number, pulls, attempt = 1, counts = number > 0, noise = [] }) => ({
        number,
        attempt,
        image: '10MB-1',
        mirror,
        position: 1,
        started: '2026-11-20T10:00:00Z',
        counts,
        noise,
        phases: { update: phase(...pulls) },
      })),
    },
    'result.json',
  )
}

/** Means over nodes: none 400, 200, 300; ours 100, 50, 75. */
const threeRounds = () =>
  measured(
    { mirror: 'none', number: 0, pulls: [9_000, 9_000] },
    { mirror: 'none', number: 1, pulls: [300, 500] },
    { mirror: 'none', number: 2, pulls: [200, 200] },
    { mirror: 'none', number: 3, pulls: [300, 300] },
    { mirror: 'ours', number: 1, pulls: [150, 50] },
    { mirror: 'ours', number: 2, pulls: [50, 50] },
    { mirror: 'ours', number: 3, pulls: [75, 75] },
  )

describe('cells', () => {
  it('take means over nodes and the median over rounds, without the warm-up', () => {
    const [none, ours] = cells(threeRounds())
    expect(none && samples(none, meanPull)).toEqual([400, 200, 300])
    expect([middle(none, meanPull), middle(ours, meanPull), middle(none, lastNode)]).toEqual([300, 75, 0.3])
    expect(none && medianRun(none)?.round).toBe(3)
  })

  it('leave failed pulls out of the times', () => {
    const [cell] = cells(measured({ mirror: 'none', number: 1, pulls: [-10, 500] }))
    expect(middle(cell, meanPull)).toBe(500)
  })

  it('have no pull time when all pulls failed', () => {
    const all = measured(
      { mirror: 'none', number: 1, pulls: [-10, -20] },
      { mirror: 'ours', number: 1, pulls: [1, 1] },
    )
    expect(middle(cells(all)[0], meanPull)).toBeNaN()
    expect(pullTable(all).rows[0]?.slice(3, 6)).toEqual(['– †', '1.0', '–'])
  })

  it('use noisy rounds only if there are no others', () => {
    const noise = ['steal']
    const repeated = measured(
      { mirror: 'none', number: 1, pulls: [900, 900], counts: false, noise },
      { mirror: 'none', number: 1, attempt: 2, pulls: [100, 100] },
      { mirror: 'none', number: 2, pulls: [800, 800], noise },
    )
    expect(cells(repeated)[0]).toMatchObject({ onlyNoisy: false, used: [{ round: 1, attempt: 2 }] })
    const noisy = measured(
      { mirror: 'none', number: 1, pulls: [900, 900], counts: false, noise },
      { mirror: 'none', number: 1, attempt: 2, pulls: [700, 700], noise },
    )
    expect(cells(noisy)[0]).toMatchObject({ onlyNoisy: true, used: [{ attempt: 2 }] })
    expect(noisy.runs.some(isGood)).toBe(false)
    expect(roundTable(noisy).rows.map((row) => row.slice(3, 7))).toEqual([
      ['no', 'steal', '1', '1'],
      ['yes', 'steal', '1', '2'],
    ])
    expect(summary(noisy).rounds).toEqual([
      'Rounds (of an image with a mirror): 0 good, 1 repeated because of noise, 1 noisy to the end, 0 warm-ups.',
      'Only noisy rounds: 10MB-1, update, none: its figures are doubtful.',
    ])
    expect(pullTable({ ...noisy, mirrors: ['none'] }).rows[0]?.[4]).toBe('700 *')
  })
})

describe('comparisons', () => {
  it('pair rounds: here each one is four times as fast', () => {
    const { rows } = compareMirrors(threeRounds(), 'none', 'ours')
    expect(rows.map(({ metric, verdict }) => [metric.name, verdict])).toEqual([
      ['mean pull', 'faster by 75.0 % (75.0 – 75.0)'],
      ['last node', expect.stringMatching(/^faster by 7/)],
      ['upstream ÷ image', 'no difference seen (± 0.0 %)'],
    ])
  })

  it('of results cannot pair them, and their intervals are wider', () => {
    const one = threeRounds()
    const [none, ours, ...more] = compareResults(one, { ...one, path: 'other.json' })
    expect(more).toEqual([])
    expect(none?.rows[0]?.verdict).toMatch(/^no difference seen \(± [1-9]\d+\.\d %\)$/)
    expect(ours?.baseline).toBe('ours in result.json')
    expect(ours?.warnings).toEqual([])
  })

  it('of results say where their set-ups differ', () => {
    const one = threeRounds()
    const setUp = one.setUp.map((fact) => (fact.what === 'machine' ? { ...fact, value: 'another' } : fact))
    expect(compareResults(one, { ...one, setUp })[0]?.warnings).toEqual([
      'The set-ups differ (machine): that alone may make the difference.',
    ])
  })

  it('of results take the only mirrors, when their names differ', () => {
    const [first, second] = [threeRounds(), threeRounds()]
    const alone = (measurements: Measurements, mirror: string, name: string): Measurements => ({
      ...measurements,
      mirrors: [name],
      runs: measurements.runs.filter((run) => run.mirror === mirror).map((run) => ({ ...run, mirror: name })),
    })
    const [only] = compareResults(alone(first, 'none', 'before'), alone(second, 'ours', 'after'))
    expect(only?.rows[0]).toMatchObject({
      baseline: 300,
      other: 75,
      verdict: expect.stringMatching(/^faster by 75.0 %/),
    })
  })

  it('hold each row to a level for all of them, and have a row for all images', () => {
    const measurements = fromResult(
      simulatedResult({
        seed: 3,
        nodes: 4,
        rounds: 5,
        images: ['10MB-1', '10MB-4'],
        mirrors: { none: { create: 9, update: 9 }, ours: { create: 9, update: 9 } },
      }),
      'result.json',
    )
    const rows = compareMirrors(measurements, 'none', 'ours').rows.filter(({ metric }) => metric === meanPull)
    expect(rows.map(({ image, phase: name }) => `${image} ${name}`)).toEqual([
      '10MB-1 create',
      '10MB-1 update',
      '10MB-4 create',
      '10MB-4 update',
      'all images create',
      'all images update',
    ])
    expect(rows[0]?.level).toBeCloseTo(1 - 0.05 / 6)
  })

  it('say so when one round leaves no interval', () => {
    const once = measured({ mirror: 'none', number: 1, pulls: [4, 4] }, { mirror: 'ours', number: 1, pulls: [1, 1] })
    expect(compareMirrors(once, 'none', 'ours').rows[0]?.verdict).toMatch(/^no interval/)
    expect(pullTable(once).rows[0]?.[5]).toBe('75.0 (no interval)')
  })
})

describe('tables', () => {
  it('have the published row and the ceiling beside the update', () => {
    const { head, rows } = pullTable(threeRounds())
    expect(head[3]).toBe('baseline (none) ms')
    expect(rows).toEqual([
      [
        '10MB-1',
        'update',
        'ours',
        '300 (200 – 400)',
        '75 (50 – 100)',
        '75.0 (75.0 – 75.0)',
        '1220 → 210 (82.8 %)',
        '50.0 %',
      ],
    ])
  })

  it('say what it cost', () => {
    expect(costTable(threeRounds()).rows[0]).toEqual([
      '10MB-1',
      'update',
      'none',
      '0.300 (0.200 – 0.500)',
      '–',
      '–',
      '2.50',
      '2 MiB',
      '–',
      '–',
      '–',
      '0',
    ])
    expect(requestTable(threeRounds())).toMatchObject({
      head: ['image', 'phase', 'mirror', 'blob GET 200'],
      rows: [
        ['10MB-1', 'update', 'none', '3'],
        ['10MB-1', 'update', 'ours', '3'],
      ],
    })
    expect(roundTable(threeRounds()).rows).toHaveLength(7)
  })

  it('put failed pulls first, each with its error', () => {
    const { failures } = summary(measured({ mirror: 'none', number: 2, attempt: 2, pulls: [-10, 500] }))
    expect(failures).toEqual([
      'Failed pulls: 1 of 2',
      '10MB-1, update, none, round 2, attempt 2, node-1: no space left',
    ])
    expect(summary(threeRounds()).failures).toEqual(['Failed pulls: none of 14'])
  })

  it('are spelled in three ways, and no name gets out of its cell', () => {
    const table = { title: 'T', head: ['name', 'n'], wordColumns: 1, rows: [['a|<b>\u001b[31m', '1']], notes: [] }
    expect(terminalTable(table)).toBe(
      ['T', '', 'name             n', '───────────────  ─', 'a|<b>\\u{1b}[31m  1'].join('\n'),
    )
    expect(markdownTable(table).split('\n').at(-1)).toBe('| a\\|\\<b\\>\\\\u{1b}\\[31m | 1 |')
    expect(htmlTable(table)).toContain('<td>a|&lt;b&gt;\\u{1b}[31m</td><td class="number">1</td>')
  })
})

describe('numbers', () => {
  it('are short', () => {
    expect([milliseconds(1_234.6e6), milliseconds(9.87e6), milliseconds(Number.NaN)]).toEqual(['1235', '9.9', '–'])
    expect([significant(1.4), significant(12_345), significant(0.0123)]).toEqual(['1.40', '12345', '0.0123'])
    expect([trimmed(1.4), trimmed(0), trimmed(Number.NaN)]).toEqual(['1.4', '0', '–'])
    expect([bytesText(0), bytesText(1_536), bytesText(5 * 1024 ** 3)]).toEqual(['0 B', '1.5 KiB', '5 GiB'])
    expect([rateText(12.5e6), rateText(1.25e9)]).toEqual(['100 Mbit/s', '10 Gbit/s'])
  })
})
