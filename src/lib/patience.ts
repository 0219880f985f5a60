/**
 * A wait that counts only time in which this process ran. A machine that is paused or overloaded for seconds fires a
 * plain timer the moment it wakes, before the answers that lie in its sockets are read, and good peers are given up.
 * In slices a pause of any length counts as one slice.
 */
import type { Clock } from './clock.ts'

const slices = 4

/** Calls back once after the delay; the returned function cancels. Does not keep the process alive. */
export function afterAwake(clock: Clock, delayMs: number, callback: () => void): () => void {
  let left = slices
  let cancel = () => {}
  const next = () => {
    cancel = clock.after(delayMs / slices, () => {
      left -= 1
      if (left > 0) next()
      else callback()
    })
  }
  next()
  return () => cancel()
}

/**
 * As AbortSignal.timeout, counting only time in which the process ran. For `using`: what is done in time leaves no timers
 * behind, four for each message that was answered long ago.
 */
export function awakeTimeout(clock: Clock, delayMs: number): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController()
  const timeout = () => controller.abort(new DOMException(`not within ${delayMs} ms`, 'TimeoutError'))
  return { signal: controller.signal, [Symbol.dispose]: afterAwake(clock, delayMs, timeout) }
}
