/**
 * Pairs of buffers for streams, reused. Few streams get large chunks (cheap), many get small ones (small requests in
 * between stay quick). Memory is bounded by the number of streams, which the caller bounds.
 */
import { buffersKeptMax, chunkBytesFew, chunkBytesMany, streamsFew } from '../limits.ts'

let streams = 0
const free = new Map<number, Buffer[]>()

export interface BufferPair {
  readonly first: Buffer
  readonly second: Buffer
  /** Hand the pair back. No read or write may still be using it. */
  release(): void
}

export function takeBufferPair(): BufferPair {
  streams += 1
  const bytes = streams <= streamsFew ? chunkBytesFew : chunkBytesMany
  const [first, second] = [takeBuffer(bytes), takeBuffer(bytes)]
  return {
    first,
    second,
    release() {
      streams -= 1
      for (const buffer of [first, second]) {
        const kept = free.get(bytes)
        if (kept === undefined) free.set(bytes, [buffer])
        else if (kept.length < buffersKeptMax) kept.push(buffer)
      }
    },
  }
}

function takeBuffer(bytes: number): Buffer {
  return free.get(bytes)?.pop() ?? Buffer.allocUnsafeSlow(bytes)
}
