/**
 * How busy a follower is with receiving: the share of the time in which bytes were there when it wanted them. Measured
 * where bytes arrive, since a sender cannot see the kernel's buffers. Time in which our own containerd kept us from
 * reading does not count, and neither does what a source had before its follower came, which it says; one that does not:
 * until the first pause nothing is known.
 */
import {
  flightBusyChange,
  flightBusyWindowBytes,
  flightCatchUpBytes,
  flightFullShare,
  flightSmallBytes,
  peerGatherLateMs,
} from '../limits.ts'

/**
 * Less is no waiting: the next bytes were on their way. A saturated link of 50 Mbit brings 64 KiB each 10 ms; a source
 * that goes upstream brings nothing until containerd wrote its next MiB, 84 ms at 100 Mbit. One that passes on what comes
 * steadily brings 256 KiB at a time: above 140 Mbit it looks as if the link were full, which costs a longer chain.
 */
const waitedMinMs = 15
/** Smaller chunks are put together: a window has 64 pieces, whatever comes. */
const pieceBytesMin = 64 * 1024

interface Piece {
  bytes: number
  waitedMs: number
  receivedMs: number
}

export class BusyMeter {
  readonly #nowMs: () => number
  /** Of the window, the oldest first. */
  readonly #pieces: Piece[] = []
  /** Of all pieces. */
  readonly #sum: Piece = { bytes: 0, waitedMs: 0, receivedMs: 0 }
  /** Undefined: before the first byte, which is a round trip away. */
  #readySinceMs: number | undefined
  /** What the source had at first is read: there was a pause, or it was so much that the link is the limit. */
  #hasCaughtUp = false
  #told: number | undefined
  /** Still to come of what the source had. */
  #hereBytes: number

  /** `hereBytes`: of what is to come the source had so many. */
  constructor(nowMs: () => number, hereBytes = 0) {
    this.#nowMs = nowMs
    this.#hereBytes = hereBytes
  }

  /** `latestWaitMs`: how long they were waited for. Not known: all the time since they were wanted. */
  noteBytes(bytes: number, latestWaitMs?: number): void {
    if (this.#hereBytes > 0) {
      this.#hereBytes -= bytes
      if (this.#hereBytes <= 0) this.#begin()
      return
    }
    const nowMs = this.#nowMs()
    const gapMs = nowMs - (this.#readySinceMs ?? nowMs)
    // The socket was left alone for a while (peers/gathering.ts). Something was there then: it had not been waited for.
    // Nothing was: it had been idle for all that time.
    const wasThere = latestWaitMs !== undefined && latestWaitMs <= peerGatherLateMs
    const hasWaited = !wasThere && gapMs > waitedMinMs
    if (hasWaited && !this.#hasCaughtUp) this.#begin()
    const chunk = { bytes, waitedMs: hasWaited ? gapMs : 0, receivedMs: hasWaited ? 0 : gapMs }
    const last = this.#pieces.at(-1)
    if (last !== undefined && last.bytes < pieceBytesMin) add(last, chunk, 1)
    else this.#pieces.push({ ...chunk })
    add(this.#sum, chunk, 1)
    for (;;) {
      const [oldest] = this.#pieces
      if (oldest === undefined || this.#sum.bytes - oldest.bytes < flightBusyWindowBytes) return
      this.#pieces.shift()
      add(this.#sum, oldest, -1)
    }
  }

  /** What was received is written: from now on we want more. */
  noteWritten(): void {
    this.#readySinceMs = this.#nowMs()
  }

  /**
   * The link of the source may be full: what that had when we came comes as fast as the link allows, and of what comes so
   * slowly that each 64 KiB are waited for nothing is known.
   */
  get mayBeFull(): boolean {
    if (this.#hereBytes > 0) return true
    const { busy } = this
    if (busy === undefined) return false
    return (
      busy >= flightFullShare ||
      (this.#sum.waitedMs + this.#sum.receivedMs) / this.#sum.bytes > waitedMinMs / pieceBytesMin
    )
  }

  /** A number from 0 to 1. Undefined: not known before 1 or 2 MiB. */
  get busy(): number | undefined {
    if (this.#sum.bytes < (this.#hasCaughtUp ? flightSmallBytes : flightCatchUpBytes)) return undefined
    // What was added and taken away again need not be exactly nothing.
    const [waitedMs, receivedMs] = [Math.max(0, this.#sum.waitedMs), Math.max(0, this.#sum.receivedMs)]
    return waitedMs + receivedMs === 0 ? 0 : receivedMs / (waitedMs + receivedMs)
  }

  /** The first, and changes that matter. */
  takeChange(): number | undefined {
    const { busy } = this
    if (busy === undefined) return undefined
    if (this.#told !== undefined && Math.abs(busy - this.#told) < flightBusyChange) return undefined
    this.#told = busy
    this.#hasCaughtUp = true
    return busy
  }

  #begin(): void {
    this.#hasCaughtUp = true
    for (const piece of this.#pieces.splice(0)) add(this.#sum, piece, -1)
  }
}

function add(sum: Piece, { bytes, waitedMs, receivedMs }: Piece, sign: 1 | -1): void {
  sum.bytes += sign * bytes
  sum.waitedMs += sign * waitedMs
  sum.receivedMs += sign * receivedMs
}
