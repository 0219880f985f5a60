/** Time as a collaborator, so that tests can move it. */
export interface Clock {
  /** Milliseconds that only grow; not a date. */
  nowMs(): number
  /** Resolves after the delay, or rejects with the signal's reason. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>
  /** Calls back once after the delay; the returned function cancels. Does not keep the process alive. */
  after(delayMs: number, callback: () => void): () => void
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  sleep: (delayMs, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error)
        return
      }
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      }, delayMs)
      const onAbort = () => {
        clearTimeout(timer)
        reject(signal?.reason as Error)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
    }),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs)
    timer.unref()
    return () => clearTimeout(timer)
  },
}

/** As `clock.sleep`, but the signal ends the sleep early and without an error. */
export async function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  try {
    await clock.sleep(delayMs, signal)
  } catch (error) {
    if (error !== signal.reason) throw error
  }
}
