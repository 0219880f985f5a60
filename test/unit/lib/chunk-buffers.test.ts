/** Large chunks for few and for undisturbed streams, small ones beside small requests. */
import { afterEach, describe, expect, it } from 'vitest'
import { type BufferPair, noteSmallRequest, takeBufferPair } from '../../../src/lib/chunk-buffers.ts'
import {
  carefulChunks,
  chunkBytesLarge,
  chunkBytesSmall,
  streamsFew,
  streamsWithLargeBuffers,
} from '../../../src/limits.ts'

const bodyBytes = 100 * chunkBytesLarge
let pairs: BufferPair[] = []
const take = (count: number) =>
  (pairs = [...pairs, ...Array.from({ length: count }, () => takeBufferPair(bodyBytes))])
const untilLarge = (pair: BufferPair) => {
  for (let chunks = 0; ; chunks++) if (pair.nextChunkBytes() === chunkBytesLarge) return chunks
}

afterEach(() => {
  const [first] = take(streamsFew + 1)
  if (first !== undefined) untilLarge(first)
  for (const pair of pairs) pair.release()
  pairs = []
})

describe('chunks', () => {
  it('are large while nobody asks for anything small', () => {
    for (const pair of take(streamsWithLargeBuffers)) expect(pair.nextChunkBytes()).toBe(chunkBytesLarge)
  })

  it('are small for a while after a small request, and then large again', () => {
    const [first] = take(streamsFew + 1)
    noteSmallRequest()
    expect(first?.nextChunkBytes()).toBe(chunkBytesSmall)
    expect(first && untilLarge(first)).toBe(carefulChunks - 1)
  })

  it('are large whatever is asked, when streams are few', () => {
    noteSmallRequest()
    for (const pair of take(streamsFew)) expect(pair.nextChunkBytes()).toBe(chunkBytesLarge)
  })

  it('fit into their buffers, of which only so many are large', () => {
    const all = take(streamsWithLargeBuffers + 1)
    for (const { first, second, nextChunkBytes } of all) {
      expect(first.length).toBe(second.length)
      expect(nextChunkBytes()).toBe(first.length)
    }
    expect(all.at(-1)?.first.length).toBe(chunkBytesSmall)
    noteSmallRequest()
    for (const { nextChunkBytes } of all) expect(nextChunkBytes()).toBe(chunkBytesSmall)
  })

  it('of a small body are small', () => {
    const pair = takeBufferPair(chunkBytesSmall)
    expect([pair.first.length, pair.nextChunkBytes()]).toEqual([chunkBytesSmall, chunkBytesSmall])
    pair.release()
  })

  it('take buffers that were handed back', () => {
    const [pair] = take(1)
    const buffer = pair?.first
    pairs = []
    pair?.release()
    const again = take(1)[0]
    expect([again?.first, again?.second]).toContain(buffer)
  })
})
