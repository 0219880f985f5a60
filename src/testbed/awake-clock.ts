/**
 * Time in which this machine ran. A virtual machine that its host stops for some seconds finds them gone when it goes on:
 * all time-outs are over at once, though nobody had the time to do anything. Who waits by this clock waits as long as it
 * meant to.
 */

const tickMs = 100
/** Two ticks that are farther apart were not late: nothing ran between them. */
const standstillMs = 1_000

let tickedMs: number | undefined
let stoodMs = 0

/** Milliseconds since some moment, without those in which the machine stood still since the first call. */
export function awakeMs(): number {
  if (tickedMs === undefined) setInterval(tick, tickMs).unref()
  tick()
  return (tickedMs ?? 0) - stoodMs
}

function tick(): void {
  const nowMs = performance.now()
  const gapMs = nowMs - (tickedMs ?? nowMs)
  if (gapMs > standstillMs) stoodMs += gapMs - tickMs
  tickedMs = nowMs
}
