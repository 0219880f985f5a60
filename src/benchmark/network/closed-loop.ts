/** As fast as answers come: each asker asks again when it has its answer. For latencies without load, and for the most. */
import type { Asker } from './askers.ts'
import { Latencies } from './latencies.ts'

export interface ClosedLoopResult {
  latencies: Latencies
  perSecond: number
  /** The warm-up included, as in the CPU time of the whole. */
  requests: number
}

export function closedLoop(
  askers: readonly Asker[],
  { warmUpMs, durationMs }: { warmUpMs: number; durationMs: number },
): Promise<ClosedLoopResult> {
  const latencies = new Latencies()
  const warmMs = performance.now() + warmUpMs
  const endMs = warmMs + durationMs
  let [requests, running, counted, lastMs] = [0, askers.length, 0, warmMs]
  const done = new Promise<ClosedLoopResult>((resolve) => {
    for (const asker of askers) {
      let askedMs = 0
      const ask = () => {
        askedMs = performance.now()
        asker.ask(onAnswer)
      }
      const onAnswer = () => {
        const nowMs = performance.now()
        requests += 1
        if (nowMs >= warmMs) {
          // What was asked before the end counts, or long answers would be missing.
          latencies.recordMs(nowMs - askedMs)
          counted += 1
          lastMs = Math.max(lastMs, nowMs)
        }
        if (nowMs < endMs) return ask()
        running -= 1
        if (running === 0) resolve({ latencies, requests, perSecond: (counted * 1000) / (lastMs - warmMs) })
      }
      ask()
    }
  })
  return Promise.race([done, ...askers.map(({ lost }) => lost)])
}
