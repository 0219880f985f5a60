/**
 * How long to leave a socket alone so that the next read brings more. A link that is slower than this program gives a
 * few KiB per read, and each read costs as much as a large one. With eight nodes behind links of 1 Gbit the mirrors took
 * 18 % less CPU for the same image. What arrives meanwhile waits in the kernel's buffer.
 */
import type { Clock } from '../lib/clock.ts'
import { peerGatherBytes, peerGatherBytesMin, peerGatherLateMs, peerGatherMs, peerGatherMsMax } from '../limits.ts'

export class Gathering {
  readonly #clock: Clock
  /** When the last rest began, or a fast source was last measured. */
  #sinceMs = 0
  #bytes = 0
  #limitMs = peerGatherMs
  #hasRested = false
  /** Bytes in a millisecond, until the last rest. */
  #rate = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.begin()
  }

  /** A body begins to be read. What was before it, or how long nothing was, says nothing. */
  begin(): void {
    this.#sinceMs = this.#clock.nowMs()
    this.#bytes = 0
    this.#limitMs = peerGatherMs
    this.#hasRested = false
    this.#rate = 0
  }

  /**
   * After a read that had to wait so long, with so many bytes still to come. It filled its buffer: more may be there
   * already. 0: read on.
   */
  restMs(
    { readBytes, filled, waitedMs }: { readBytes: number; filled: boolean; waitedMs: number },
    unreadBytes: number,
  ): number {
    const nowMs = this.#clock.nowMs()
    const elapsedMs = nowMs - this.#sinceMs
    this.#bytes += readBytes
    const rate = elapsedMs > 0 ? this.#bytes / elapsedMs : Infinity
    // A pause may be over before the rest is: then the rest brought less than the one before.
    if (waitedMs > peerGatherLateMs || rate < this.#rate / 2) this.#limitMs = peerGatherMs
    else if (this.#hasRested) this.#limitMs = Math.min(2 * this.#limitMs, peerGatherMsMax)
    this.#hasRested = false
    // Towards the end less and less, so that the last bytes are not late.
    const wantedBytes = Math.min(peerGatherBytes, unreadBytes / 2)
    if (filled || wantedBytes < peerGatherBytesMin) return 0
    // At the rate since then, that much comes within this time. Under a millisecond: the source is about as fast as we.
    const restMs = Math.min(this.#limitMs, (wantedBytes / this.#bytes) * elapsedMs)
    if (restMs < 1 && elapsedMs < peerGatherMs) return 0
    this.#sinceMs = nowMs
    this.#bytes = 0
    this.#rate = rate
    this.#hasRested = restMs >= 1
    return restMs < 1 ? 0 : restMs
  }
}
