import { expect, test } from 'vitest'
import { peerGatherBytesMin, peerGatherLateMs, peerGatherMs, peerGatherMsMax } from '../../../src/limits.ts'
import { Gathering } from '../../../src/peers/gathering.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const GiB = 2 ** 30
const KiB = 1024

/** Bytes arrive at a constant rate; all that came since the last read is read at once. */
function readsOf(bytesPerSecond: number, bodyBytes: number): { reads: number; takesMs: number } {
  const clock = new ManualClock()
  const gathering = new Gathering(clock)
  const startedMs = clock.nowMs()
  let readBytes = 0
  let reads = 0
  while (readBytes < bodyBytes) {
    const arrived = Math.min(bodyBytes, Math.floor(((clock.nowMs() - startedMs) * bytesPerSecond) / 1000))
    const bytes = Math.min(arrived - readBytes, 1024 * KiB)
    if (bytes > 0) reads += 1
    readBytes += bytes
    const read = { readBytes: bytes, filled: bytes === 1024 * KiB, waitedMs: 0 }
    const restMs = bytes === 0 ? 0 : gathering.restMs(read, bodyBytes - readBytes)
    // Without a rest the next bytes are there a moment later.
    clock.advance(restMs === 0 ? 0.1 : restMs)
  }
  return { reads, takesMs: clock.nowMs() - startedMs }
}

test('a link of 1 Gbit is read in large pieces, and takes no longer', () => {
  const { reads, takesMs } = readsOf(125e6, 128 * 1024 * KiB)
  expect(reads).toBeLessThan(400)
  expect(takesMs).toBeLessThan(((128 * 1024 * KiB) / 125e6) * 1000 + peerGatherMs)
})

test('a slow one waits longer while as much is there after each wait, up to a limit, and shortly after a pause', () => {
  const clock = new ManualClock()
  const gathering = new Gathering(clock)
  const restAfter = (waitedMs: number, readBytes = KiB) => {
    clock.advance(1_000)
    return gathering.restMs({ readBytes, filled: false, waitedMs }, GiB)
  }
  const rests = (waitsMs: number[]) => waitsMs.map((waitedMs) => restAfter(waitedMs) / peerGatherMs)
  expect(rests([40, 0, 0, 0, 0])).toEqual([1, 2, 4, 4, 4])
  expect(4 * peerGatherMs).toBe(peerGatherMsMax)
  expect(rests([peerGatherLateMs + 1, peerGatherLateMs])).toEqual([1, 2])
  // The pause was over before the rest was.
  expect(restAfter(0, KiB / 2 - 1)).toBe(peerGatherMs)
})

test('a further body begins as the first did, however long nothing was asked for', () => {
  const clock = new ManualClock()
  const gathering = new Gathering(clock)
  for (let count = 0; count < 5; count++) {
    clock.advance(100)
    gathering.restMs({ readBytes: KiB, filled: false, waitedMs: 0 }, GiB)
  }
  clock.advance(10_000)
  gathering.begin()
  clock.advance(0.5)
  // 64 KiB in half a millisecond: 512 take four.
  expect(gathering.restMs({ readBytes: 64 * KiB, filled: false, waitedMs: 0.5 }, GiB)).toBe(4)
})

test('four layers at once over 100 Mbit come in pieces of more than 128 KiB', () => {
  const bodyBytes = 25 * 1024 * KiB
  const { reads, takesMs } = readsOf(100e6 / 8 / 4, bodyBytes - peerGatherBytesMin)
  // Those that are read without a pause, each 0.1 ms, come at the end.
  expect(reads - (2 * peerGatherBytesMin) / 312.5).toBeLessThan(200)
  expect(takesMs).toBeLessThan((bodyBytes / 100e6) * 8 * 4 * 1000 + peerGatherMs)
})

test('nothing is waited for: from a fast source, after a full buffer, near the end of a body', () => {
  const clock = new ManualClock()
  const gathering = new Gathering(clock)
  clock.advance(0.1)
  const restMs = (readBytes: number, filled: boolean, unreadBytes: number) =>
    gathering.restMs({ readBytes, filled, waitedMs: 0 }, unreadBytes)
  expect(restMs(200 * KiB, false, GiB)).toBe(0)
  clock.advance(100)
  expect(restMs(64 * KiB, true, GiB)).toBe(0)
  expect(restMs(64 * KiB, false, 2 * peerGatherBytesMin - 1)).toBe(0)
})
