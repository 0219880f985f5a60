/** Delays that double from the first to the last, with ±20 % of jitter so that nodes do not retry in step. */
import type { Random } from './random.ts'

export class Backoff {
  readonly #firstMs: number
  readonly #lastMs: number
  readonly #random: Random
  #nextMs: number

  constructor(firstMs: number, lastMs: number, random: Random) {
    this.#firstMs = firstMs
    this.#lastMs = lastMs
    this.#random = random
    this.#nextMs = firstMs
  }

  nextDelayMs(): number {
    const delayMs = this.#nextMs * (0.8 + 0.4 * this.#random())
    this.#nextMs = Math.min(this.#nextMs * 2, this.#lastMs)
    return delayMs
  }

  reset(): void {
    this.#nextMs = this.#firstMs
  }
}
