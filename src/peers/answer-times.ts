/** How long peers took to answer lately: who takes longer than nearly all of them is not waited for alone. */
import { hedgeDelayMaxMs, hedgeDelayMinMs } from '../limits.ts'

const timesKept = 100
/** Before there are so many, the longest delay holds. */
const timesNeeded = 10

export class AnswerTimes {
  readonly #timesMs: number[] = []

  note(timeMs: number): void {
    this.#timesMs.push(timeMs)
    if (this.#timesMs.length > timesKept) this.#timesMs.shift()
  }

  /** When to ask a further peer: the 95th percentile of the last answers, within bounds. */
  hedgeDelayMs(): number {
    if (this.#timesMs.length < timesNeeded) return hedgeDelayMaxMs
    const sorted = [...this.#timesMs].sort((a, b) => a - b)
    const high = sorted[Math.floor(sorted.length * 0.95)] ?? hedgeDelayMaxMs
    return Math.min(hedgeDelayMaxMs, Math.max(hedgeDelayMinMs, high))
  }
}
