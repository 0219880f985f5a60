import { afterEach, describe, expect, it } from 'vitest'
import { aheadBuffersMax, aheadBytes, aheadStepBytes } from '../../../src/limits.ts'
import { Ahead } from '../../../src/store/ahead.ts'

/** The byte at a position tells the position, modulo a prime that divides no power of two. */
const bytesAt = (position: number, length: number) =>
  Buffer.alloc(length, Buffer.from(Array.from({ length: 251 }, (_, at) => (position + at) % 251)))

let taken: Ahead[] = []
afterEach(() => {
  for (const ahead of taken) ahead.release()
  taken = []
})

function take(): Ahead {
  const ahead = Ahead.take()
  if (ahead === undefined) throw new Error('there are too many')
  taken.push(ahead)
  return ahead
}

function put(ahead: Ahead, position: number, length: number, isLast = false): boolean {
  return ahead.put(position, bytesAt(position, length), isLast)
}

function copy(ahead: Ahead, position: number, roomBytes = 2 * aheadBytes): Buffer {
  const into = Buffer.alloc(roomBytes)
  return into.subarray(0, ahead.copy(position, into))
}

describe('what is ahead of the file', () => {
  it('is told in steps, and at the end', () => {
    const ahead = take()
    expect(put(ahead, 1_000, aheadStepBytes - 1)).toBe(false)
    expect(ahead.has(1_000)).toBe(false)
    expect(copy(ahead, 1_000)).toHaveLength(0)
    expect(put(ahead, 1_000 + aheadStepBytes - 1, 1)).toBe(true)
    expect(copy(ahead, 1_000)).toEqual(bytesAt(1_000, aheadStepBytes))
    const end = 1_000 + aheadStepBytes
    expect(put(ahead, end, 10)).toBe(false)
    expect(ahead.has(end)).toBe(false)
    expect(put(ahead, end + 10, 10, true)).toBe(true)
    expect(copy(ahead, end, 15)).toEqual(bytesAt(end, 15))
    expect([999, 1_000, end + 19, end + 20].map((position) => ahead.has(position))).toEqual([
      false,
      true,
      true,
      false,
    ])
  })

  it('is the latest bytes: older ones make place, whatever the size of the pieces', () => {
    for (const pieceBytes of [aheadStepBytes, 300_001, aheadBytes - 1, aheadBytes, aheadBytes + 12_345]) {
      const ahead = take()
      let end = 7
      for (let count = 0; count < 20; count++, end += pieceBytes) put(ahead, end, pieceBytes)
      const start = end - aheadBytes
      expect(ahead.has(start - 1)).toBe(false)
      expect(copy(ahead, start).equals(bytesAt(start, aheadBytes))).toBe(true)
      expect(copy(ahead, end - 5).equals(bytesAt(end - 5, 5))).toBe(true)
    }
  })

  it('begins anew after a gap, and where the same bytes come again', () => {
    const ahead = take()
    put(ahead, 0, aheadStepBytes)
    put(ahead, 5_000_000, aheadStepBytes)
    expect(ahead.has(0)).toBe(false)
    expect(copy(ahead, 5_000_000)).toEqual(bytesAt(5_000_000, aheadStepBytes))
    put(ahead, 100, aheadStepBytes)
    expect(ahead.has(5_000_000)).toBe(false)
    expect(copy(ahead, 100)).toEqual(bytesAt(100, aheadStepBytes))
  })

  it('is kept of so many downloads at a time', () => {
    for (let count = 0; count < aheadBuffersMax; count++) take()
    expect(Ahead.take()).toBeUndefined()
    taken.pop()?.release()
    expect(take()).toBeDefined()
  })
})
