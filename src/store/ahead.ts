/**
 * What our containerd was handed of a download and has not written yet: it writes a whole MiB at a time. Whoever is fed
 * from here gets it from this buffer, so a chain of nodes is late by a quarter of a MiB for each of them, and not by one
 * or two. The latest bytes only: of a containerd that is further behind, the file is waited for.
 */
import { aheadBytes, aheadBuffersMax, aheadStepBytes } from '../limits.ts'

let taken = 0

export class Ahead {
  readonly #ring = Buffer.allocUnsafeSlow(aheadBytes)
  /** Positions in the blob: of the oldest byte that is kept, after the last one that may be read, after the last one. */
  #start = 0
  #told = 0
  #end = 0

  /** Undefined: there are too many. */
  static take(): Ahead | undefined {
    if (taken >= aheadBuffersMax) return undefined
    // Without memory for its buffer none is taken.
    const ahead = new Ahead()
    taken += 1
    return ahead
  }

  /** Make place for another one, once; it must not be used after that. */
  release(): void {
    taken -= 1
  }

  /** After the last byte that may be read, from this position on without a gap; the position, if there are none. */
  endFrom(position: number): number {
    return this.has(position) ? this.#told : position
  }

  has(position: number): boolean {
    return position >= this.#start && position < this.#told
  }

  /** True when there is something new to read: steps that are worth a write. `isLast`: nothing comes after it. */
  put(position: number, chunk: Uint8Array, isLast: boolean): boolean {
    if (position !== this.#end) this.#start = this.#told = this.#end = position
    const kept = chunk.subarray(Math.max(0, chunk.byteLength - aheadBytes))
    this.#end += chunk.byteLength
    const at = (this.#end - kept.byteLength) % aheadBytes
    const beforeWrap = kept.subarray(0, aheadBytes - at)
    this.#ring.set(beforeWrap, at)
    this.#ring.set(kept.subarray(beforeWrap.byteLength), 0)
    this.#start = Math.max(this.#start, this.#end - aheadBytes)
    if (!isLast && this.#end - this.#told < aheadStepBytes) return false
    this.#told = this.#end
    return true
  }

  /** Returns how many bytes, 0 when there are none from this position on. */
  copy(position: number, into: Uint8Array): number {
    if (!this.has(position)) return 0
    const bytes = Math.min(into.byteLength, this.#told - position)
    const at = position % aheadBytes
    const beforeWrap = Math.min(bytes, aheadBytes - at)
    into.set(this.#ring.subarray(at, at + beforeWrap), 0)
    into.set(this.#ring.subarray(0, bytes - beforeWrap), beforeWrap)
    return bytes
  }
}
