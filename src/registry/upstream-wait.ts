/**
 * Our containerd comes back in mid-blob because upstream broke off, or is to go where another one just failed. A refusal
 * there fails its pull, and then the pulls of all that would be sent there after it: it waits here until upstream takes
 * connections again.
 */
import type { Clock } from '../lib/clock.ts'
import { flightRefusedHoldMs, flightRefusedLookMs } from '../limits.ts'

/**
 * Resolves when our containerd may be sent there: after `holdMs`, and when it is not refused, as long as that is waited
 * for. `refuses` undefined: that cannot be known, or does not matter. Never rejects; the signal ends it.
 */
export async function upstreamIsBack(
  holdMs: number,
  refuses: (() => Promise<boolean>) | undefined,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  if (holdMs > 0) await clock.sleep(holdMs, signal).catch(() => undefined)
  if (refuses === undefined) return
  const untilMs = clock.nowMs() + flightRefusedHoldMs
  while (!signal.aborted && clock.nowMs() < untilMs && (await refuses().catch(() => false))) {
    await clock.sleep(flightRefusedLookMs, signal).catch(() => undefined)
  }
}

/** False when the time passed first. */
export function endsWithin(promise: Promise<void>, limitMs: number, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const cancel = clock.after(limitMs, () => resolve(false))
    void promise.then(() => {
      cancel()
      resolve(true)
    })
  })
}
