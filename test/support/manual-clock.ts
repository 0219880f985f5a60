/** Time that stands still until a test moves it. */
import type { Clock } from '../../src/lib/clock.ts'

export class ManualClock implements Clock {
  #nowMs = 1_000
  #timers: { atMs: number; callback: () => void }[] = []

  nowMs(): number {
    return this.#nowMs
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error)
        return
      }
      const cancel = this.after(delayMs, resolve)
      signal?.addEventListener('abort', () => {
        cancel()
        reject(signal.reason as Error)
      })
    })
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, callback }
    this.#timers.push(timer)
    return () => void (this.#timers = this.#timers.filter((other) => other !== timer))
  }

  /** As when the process was paused: all this time passes at once, and what is due then runs. */
  standStill(forMs: number): void {
    this.#nowMs += forMs
    const due = this.#timers.filter(({ atMs }) => atMs <= this.#nowMs)
    this.#timers = this.#timers.filter((timer) => !due.includes(timer))
    for (const { callback } of due) callback()
  }

  /** To the next moment at which something is due, and runs it; to `untilMs` when there is none before. */
  advanceToNext(untilMs: number): void {
    const nextMs = this.#timers.reduce((least, { atMs }) => Math.min(least, atMs), untilMs)
    this.advance(Math.max(0, nextMs - this.#nowMs))
    this.#nowMs = Math.max(this.#nowMs, nextMs)
  }

  /** Moves time, and runs what comes due on the way, in order. */
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs
    for (;;) {
      const [next] = this.#timers.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)
      if (next === undefined) break
      this.#timers = this.#timers.filter((timer) => timer !== next)
      this.#nowMs = next.atMs
      next.callback()
    }
    this.#nowMs = untilMs
  }
}
