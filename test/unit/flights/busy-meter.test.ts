/** How busy a follower is, told by its own clock. */
import { describe, expect, it } from 'vitest'
import { BusyMeter } from '../../../src/flights/busy-meter.ts'

const KiB = 1024
const MiB = 1024 * KiB

class Script {
  #nowMs = 1_000
  readonly meter: BusyMeter

  constructor(hereBytes?: number) {
    this.meter = new BusyMeter(() => this.#nowMs, hereBytes)
  }

  /** Bytes that come so long after the last were written, in pieces; writing them takes a while. */
  receives(
    bytes: number,
    {
      gapMs,
      pieceBytes = 64 * KiB,
      writeMs = 0,
      latestWaitMs,
    }: { gapMs: number; pieceBytes?: number; writeMs?: number; latestWaitMs?: number },
  ): number[] {
    const told: number[] = []
    for (let left = bytes; left > 0; left -= pieceBytes) {
      this.#nowMs += gapMs
      this.meter.noteBytes(Math.min(left, pieceBytes), latestWaitMs)
      this.#nowMs += writeMs
      this.meter.noteWritten()
      const busy = this.meter.takeChange()
      if (busy !== undefined) told.push(busy)
    }
    return told
  }
}

describe('the busy meter', () => {
  it('says nothing before 2 MiB without a pause, then once, and no more while nothing changes', () => {
    const script = new Script()
    expect(script.receives(2 * MiB - 64 * KiB, { gapMs: 10 })).toEqual([])
    expect(script.receives(64 * KiB, { gapMs: 10 })).toEqual([1])
    expect(script.receives(20 * MiB, { gapMs: 10 })).toEqual([])
  })

  it('does not know whether a link is full that brings 64 KiB at a time, slowly', () => {
    const slow = new Script()
    slow.receives(4 * MiB, { gapMs: 40 })
    expect(slow.meter.busy).toBe(0)
    expect(slow.meter.mayBeFull).toBe(true)
    const steps = new Script()
    for (let turn = 0; turn < 8; turn++) {
      steps.receives(64 * KiB, { gapMs: 70 })
      steps.receives(MiB - 64 * KiB, { gapMs: 1 })
    }
    expect(steps.meter.mayBeFull).toBe(false)
    const full = new Script()
    full.receives(4 * MiB, { gapMs: 10 })
    expect(full.meter.mayBeFull).toBe(true)
  })

  it('does not count what was there before the first pause: that comes as fast as the link allows', () => {
    const script = new Script()
    expect(script.receives(2 * MiB - 64 * KiB, { gapMs: 1 })).toEqual([])
    expect(script.receives(64 * KiB, { gapMs: 240 })).toEqual([])
    expect(script.receives(MiB - 128 * KiB, { gapMs: 1 })).toEqual([])
    expect(script.receives(64 * KiB, { gapMs: 1 })).toEqual([expect.closeTo(15 / 255)])
  })

  it('does not count what the source says it had, however much', () => {
    const script = new Script(8 * MiB)
    expect(script.receives(8 * MiB - 64 * KiB, { gapMs: 1 })).toEqual([])
    expect(script.meter.mayBeFull).toBe(true)
    expect(script.receives(64 * KiB, { gapMs: 1 })).toEqual([])
    expect(script.meter.mayBeFull).toBe(false)
    expect(script.receives(64 * KiB, { gapMs: 240 })).toEqual([])
    expect(script.receives(MiB - 64 * KiB, { gapMs: 1 })).toEqual([expect.closeTo(15 / 255)])
    // A link that is full is found to be so none the less.
    const full = new Script(8 * MiB)
    expect(full.receives(9 * MiB, { gapMs: 10 })).toEqual([1])
  })

  it('does not count the round trip to the first byte', () => {
    const script = new Script()
    expect(script.receives(64 * KiB, { gapMs: 500 })).toEqual([])
    expect(script.receives(2 * MiB - 64 * KiB, { gapMs: 10 })).toEqual([1])
  })

  it('tells a full link from a source that has nothing', () => {
    expect(new Script().receives(2 * MiB, { gapMs: 10 })).toEqual([1])
    expect(new Script().receives(2 * MiB, { gapMs: 84 })).toEqual([0])
    const script = new Script()
    script.receives(512 * KiB, { gapMs: 30 })
    // 90 ms of receiving, 7 times 30 ms of waiting: the first is the way of the request.
    expect(script.receives(576 * KiB, { gapMs: 10 })).toEqual([expect.closeTo(0.3)])
  })

  it('knows what was left in the socket for a while from what was waited for', () => {
    expect(new Script().receives(2 * MiB, { gapMs: 48, latestWaitMs: 0 })).toEqual([1])
    // Nothing was there when it was looked for, so nothing had come while it was not.
    expect(new Script().receives(2 * MiB, { gapMs: 60, latestWaitMs: 15 })).toEqual([0])
  })

  it('does not count the time in which our own containerd writes', () => {
    expect(new Script().receives(2 * MiB, { gapMs: 10, writeMs: 5_000 })).toEqual([1])
    expect(new Script().receives(2 * MiB, { gapMs: 84, writeMs: 5_000 })).toEqual([0])
  })

  it('forgets what is longer ago than the last 4 MiB', () => {
    const script = new Script()
    expect(script.receives(8 * MiB, { gapMs: 10 })).toEqual([1])
    const told = script.receives(5 * MiB, { gapMs: 40 })
    expect(told.length).toBeGreaterThan(1)
    expect(told.length).toBeLessThanOrEqual(5)
    expect(told.at(-1)).toBeLessThan(0.2)
    expect(script.receives(8 * MiB, { gapMs: 10 }).at(-1)).toBeGreaterThan(0.8)
  })

  it('takes bytes that are there at once for room', () => {
    expect(new Script().receives(2 * MiB, { gapMs: 0 })).toEqual([0])
  })

  it('stays between 0 and 1 whatever comes', () => {
    for (const pieceBytes of [1_000, 64 * KiB, MiB, 16 * MiB]) {
      for (const gapMs of [0, 0.01, 15, 15.1, 60_000]) {
        for (const busy of new Script().receives(6 * MiB, { gapMs, pieceBytes })) {
          expect(busy).toBeGreaterThanOrEqual(0)
          expect(busy).toBeLessThanOrEqual(1)
        }
      }
    }
  })
})
