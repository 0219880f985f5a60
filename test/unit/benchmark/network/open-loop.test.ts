import { describe, expect, it } from 'vitest'
import type { Asker } from '../../../../src/benchmark/network/askers.ts'
import type { Latencies } from '../../../../src/benchmark/network/latencies.ts'
import { openLoop } from '../../../../src/benchmark/network/open-loop.ts'
import { ManualClock } from '../../../support/manual-clock.ts'

const ms = (latencies: Latencies, percentile: number) => (latencies.percentileNs(percentile) ?? Number.NaN) / 1e6
const never = new Promise<never>(() => undefined)

/** Servers on the test's own time; a real one that stops is in `npm run test:network`. */
function answering(clock: ManualClock, delayMs: () => number): Asker {
  return { ask: (answered) => void clock.after(delayMs(), answered), close: () => undefined, lost: never }
}

function run(
  clock: ManualClock,
  askers: readonly Asker[],
  times: { perSecond: number; durationMs: number; patienceMs: number },
  time: Parameters<typeof openLoop>[2] = clock,
) {
  const running = openLoop(askers, times, time)
  clock.advance(times.durationMs + times.patienceMs + 1)
  return running
}

describe('a constant rate', () => {
  it('shows a server that stops for 100 ms in each second to all requests that were due meanwhile', async () => {
    const clock = new ManualClock()
    const startMs = clock.nowMs()
    const delayMs = () => {
      const inSecondMs = (clock.nowMs() - startMs) % 1_000
      return (inSecondMs >= 500 && inSecondMs < 600 ? 600 - inSecondMs : 0) + 0.1
    }
    // Of 100 requests that are due while it stops, 84 find no connection free.
    const askers = Array.from({ length: 16 }, () => answering(clock, delayMs))
    const { latencies, reached, unanswered, lag } = await run(clock, askers, {
      perSecond: 1_000,
      durationMs: 10_000,
      patienceMs: 1_000,
    })
    expect({ reached, unanswered, count: latencies.count }).toEqual({ reached: true, unanswered: 0, count: 10_000 })
    // A tenth of the requests is due while it stops, evenly: the share that waits longer than t is (100 ms − t) ÷ 1 s.
    expect(ms(latencies, 50)).toBeCloseTo(0.1, 2)
    expect(ms(latencies, 89)).toBeCloseTo(0.1, 2)
    for (const [percentile, expected] of [
      [92, 20],
      [95, 50],
      [99, 90],
      [99.5, 95],
      [99.9, 99],
    ] as const) {
      expect(Math.abs(ms(latencies, percentile) - expected), `p${percentile}`).toBeLessThan(1.5)
    }
    expect(latencies.maxNs / 1e6).toBeCloseTo(100.1, 1)
    // None of it is the generator's fault.
    expect(lag.maxNs / 1e6).toBeLessThan(1.001)
  })

  it('that cannot be reached is said not to be, and what was not answered counts with its wait', async () => {
    const clock = new ManualClock()
    const { reached, unanswered, answeredPerSecond, latencies } = await run(clock, [answering(clock, () => 10)], {
      perSecond: 400,
      durationMs: 500,
      patienceMs: 200,
    })
    expect({ reached, count: latencies.count }).toEqual({ reached: false, count: 200 })
    expect(answeredPerSecond).toBeCloseTo(100, 0)
    expect(unanswered).toBeGreaterThanOrEqual(130)
    // The first that found no end was due at a third of the time.
    expect(latencies.maxNs / 1e6).toBeGreaterThan(500)
    expect(ms(latencies, 50)).toBeGreaterThan(300)
  })

  it('that is reached late is not reached', async () => {
    const clock = new ManualClock()
    const { reached, unanswered } = await run(clock, [answering(clock, () => 10)], {
      perSecond: 150,
      durationMs: 400,
      patienceMs: 5_000,
    })
    expect({ reached, unanswered }).toEqual({ reached: false, unanswered: 0 })
  })

  it('tells how late the generator itself was; it is in the latencies', async () => {
    const clock = new ManualClock()
    const late = {
      nowMs: () => clock.nowMs(),
      after: (delayMs: number, callback: () => void) => clock.after(delayMs + 3, callback),
    }
    const askers = Array.from({ length: 8 }, () => answering(clock, () => 5))
    const { lag, latencies } = await run(clock, askers, { perSecond: 100, durationMs: 2_000, patienceMs: 500 }, late)
    expect(lag.count).toBe(200)
    expect(ms(lag, 50)).toBeCloseTo(3, 1)
    expect(ms(latencies, 50)).toBeCloseTo(8, 1)
  })

  it('ends with the error of a connection that is lost', async () => {
    const lost = Promise.reject(new Error('gone'))
    lost.catch(() => undefined)
    const asker: Asker = { ask: () => undefined, close: () => undefined, lost }
    await expect(openLoop([asker], { perSecond: 10, durationMs: 1_000, patienceMs: 100 })).rejects.toThrow('gone')
  })
})
