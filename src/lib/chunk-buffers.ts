/**
 * Pairs of buffers for streams, reused. Large chunks are cheap, small ones keep small requests quick: few streams, and
 * streams while nobody asks for anything small, move large ones. Memory is bounded by the number of streams, which the
 * caller bounds.
 */
import {
  buffersKeptMax,
  carefulChunks,
  chunkBytesLarge,
  chunkBytesSmall,
  streamsFew,
  streamsWithLargeBuffers,
} from '../limits.ts'

let streams = 0
/** So many chunks are small yet, since somebody asked for something small. */
let smallChunksLeft = 0
const free = new Map<number, Buffer[]>()

export interface BufferPair {
  readonly first: Buffer
  readonly second: Buffer
  /** For each chunk anew: how much of a buffer to fill. */
  nextChunkBytes(): number
  /** Hand the pair back. No read or write may still be using it. */
  release(): void
}

/** A HEAD, or a manifest: more of them may come, and each waits behind the chunks that are being moved. */
export function noteSmallRequest(): void {
  smallChunksLeft = carefulChunks
}

/** Those that are kept for reuse go to the garbage collector. */
export function forgetFreeBuffers(): void {
  free.clear()
}

export function takeBufferPair(bodyBytes: number): BufferPair {
  const isLarge = bodyBytes > chunkBytesSmall && streams < streamsWithLargeBuffers
  const bytes = isLarge ? chunkBytesLarge : chunkBytesSmall
  const [first, second] = [takeBuffer(bytes), takeBuffer(bytes)]
  // After the buffers: there may be no memory for them.
  streams += 1
  return {
    first,
    second,
    nextChunkBytes() {
      if (smallChunksLeft === 0 || streams <= streamsFew) return bytes
      smallChunksLeft -= 1
      return chunkBytesSmall
    },
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
