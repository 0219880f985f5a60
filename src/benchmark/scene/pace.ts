/** Spreads bytes over time, so that they come at a rate. */

/** What a timer that rang late has lost may be made up for, so much of it. */
const arrearsMsMax = 50

export class Pace {
  readonly #bytesPerSecond: number
  /** When all that was booked has gone. */
  #freeMs = -Infinity

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond
  }

  /** How many bytes go in this time; at least one. */
  bytesIn(ms: number): number {
    return Math.max(1, Math.floor((this.#bytesPerSecond * ms) / 1000))
  }

  /** How long these bytes have to wait, after all that were booked before. */
  book(bytes: number, nowMs: number): number {
    const startMs = Math.max(this.#freeMs, nowMs - arrearsMsMax)
    this.#freeMs = startMs + (bytes * 1000) / this.#bytesPerSecond
    return Math.max(0, this.#freeMs - nowMs)
  }
}
