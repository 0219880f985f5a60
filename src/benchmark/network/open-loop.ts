/**
 * Requests at a constant rate, whatever the answers do. A request that waits, for a connection or for an answer, does not
 * move the ones behind it, and its latency counts from the moment when it was due: a server that stops for a while is
 * seen by all requests that would have come meanwhile, and not by one alone (coordinated omission).
 */
import type { Clock } from '../../lib/clock.ts'
import type { Asker } from './askers.ts'
import { Latencies } from './latencies.ts'

export interface OpenLoopResult {
  /** From the moment when a request was due. */
  latencies: Latencies
  /** How late the generator itself was: a request was due, a connection free. It is part of the latency. */
  lag: Latencies
  answeredPerSecond: number
  /** At the end of the patience; they count in `latencies` with the time that they waited until then. */
  unanswered: number
  /** All were answered, at nearly the rate that was wanted. */
  reached: boolean
}

/** A stop of 100 ms at the very end of five seconds is not yet a rate that was missed. */
const reachedShare = 0.97
/** Timers are late by up to a millisecond: from here on the loop polls, and is called too early. */
const pollBelowMs = 2

interface Time extends Pick<Clock, 'nowMs'> {
  after(delayMs: number, callback: () => void): void
}

const pollingTime: Time = {
  nowMs: () => performance.now(),
  after(delayMs, callback) {
    if (delayMs > pollBelowMs) setTimeout(callback, delayMs - pollBelowMs)
    else setImmediate(callback)
  },
}

export async function openLoop(
  askers: readonly Asker[],
  { perSecond, durationMs, patienceMs }: { perSecond: number; durationMs: number; patienceMs: number },
  time: Time = pollingTime,
): Promise<OpenLoopResult> {
  const [latencies, lag] = [new Latencies(), new Latencies()]
  const total = Math.max(1, Math.floor((perSecond * durationMs) / 1000))
  const startMs = time.nowMs()
  const dueMs = (request: number) => startMs + (request * 1000) / perSecond
  const giveUpMs = startMs + durationMs + patienceMs
  const free = [...askers]
  const waiting = new Set<number>()
  let [next, answered, lastMs, isOver] = [0, 0, startMs, false]

  await Promise.race([
    new Promise<void>((resolve) => {
      const send = (asker: Asker) => {
        const request = next
        next += 1
        waiting.add(request)
        asker.ask(() => {
          if (isOver) return
          lastMs = time.nowMs()
          latencies.recordMs(lastMs - dueMs(request))
          waiting.delete(request)
          answered += 1
          if (answered === total) finish()
          else if (next < total && dueMs(next) <= lastMs) send(asker)
          else free.push(asker)
        })
      }
      const pace = () => {
        if (isOver) return
        const nowMs = time.nowMs()
        const asker = next < total && dueMs(next) <= nowMs ? free.pop() : undefined
        if (asker !== undefined) {
          lag.recordMs(nowMs - dueMs(next))
          send(asker)
          return pace()
        }
        if (nowMs >= giveUpMs) return finish()
        // Without a free connection the answers send what is due; one may become free before the next is.
        const nextMs = next < total ? Math.max(dueMs(next), free.length === 0 ? nowMs + 1 : 0) : giveUpMs
        time.after(nextMs - nowMs, pace)
      }
      const finish = () => {
        isOver = true
        resolve()
      }
      pace()
    }),
    ...askers.map(({ lost }) => lost),
  ]).finally(() => (isOver = true))

  const endMs = time.nowMs()
  for (const request of waiting) latencies.recordMs(endMs - dueMs(request))
  for (let request = next; request < total; request++) latencies.recordMs(endMs - dueMs(request))
  const tookMs = Math.max(durationMs, lastMs - startMs)
  const answeredPerSecond = (answered * 1000) / tookMs
  return {
    latencies,
    lag,
    answeredPerSecond,
    unanswered: total - answered,
    reached: answered === total && answeredPerSecond >= reachedShare * perSecond,
  }
}
