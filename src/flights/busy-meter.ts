/**
 * How busy a follower is with receiving: the share of the time in which bytes were there when it wanted them. Measured
 * where bytes arrive, since a sender cannot see the kernel's buffers. Time in which our own containerd kept us from
 * reading does not count.
 */
import { flightBusyChange, flightBusyWindowBytes, flightSmallBytes } from '../limits.ts'

/**
 * Less is no waiting: the next bytes were on their way. A saturated link of 50 Mbit brings 64 KiB each 10 ms; a source
 * that has nothing brings nothing until containerd wrote its next MiB, 84 ms at 100 Mbit.
 */
const waitedMinMs = 15

interface Piece {
  bytes: number
  waitedMs: number
  receivedMs: number
}

export class BusyMeter {
  readonly #nowMs: () => number
  /** Of the window, the oldest first. */
  #pieces: Piece[] = []
  #bytes = 0
  #readySinceMs: number
  #told: number | undefined

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
    this.#readySinceMs = nowMs()
  }

  noteBytes(bytes: number): void {
    const gapMs = this.#nowMs() - this.#readySinceMs
    const hasWaited = gapMs > waitedMinMs
    this.#pieces.push({ bytes, waitedMs: hasWaited ? gapMs : 0, receivedMs: hasWaited ? 0 : gapMs })
    this.#bytes += bytes
    while (this.#bytes - (this.#pieces[0]?.bytes ?? 0) >= flightBusyWindowBytes) {
      this.#bytes -= this.#pieces.shift()?.bytes ?? 0
    }
  }

  /** What was received is written: from now on we want more. */
  noteWritten(): void {
    this.#readySinceMs = this.#nowMs()
  }

  /** A number from 0 to 1 when there is news: the first after 1 MiB, then changes that matter. */
  takeChange(): number | undefined {
    if (this.#bytes < flightSmallBytes) return undefined
    const waitedMs = this.#pieces.reduce((sum, piece) => sum + piece.waitedMs, 0)
    const receivedMs = this.#pieces.reduce((sum, piece) => sum + piece.receivedMs, 0)
    const busy = waitedMs + receivedMs === 0 ? 0 : receivedMs / (waitedMs + receivedMs)
    if (this.#told !== undefined && Math.abs(busy - this.#told) < flightBusyChange) return undefined
    this.#told = busy
    return busy
  }
}
