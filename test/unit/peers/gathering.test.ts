import { expect, test } from 'vitest'
import { peerGatherBytes, peerGatherMs } from '../../../src/limits.ts'
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
    const restMs = bytes === 0 ? 0 : gathering.restMs(bytes, bytes === 1024 * KiB, bodyBytes - readBytes)
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

test('a slow one waits for no more than its limit', () => {
  const clock = new ManualClock()
  const gathering = new Gathering(clock)
  clock.advance(1_000)
  expect(gathering.restMs(KiB, false, GiB)).toBe(peerGatherMs)
})

test('nothing is waited for: from a fast source, after a full buffer, near the end of a body', () => {
  const clock = new ManualClock()
  const gathering = new Gathering(clock)
  clock.advance(0.1)
  expect(gathering.restMs(200 * KiB, false, GiB)).toBe(0)
  clock.advance(100)
  expect(gathering.restMs(64 * KiB, true, GiB)).toBe(0)
  expect(gathering.restMs(64 * KiB, false, peerGatherBytes - 1)).toBe(0)
})
