/** The rules of a flight, one example each. All sequences of what may happen: every-flight.test.ts. */
import { describe, expect, it } from 'vitest'
import { type Decision, Flight } from '../../../src/flights/flight.ts'
import {
  flightBackoffMs,
  flightDoubtMs,
  flightFailedSourceMs,
  flightFirstBytesMs,
  flightFollowerSilentMs,
  flightForgetMs,
  flightFullMs,
  flightLeaseFreshMs,
  flightLeasesMax,
  flightLoadMs,
  flightQuietLeaderMs,
  flightReliefMs,
  flightSilentMs,
  flightSlotsMax,
  flightTrialMs,
} from '../../../src/limits.ts'

const MiB = 2 ** 20
const large = 64 * MiB
const medium = 10 * MiB
const small = 1000

/** A flight with a clock, in which each event is followed by what is decided then. */
class Script {
  nowMs = 5_000
  readonly flight = new Flight(this.nowMs)
  readonly #size: number

  constructor(size = large) {
    this.#size = size
  }

  asks(id: string, haveBytes = 0): string[] {
    this.flight.join(id, haveBytes, this.#size, this.nowMs)
    return this.decisions()
  }

  has(id: string, haveBytes: number, busy?: number): string[] {
    this.flight.progress(id, haveBytes, this.#size, busy, this.nowMs)
    return this.decisions()
  }

  completes(id: string): string[] {
    this.flight.complete(id, this.#size, this.nowMs)
    return this.decisions()
  }

  fails(id: string): string[] {
    this.flight.failed(id, this.nowMs)
    return this.decisions()
  }

  leaves(id: string): string[] {
    this.flight.leave(id, this.nowMs)
    return this.decisions()
  }

  /** The source did not deliver: it asks again, from where it is. */
  losesSource(id: string, source: string, haveBytes = 0): string[] {
    this.flight.sourceFailed(id, source, this.nowMs)
    return this.asks(id, haveBytes)
  }

  crowded(id: string, source: string, haveBytes: number): string | undefined {
    const relief = this.flight.crowded(id, source, haveBytes, this.nowMs)
    return relief?.kind === 'move' ? relief.source : relief?.kind
  }

  passes(ms: number): string[] {
    this.nowMs += ms
    return this.decisions()
  }

  decisions(): string[] {
    return this.flight.decide(this.nowMs).map(text)
  }

  /** From now; undefined: time alone changes nothing. */
  nextInMs(): number | undefined {
    const nextMs = this.flight.nextMs(this.nowMs)
    return nextMs === undefined ? undefined : nextMs - this.nowMs
  }
}

function tap(script: Script, change: (script: Script) => void): Script {
  change(script)
  return script
}

function text(decision: Decision): string {
  if (decision.kind === 'source') return `${decision.to} from ${decision.source}`
  return `${decision.to} ${decision.further ? 'goes upstream too' : 'goes upstream'}`
}

describe('the lease', () => {
  it('goes to the first who asks; the others wait for bytes', () => {
    const script = new Script()
    expect(script.asks('a')).toEqual(['a goes upstream'])
    expect(script.asks('b')).toEqual([])
    expect(script.asks('c')).toEqual([])
    expect(script.has('a', MiB)).toEqual(['b from a'])
  })

  it('is told again to who has it, as often as it asks', () => {
    const script = new Script()
    script.asks('a')
    script.asks('b')
    expect(script.asks('a')).toEqual(['a goes upstream'])
    expect(script.passes(1_000)).toEqual([])
    expect(script.asks('a')).toEqual(['a goes upstream'])
  })

  it('is told again though a source has appeared, as long as its node may be on its way', () => {
    const script = new Script()
    script.asks('a')
    script.asks('b')
    expect(script.passes(15_000)).toEqual(['b goes upstream too'])
    // It has ended a body for it, and comes back; who says it is complete may be gone.
    script.completes('x')
    script.passes(flightLeaseFreshMs - 1)
    expect(script.asks('b')).toEqual(['b goes upstream'])
    script.passes(1)
    expect(script.asks('b')).toEqual(['b from x'])
  })

  it('goes to the most advanced when who had it failed', () => {
    const script = new Script()
    script.asks('a')
    script.has('x', 8 * MiB)
    script.asks('d', 2 * MiB)
    script.losesSource('d', 'x', 2 * MiB)
    expect(script.asks('c', 5 * MiB)).toEqual(['d from c', 'c from x'])
    script.losesSource('d', 'c', 2 * MiB)
    expect(script.losesSource('c', 'x', 5 * MiB)).toEqual([])
    script.fails('x')
    expect(script.fails('a')).toEqual(['c goes upstream'])
  })

  it.each([...flightBackoffMs, flightBackoffMs.at(-1) ?? 0].map((backoffMs, index) => ({ backoffMs, index })))(
    'waits $backoffMs ms after failure $index in a row that brought nothing',
    ({ backoffMs, index }) => {
      const script = new Script()
      script.asks('waiter')
      script.fails('waiter')
      const failsOnce = (number: number) => {
        script.asks(`n${number}`)
        script.passes(60_000)
        expect(script.flight.describe(`n${number}`)?.leads).toBe(true)
        script.fails(`n${number}`)
      }
      for (let number = 0; number < index; number++) failsOnce(number)
      const decided = script.asks('next')
      if (backoffMs === 0) {
        expect(decided).toEqual(['next goes upstream'])
        return
      }
      expect(decided).toEqual([])
      expect(script.nextInMs()).toBe(backoffMs)
      expect(script.passes(backoffMs - 1)).toEqual([])
      expect(script.passes(1)).toEqual(['next goes upstream'])
    },
  )

  it('does not wait after a failure that brought bytes', () => {
    const script = new Script()
    for (const id of ['a', 'b', 'c', 'd']) {
      script.asks(id)
      script.passes(60_000)
      script.fails(id)
    }
    script.asks('e')
    script.passes(60_000)
    script.has('e', MiB)
    script.fails('e')
    expect(script.asks('f')).toEqual(['f goes upstream'])
  })

  it('is given to further nodes after 15, 20 and 40 s without a byte more, the first stays valid', () => {
    const script = new Script()
    script.asks('a')
    for (let i = 0; i < 20; i++) script.asks(`n${i}`)
    const times: number[] = []
    const startMs = script.nowMs
    for (let ms = 0; ms < 400_000; ms += 1_000) {
      for (const decision of script.passes(1_000)) {
        expect(decision).toMatch(/^n\d+ goes upstream too$/)
        times.push((script.nowMs - startMs) / 1_000)
      }
    }
    expect(times).toEqual([15, 35, 75, 115, 155, 195, 235])
    expect(times).toHaveLength(flightLeasesMax - 1)
    expect(script.asks('a')).toEqual(['a goes upstream'])
  })

  it('is not given to a further node while bytes arrive', () => {
    const script = new Script()
    script.asks('a')
    for (const id of ['b', 'c', 'd']) script.asks(id)
    for (let mib = 1; mib < 20; mib++) {
      expect(script.passes(14_000).filter((decision) => decision.includes('upstream'))).toEqual([])
      expect(script.has('a', mib * MiB).filter((decision) => decision.includes('upstream'))).toEqual([])
    }
  })

  it('counts the bytes of a second try as progress', () => {
    const script = new Script()
    script.asks('a')
    for (const id of ['b', 'c', 'd']) script.asks(id)
    script.has('a', 40 * MiB)
    // Its containerd began anew; 40 MiB were as far as anybody got.
    script.asks('a', 0)
    for (let mib = 1; mib < 20; mib++) {
      expect(script.passes(14_000).filter((decision) => decision.includes('upstream'))).toEqual([])
      script.has('a', mib * MiB)
    }
  })

  it('is of interest to who waits: they ask for a node that has it and says nothing', () => {
    const script = new Script()
    script.asks('a')
    expect([script.nextInMs(), script.flight.quietLeaders(script.nowMs + flightQuietLeaderMs)]).toEqual([
      undefined,
      [],
    ])
    script.asks('b')
    expect(script.nextInMs()).toBe(flightQuietLeaderMs)
    script.passes(flightQuietLeaderMs - 1)
    expect(script.flight.quietLeaders(script.nowMs)).toEqual([])
    script.passes(1)
    expect(script.flight.quietLeaders(script.nowMs)).toEqual(['a'])
    script.flight.heard('a', script.nowMs)
    expect(script.flight.quietLeaders(script.nowMs)).toEqual([])
    expect(script.nextInMs()).toBe(flightQuietLeaderMs)
    script.flight.heard('unknown', script.nowMs)
    expect(script.flight.describe('unknown')).toBeUndefined()
  })

  it('ends when who has it leaves', () => {
    const script = new Script()
    script.asks('a')
    script.asks('b')
    expect(script.leaves('a')).toEqual(['b goes upstream'])
  })

  it('waits for who has more and fetches from nobody, but not long', () => {
    const script = new Script()
    script.has('a', 8 * MiB)
    expect(script.asks('b')).toEqual(['b from a'])
    expect(script.losesSource('b', 'a')).toEqual([])
    expect(script.passes(flightSilentMs - 1)).toEqual([])
    expect(script.passes(1)).toEqual(['b goes upstream'])
  })

  it('is given when a complete node does not deliver', () => {
    const script = new Script()
    script.asks('a')
    script.completes('a')
    expect(script.asks('b')).toEqual(['b from a'])
    script.passes(60_000)
    expect(script.losesSource('b', 'a')).toEqual(['b goes upstream'])
  })

  it('is given when a complete node did not deliver to one and nobody has had bytes from it since', () => {
    for (const isFrozen of [true, false]) {
      const script = new Script()
      script.completes('h')
      script.flight.noteLoad('h', { blobCount: 2, feeds: 0 }, script.nowMs)
      expect([...script.asks('a'), ...script.asks('b')]).toEqual(['a from h', 'b from h'])
      for (let number = 0; number < 9; number++) expect(script.asks(`n${number}`)).toEqual([])
      script.passes(3_000)
      script.flight.sourceFailed('a', 'h', script.nowMs)
      expect(script.decisions()).toEqual(['n0 from h'])
      const decided = isFrozen ? [] : script.has('b', MiB)
      decided.push(...script.passes(flightFirstBytesMs), ...script.passes(flightDoubtMs - flightFirstBytesMs))
      expect(decided.filter((decision) => decision.includes('upstream'))).toHaveLength(isFrozen ? 1 : 0)
    }
  })

  it('is not given to who no longer asks', () => {
    const script = new Script()
    script.asks('a')
    script.asks('b')
    script.asks('c')
    script.flight.pause('b')
    expect(script.fails('a')).toEqual(['c goes upstream'])
    expect(script.flight.describe('b')).toMatchObject({ leads: false })
  })
})

describe('sources', () => {
  it('have strictly more than who is fed', () => {
    const script = new Script()
    script.asks('a')
    script.has('a', 4 * MiB)
    expect(script.asks('b', 4 * MiB)).toEqual([])
    expect(script.asks('c', 4 * MiB - 1)).toEqual(['c from a'])
    expect(script.has('a', 4 * MiB + 1)).toEqual([])
    expect(script.leaves('c')).toEqual(['b from a'])
  })

  it('take one follower, for which others wait a little, since it measures for all', () => {
    const script = new Script()
    script.asks('a')
    for (const id of ['b', 'c', 'd']) script.asks(id)
    expect(script.has('a', 8 * MiB)).toEqual(['b from a'])
    expect(script.has('b', MiB)).toEqual([])
    expect(script.nextInMs()).toBe(flightTrialMs)
    // Who was fed before does not wait.
    expect(script.asks('e', 2 * MiB)).toEqual([])
    expect(script.has('b', 3 * MiB)).toEqual(['e from b'])
    expect(script.passes(flightTrialMs - 1)).toEqual([])
    expect(script.passes(1)).toEqual(['c from e'])
    expect(script.has('c', MiB)).toEqual(['d from c'])
  })

  it('are tried by the next when the first follower leaves without having measured', () => {
    const script = new Script()
    script.asks('a')
    for (const id of ['b', 'c', 'd']) script.asks(id)
    expect(script.has('a', 8 * MiB)).toEqual(['b from a'])
    script.passes(1)
    expect(script.leaves('b')).toEqual(['c from a'])
    expect(script.nextInMs()).toBe(flightTrialMs - 1)
  })

  it('are waited for no longer when somebody has the blob complete', () => {
    const script = new Script()
    script.asks('a')
    for (const id of ['b', 'c', 'd']) script.asks(id)
    expect(script.has('a', 8 * MiB)).toEqual(['b from a'])
    expect(script.completes('a')).toEqual(['c from a', 'd from a'])
  })

  it('that nobody has measured yet are taken for no better than the worst that was', () => {
    const script = new Script()
    script.asks('a')
    for (let i = 0; i < 12; i++) script.asks(`n${i}`)
    expect(script.has('a', 8 * MiB)).toEqual(['n0 from a'])
    // 0.6 / 0.3: two each.
    const first = script.has('n0', MiB, 0.3)
    expect(first).toEqual(['n1 from n0', 'n2 from a', 'n3 from n0'])
    expect(script.has('n1', MiB - 1)).toEqual(['n4 from n1', 'n5 from n1'])
  })

  it.each([
    // floor(0.6 n / busy), from 1 to 4
    { busy: 1, slots: 1 },
    { busy: 0.6, slots: 1 },
    { busy: 0.3, slots: 2 },
    { busy: 0.21, slots: 2 },
    { busy: 0.2, slots: 2 },
    { busy: 0.1, slots: flightSlotsMax },
    { busy: 0, slots: flightSlotsMax },
  ])('take $slots at once when their follower is busy for $busy of its time', ({ busy, slots }) => {
    const script = new Script()
    script.asks('a')
    for (let i = 0; i < 10; i++) script.asks(`n${i}`)
    expect(script.has('a', 8 * MiB)).toEqual(['n0 from a'])
    const fed = script.has('n0', MiB, busy).filter((decision) => decision.endsWith('from a'))
    expect(fed).toHaveLength(slots - 1)
  })

  it.each([
    // floor(0.6 / 0.09 / blobs), from 1 to 4
    { blobs: 1, slots: flightSlotsMax },
    { blobs: 2, slots: 3 },
    { blobs: 3, slots: 2 },
    { blobs: 4, slots: 1 },
    { blobs: 100, slots: 1 },
  ])('share what was measured among the $blobs blobs that they may have to send: $slots', ({ blobs, slots }) => {
    const script = new Script()
    script.asks('a')
    script.flight.noteLoad('a', { blobCount: blobs, feeds: 0 }, script.nowMs)
    for (let i = 0; i < 10; i++) script.asks(`n${i}`)
    expect(script.has('a', 8 * MiB)).toEqual(['n0 from a'])
    expect(script.has('n0', MiB, 0.09).filter((decision) => decision.endsWith('from a'))).toHaveLength(slots - 1)
  })

  it('share their four when they are complete, too', () => {
    const script = new Script()
    script.asks('a')
    script.flight.noteLoad('a', { blobCount: 2, feeds: 0 }, script.nowMs)
    for (let i = 0; i < 10; i++) script.asks(`n${i}`)
    expect(script.completes('a')).toEqual(['n0 from a', 'n1 from a'])
  })

  it('that are complete take as many as make four with those that they feed elsewhere, and one always', () => {
    for (const [feeds, slots] of [
      [0, 4],
      [1, 3],
      [3, 1],
      [4, 1],
      [100, 1],
    ] as const) {
      const script = new Script()
      script.completes('a')
      script.flight.noteLoad('a', { blobCount: 1, feeds }, script.nowMs)
      for (let i = 0; i < 10; i++) script.flight.join(`n${i}`, 0, large, script.nowMs)
      expect(script.decisions()).toHaveLength(slots)
      // Its followers here are among those that it tells of.
      script.flight.noteLoad('a', { blobCount: 1, feeds: feeds + slots }, script.nowMs)
      expect(script.decisions()).toEqual([])
    }
  })

  it('take three of a blob of medium size without measuring', () => {
    const script = new Script(medium)
    script.asks('a')
    for (let i = 0; i < 10; i++) script.asks(`n${i}`)
    expect(script.has('a', MiB)).toEqual(['n0 from a', 'n1 from a', 'n2 from a'])
  })

  it('take four when they are complete', () => {
    const script = new Script()
    script.asks('a')
    for (let i = 0; i < 10; i++) script.asks(`n${i}`)
    expect(script.completes('a')).toHaveLength(flightSlotsMax)
  })

  it('take everybody at once when they have a small blob, and nobody before', () => {
    const script = new Script(small)
    script.asks('a')
    for (let i = 0; i < 10; i++) script.asks(`n${i}`)
    expect(script.has('a', 500)).toEqual([])
    expect(script.completes('a')).toHaveLength(10)
  })

  it('with the fewest followers come first, then those with most bytes', () => {
    const script = new Script(medium)
    script.asks('a')
    script.has('a', 2 * MiB)
    script.has('b', 3 * MiB)
    expect(script.asks('c')).toEqual(['c from b'])
    expect(script.asks('d')).toEqual(['d from a'])
  })

  it('that have it complete and feed others with other blobs come after those that feed fewer', () => {
    const script = new Script()
    for (const [id, feeds] of [
      ['a', 3],
      ['b', 1],
      ['c', 2],
    ] as const) {
      script.completes(id)
      script.flight.noteLoad(id, { blobCount: 1, feeds }, script.nowMs)
    }
    expect(script.asks('d')).toEqual(['d from b'])
    expect(script.asks('e')).toEqual(['e from c'])
    expect(script.asks('f')).toEqual(['f from a'])
  })

  it('that did not deliver are not named to the same follower for 10 s', () => {
    const script = new Script()
    script.asks('a')
    script.has('a', 8 * MiB)
    script.asks('b')
    expect(script.losesSource('b', 'a', MiB)).toEqual([])
    expect(script.passes(flightFailedSourceMs - 1)).toEqual([])
    expect(script.nextInMs()).toBe(1)
    expect(script.passes(1)).toContain('b from a')
  })

  it('are changed when they stand still and somebody has more; else they stay', () => {
    const script = new Script()
    script.asks('a')
    script.has('a', 8 * MiB)
    script.asks('b')
    expect(script.flight.stalled('b', 'a', 8 * MiB, script.nowMs)).toBeUndefined()
    expect(script.flight.describe('b')).toMatchObject({ source: 'a' })
    script.has('c', 8 * MiB)
    expect(script.flight.stalled('b', 'a', 8 * MiB, script.nowMs)).toBeUndefined()
    script.has('c', 9 * MiB)
    expect(script.flight.stalled('b', 'a', 8 * MiB, script.nowMs)).toEqual({ kind: 'move', source: 'c' })
    expect(script.flight.describe('b')).toMatchObject({ source: 'c' })
  })

  describe('whose link is full', () => {
    /** 'a' feeds 'b' and 'c', as long as nobody measured much; 'b' has got further. */
    function crowded(busyB = 1): Script {
      const script = new Script()
      script.asks('a')
      script.has('a', 2 * MiB)
      script.asks('b')
      script.has('b', 0, 0.1)
      script.asks('c')
      script.has('a', 32 * MiB)
      script.has('b', 20 * MiB, busyB)
      script.has('c', 16 * MiB, 1)
      expect(script.flight.describe('b')).toMatchObject({ source: 'a' })
      expect(script.flight.describe('c')).toMatchObject({ source: 'a' })
      return script
    }

    it('lose a follower to one that has more and feeds nobody', () => {
      const script = crowded()
      expect(script.crowded('b', 'a', 24 * MiB)).toBeUndefined()
      expect(script.crowded('c', 'a', 16 * MiB)).toBe('b')
      expect(script.flight.describe('c')).toMatchObject({ source: 'b' })
      // It did no wrong: who comes late may be fed by it, once its last follower has room to spare.
      script.has('b', 25 * MiB, 0.1)
      script.passes(flightFullMs)
      expect(script.asks('late', 24 * MiB)).toEqual(['late from a'])
      // What 'c' had measured was not the link of 'b'.
      expect(script.asks('later', 24 * MiB)).toEqual(['later from b'])
    })

    it('have the last follower pause until another one is ahead of it', () => {
      const script = crowded()
      expect(script.crowded('c', 'a', 20 * MiB)).toBe('pause')
      expect(script.crowded('b', 'a', 20 * MiB)).toBeUndefined()
      script.has('b', 20 * MiB + 1)
      expect(script.crowded('c', 'a', 20 * MiB)).toBe('b')
    })

    it('have nobody pause when they have all of it: who is slow may be so by itself', () => {
      const script = crowded()
      script.completes('a')
      expect(script.crowded('c', 'a', 20 * MiB)).toBeUndefined()
      script.has('b', 21 * MiB)
      expect(script.crowded('c', 'a', 20 * MiB)).toBe('b')
    })

    it('are so, whatever was measured, for all that fall behind and ask', () => {
      const script = crowded(0.1)
      script.has('d', 24 * MiB)
      expect(script.crowded('c', 'a', 16 * MiB)).toBeUndefined()
      expect(script.crowded('b', 'a', 26 * MiB)).toBeUndefined()
      expect(script.crowded('c', 'a', 16 * MiB)).toBe('d')
      // For a while nobody else is sent there.
      expect(script.asks('late', 25 * MiB)).toEqual([])
      expect(script.passes(flightFullMs - 1)).toEqual([])
      expect(script.nextInMs()).toBe(1)
      expect(script.passes(1)).toEqual(['late from a'])
    })

    it('lose one at a time', () => {
      const script = new Script()
      script.asks('a')
      script.has('a', 2 * MiB)
      script.asks('b')
      script.has('b', 0, 0.1)
      expect([...script.asks('c'), ...script.asks('d')]).toEqual(['c from a', 'd from a'])
      script.has('a', 32 * MiB)
      for (const [id, haveBytes] of [
        ['b', 20 * MiB],
        ['c', 16 * MiB],
        ['d', 14 * MiB],
      ] as const)
        script.has(id, haveBytes, 1)
      expect(script.crowded('d', 'a', 14 * MiB)).toBe('b')
      script.passes(flightReliefMs - 1)
      expect(script.crowded('c', 'a', 16 * MiB)).toBeUndefined()
      script.passes(1)
      expect(script.crowded('c', 'a', 16 * MiB)).toBe('pause')
    })

    it('are not left for one that feeds as many', () => {
      const script = crowded()
      script.has('d', 30 * MiB)
      expect(script.asks('e', 24 * MiB)).toEqual(['e from d'])
      script.has('e', 24 * MiB, 0.1)
      script.has('b', 24 * MiB)
      expect(script.crowded('b', 'a', 24 * MiB)).toBeUndefined()
    })

    it('are known to feed who says so, whatever was answered last', () => {
      const script = crowded()
      expect(script.crowded('c', 'a', 16 * MiB)).toBe('b')
      // That was lost.
      script.passes(flightReliefMs)
      expect(script.crowded('c', 'a', 16 * MiB)).toBe('b')
    })

    it.each<[string, () => Script]>([
      ['is alone', () => tap(crowded(), (script) => script.leaves('b'))],
      ['is close behind', () => tap(crowded(), (script) => script.has('c', 25 * MiB))],
      ['is beside one that waits, and does not ask', () => crowded(0.4)],
    ])('keep a follower that %s', (_what, make) => {
      const script = make()
      script.has('d', 30 * MiB)
      expect(script.crowded('c', 'a', 16 * MiB)).toBeUndefined()
    })
  })

  it('have room again when a follower leaves, fails, completes, or was not heard of for long', () => {
    const ends: ((script: Script) => string[])[] = [
      (script) => script.leaves('b'),
      (script) => script.fails('b'),
      (script) => script.completes('b'),
    ]
    for (const end of ends) {
      const script = new Script()
      script.asks('a')
      script.has('a', 8 * MiB)
      expect(script.asks('b')).toEqual(['b from a'])
      expect(script.asks('c')).toEqual([])
      expect(end(script)).toEqual([expect.stringMatching(/^c from [ab]$/)])
    }
    const script = new Script()
    script.asks('a')
    script.completes('a')
    for (let i = 0; i < flightSlotsMax; i++) script.asks(`n${i}`)
    for (let i = 0; i < flightSlotsMax; i++) script.flight.progress(`n${i}`, MiB, large, undefined, script.nowMs)
    script.passes(flightLoadMs)
    expect(script.asks('late', MiB)).toEqual([])
    expect(script.nextInMs()).toBe(flightFollowerSilentMs - flightLoadMs)
    expect(script.passes(flightFollowerSilentMs - flightLoadMs)).toEqual(['late from a'])
  })

  it('have room again soon when a follower never told of a first MiB', () => {
    const script = new Script()
    script.completes('a')
    script.flight.noteLoad('a', { blobCount: 4, feeds: 0 }, script.nowMs)
    expect(script.asks('b')).toEqual(['b from a'])
    expect(script.asks('c')).toEqual([])
    expect(script.nextInMs()).toBe(flightFirstBytesMs)
    expect(script.passes(flightFirstBytesMs - 1)).toEqual([])
    expect(script.passes(1)).toEqual(['c from a'])
  })

  it('that have it complete count as idle when what they said of their load is old', () => {
    const script = new Script()
    script.completes('a')
    script.flight.noteLoad('a', { blobCount: 4, feeds: 9 }, script.nowMs)
    expect(script.asks('b')).toEqual(['b from a'])
    script.has('b', MiB)
    for (const id of ['c', 'd', 'e', 'f']) script.flight.join(id, 2 * MiB, large, script.nowMs)
    expect(script.nextInMs()).toBe(flightLoadMs)
    expect(script.passes(flightLoadMs - 1)).toEqual([])
    expect(script.passes(1)).toEqual(['c from a', 'd from a', 'e from a'])
  })

  it('lose their followers with their bytes', () => {
    const script = new Script()
    script.has('a', 8 * MiB)
    script.asks('b')
    script.has('b', 4 * MiB)
    // Its containerd began anew.
    script.asks('a', 0)
    expect(script.flight.describe('a')).toMatchObject({ haveBytes: 0, source: 'b' })
    expect(script.flight.describe('b')).toMatchObject({ source: undefined })
  })
})

describe('a flight', () => {
  it('is over when nobody waits and nobody said anything for long', () => {
    const script = new Script()
    for (let i = 0; i <= flightLeasesMax; i++) script.asks(`n${i}`)
    script.passes(flightForgetMs + 1)
    expect(script.flight.isOver(script.nowMs)).toBe(false)
    for (let i = 0; i <= flightLeasesMax; i++) script.leaves(`n${i}`)
    script.passes(flightForgetMs + 1)
    expect(script.flight.isOver(script.nowMs)).toBe(true)
    script.has('a', MiB)
    expect(script.flight.isOver(script.nowMs)).toBe(false)
  })

  it('remembers of sources that failed only those it knows', () => {
    const script = new Script()
    for (const id of ['a', 'b', 'c']) script.asks(id)
    expect(script.passes(15_000)).toEqual(['b goes upstream too'])
    script.flight.sourceFailed('c', 'nobody', script.nowMs)
    // Not the 10 s in which a source is avoided, but the further lease.
    expect(script.nextInMs()).toBe(20_000)
    script.flight.sourceFailed('c', 'a', script.nowMs)
    expect(script.nextInMs()).toBe(10_000)
  })
})
