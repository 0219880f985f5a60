/** All flights of one coordinator: who waits how long, what is forgotten, what is bounded. */
import { describe, expect, it } from 'vitest'
import { Coordinator } from '../../../src/flights/coordinator.ts'
import type { Answer, Join, Report } from '../../../src/flights/protocol.ts'
import {
  flightFailedSourceMs,
  flightForgetMs,
  flightMembersMax,
  flightNodesMax,
  flightQuietLeaderMs,
  flightQuestionsMax,
  flightsMax,
} from '../../../src/limits.ts'
import { type Digest, digestOf } from '../../../src/oci/digest.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const MiB = 2 ** 20
const size = 64 * MiB
const blob = digestOf(Buffer.from('blob'))

class Script {
  readonly clock = new ManualClock()
  readonly leases: string[] = []
  readonly stored = new Set<Digest>()
  /** Who was asked whether it is there. */
  readonly probed: string[] = []
  readonly dead = new Set<string>()
  readonly coordinator = new Coordinator({
    clock: this.clock,
    self: nodeOf('self'),
    isStored: (digest) => this.stored.has(digest),
    isAlive: ({ id }) => this.#isAlive(id),
    onLease: (_digest, node) => void this.leases.push(node),
  })

  /** Undefined as long as it is not answered. */
  asks(
    id: string,
    question: Partial<Join> = {},
    digest: Digest = blob,
  ): { answer: Answer | undefined; leaves(): void } {
    const left = new AbortController()
    const asked = { answer: undefined as Answer | undefined, leaves: () => left.abort() }
    const join: Join = {
      node: nodeOf(id),
      haveBytes: 0,
      size,
      load: { blobCount: 1, feeds: 0 },
      waitMs: 2_000,
      avoid: undefined,
      gone: undefined,
      keep: undefined,
      isSlow: false,
      image: undefined,
      holder: undefined,
      ...question,
    }
    void this.coordinator.join(digest, join, left.signal).then((answer) => (asked.answer = answer))
    return asked
  }

  says(id: string, kind: Report['kind'], haveBytes = 0, digest: Digest = blob, busy?: number): void {
    this.coordinator.report(digest, {
      kind,
      node: nodeOf(id),
      haveBytes,
      size,
      load: { blobCount: 1, feeds: 0 },
      busy,
    })
  }

  #isAlive(id: string): Promise<boolean> {
    this.probed.push(id)
    return Promise.resolve(!this.dead.has(id))
  }

  async passes(ms: number): Promise<void> {
    await settled()
    this.clock.advance(ms)
    await settled()
  }
}

function nodeOf(id: string) {
  return { id, addresses: ['10.0.0.1'] }
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

describe('a coordinator', () => {
  it('answers with a lease, a source when there is one, and "wait" when the time is over', async () => {
    const script = new Script()
    const [a, b, c] = [script.asks('a'), script.asks('b'), script.asks('c', { waitMs: 500 })]
    await script.passes(499)
    expect([a.answer, b.answer, c.answer]).toEqual([{ kind: 'lease' }, undefined, undefined])
    await script.passes(1)
    expect(c.answer).toEqual({ kind: 'wait' })
    script.says('a', 'progress', 2 * MiB)
    await script.passes(0)
    expect(b.answer).toEqual({ kind: 'source', source: nodeOf('a') })
  })

  it('gives nothing to who has left or does not ask at the moment', async () => {
    const script = new Script()
    script.asks('a')
    const gone = script.asks('gone')
    script.asks('late', { waitMs: 100 })
    const stays = script.asks('stays')
    gone.leaves()
    await script.passes(200)
    script.says('a', 'failed')
    await script.passes(0)
    expect(script.leases).toEqual(['a', 'stays'])
    expect(stays.answer).toEqual({ kind: 'lease', afterFailure: true })
  })

  it('lets questions of one node wait side by side, up to a bound', async () => {
    const script = new Script()
    script.asks('a')
    const questions = Array.from({ length: flightQuestionsMax + 1 }, () => script.asks('b'))
    await script.passes(0)
    expect(questions.map(({ answer }) => answer?.kind)).toEqual(['wait', ...questions.slice(1).map(() => undefined)])
    questions[3]?.leaves()
    script.says('a', 'progress', MiB)
    await script.passes(0)
    expect(questions.slice(4).every(({ answer }) => answer?.kind === 'source')).toBe(true)
  })

  it('decides when time alone brings a decision', async () => {
    const script = new Script()
    script.asks('a')
    for (let turn = 0; turn < 8; turn++) {
      script.asks('b')
      await script.passes(1_900)
    }
    expect(script.leases).toEqual(['a', 'b'])
  })

  it('names another source to who stands still only when there is one with more', async () => {
    const script = new Script()
    script.says('a', 'progress', 8 * MiB)
    const [b] = [script.asks('b')]
    await script.passes(0)
    expect(b.answer).toEqual({ kind: 'source', source: nodeOf('a') })
    const stalled = script.asks('b', { keep: 'a', haveBytes: 8 * MiB })
    await script.passes(0)
    expect(stalled.answer).toEqual({ kind: 'wait' })
    script.says('c', 'progress', 9 * MiB)
    const again = script.asks('b', { keep: 'a', haveBytes: 8 * MiB })
    await script.passes(0)
    expect(again.answer).toEqual({ kind: 'source', source: nodeOf('c') })
  })

  it('moves one of two who share a full link, or has it pause', async () => {
    const script = new Script()
    script.says('a', 'progress', MiB)
    script.asks('b')
    script.says('b', 'progress', 0, blob, 0.1)
    script.asks('c')
    script.says('a', 'progress', 20 * MiB)
    for (const id of ['b', 'c']) script.says(id, 'progress', 10 * MiB, blob, 1)
    const slow = { keep: 'a', isSlow: true }
    const [b, c] = [
      script.asks('b', { ...slow, haveBytes: 12 * MiB }),
      script.asks('c', { ...slow, haveBytes: 10 * MiB }),
    ]
    await script.passes(0)
    expect([b.answer, c.answer]).toEqual([{ kind: 'pause' }, { kind: 'wait' }])
    script.says('c', 'progress', 16 * MiB)
    const again = script.asks('b', { ...slow, haveBytes: 12 * MiB })
    await script.passes(0)
    expect(again.answer).toEqual({ kind: 'source', source: nodeOf('c') })
  })

  it('asks a leader that says nothing whether it is there, while others wait; is it not, the next leads', async () => {
    const script = new Script()
    script.asks('a')
    await script.passes(flightQuietLeaderMs)
    expect(script.probed).toEqual([])
    const b = script.asks('b', { waitMs: 60_000 })
    await script.passes(0)
    expect(script.probed).toEqual(['a'])
    script.says('a', 'progress', 0)
    await script.passes(flightQuietLeaderMs - 1)
    expect(script.probed).toEqual(['a'])
    script.dead.add('a')
    await script.passes(1)
    expect(script.probed).toEqual(['a', 'a'])
    await script.passes(0)
    // That upstream failed nobody has said.
    expect(b.answer).toEqual({ kind: 'lease' })
  })

  it('need not ask itself whether it is there', async () => {
    const script = new Script()
    script.asks('self')
    script.asks('b', { waitMs: 60_000 })
    await script.passes(flightQuietLeaderMs)
    await script.passes(flightQuietLeaderMs)
    expect(script.probed).toEqual([])
    expect(script.leases).toEqual(['self'])
  })

  it('believes nothing of a flight that is over', async () => {
    const script = new Script()
    script.asks('a')
    script.says('a', 'complete', size)
    await script.passes(flightForgetMs + 1)
    // The image was removed meanwhile.
    const b = script.asks('b')
    await script.passes(0)
    expect(b.answer).toEqual({ kind: 'lease' })
  })

  it('names its own node when the blob is stored there, whoever knows of that', async () => {
    const script = new Script()
    script.stored.add(blob)
    const a = script.asks('a')
    await script.passes(0)
    expect(a.answer).toEqual({ kind: 'source', source: nodeOf('self') })
    // Not for ever: to the asker it may be a wrong one.
    const again = script.asks('a', { gone: 'self' })
    await script.passes(0)
    expect(again.answer).toEqual({ kind: 'lease' })
  })

  it('names a holder that the asker knows, unless it has said itself what it has', async () => {
    const script = new Script()
    const holder = { node: nodeOf('h'), feeds: 4 }
    const [a, b] = [script.asks('a', { holder }), script.asks('b', { holder })]
    await script.passes(0)
    // It feeds four elsewhere: one more, and that one feeds others.
    expect([a.answer, b.answer]).toEqual([{ kind: 'source', source: nodeOf('h') }, undefined])
    script.says('a', 'progress', MiB)
    await script.passes(0)
    expect(b.answer).toEqual({ kind: 'source', source: nodeOf('a') })
    // It has removed it.
    script.asks('h')
    const c = script.asks('c', { holder, haveBytes: 2 * MiB })
    await script.passes(0)
    expect(c.answer).toEqual({ kind: 'lease' })
  })

  it('does not believe that somebody has it who was just found to be gone', async () => {
    const script = new Script()
    const holder = { node: nodeOf('h'), feeds: 4 }
    const a = script.asks('a', { holder })
    await script.passes(0)
    expect(a.answer).toEqual({ kind: 'source', source: nodeOf('h') })
    script.dead.add('h')
    const again = script.asks('a', { gone: 'h' })
    await script.passes(0)
    const b = script.asks('b', { holder })
    await script.passes(0)
    expect([again.answer, b.answer]).toEqual([{ kind: 'lease' }, undefined])
    await script.passes(flightFailedSourceMs)
    const c = script.asks('c', { holder })
    await script.passes(0)
    expect(c.answer).toEqual({ kind: 'source', source: nodeOf('h') })
  })

  it('takes no lease from a node that is alive, whoever reports that it is gone', async () => {
    const script = new Script()
    const [leader, follower] = [script.asks('leader'), script.asks('follower')]
    await script.passes(0)
    expect([leader.answer, follower.answer]).toEqual([{ kind: 'lease' }, undefined])
    const liar = script.asks('liar', { gone: 'leader' })
    await script.passes(0)
    expect(script.probed).toEqual(['leader'])
    expect([liar.answer, follower.answer]).toEqual([undefined, undefined])
    expect(script.leases).toEqual(['leader'])
    // The same report of a leader that is gone moves the lease.
    script.dead.add('leader')
    script.asks('liar', { gone: 'leader' })
    await script.passes(0)
    expect(script.leases).toEqual(['leader', 'follower'])
  })

  it('checks a node once at a time, however often it is reported gone', async () => {
    const script = new Script()
    script.asks('leader')
    await script.passes(0)
    for (let i = 0; i < 100; i++) script.asks(`liar${i}`, { gone: 'leader' })
    expect(script.probed).toHaveLength(1)
  })

  it('forgets the quietest flights when nodes join very many, and never the newest', async () => {
    const script = new Script()
    const perFlight = 4_000
    const digests = Array.from({ length: 8 }, (_, at) => digestOf(Buffer.from(`blob ${at}`)))
    for (const digest of digests) {
      for (let i = 0; i < perFlight; i++) script.says(`n${i}`, 'progress', MiB, digest)
      expect(script.coordinator.nodeCount).toBeLessThanOrEqual(flightNodesMax)
    }
    expect(script.coordinator.flightCount).toBe(Math.floor(flightNodesMax / perFlight))
    await script.passes(0)
    // The newest flight is still known.
    const follower = script.asks('follower', {}, digests.at(-1))
    await script.passes(0)
    expect(follower.answer?.kind).toBe('source')
  })

  it('keeps nothing of nodes that failed or left, however many they say they are', async () => {
    const script = new Script()
    const a = script.asks('a')
    for (let i = 0; i < flightMembersMax + 10; i++) {
      script.says(`n${i}`, 'progress', MiB)
      script.says(`n${i}`, i % 2 === 0 ? 'failed' : 'left')
    }
    for (let i = 0; i < 10; i++) script.says(`nobody ${i}`, 'failed')
    expect(script.coordinator.nodeCount).toBe(1)
    await script.passes(0)
    expect(a.answer).toEqual({ kind: 'lease' })
  })

  it('has a bound of flights: the least recent is forgotten, and who waits there is told to ask anew', async () => {
    const script = new Script()
    script.asks('a')
    const waits = script.asks('b')
    for (let i = 0; i < flightsMax; i++) script.says('c', 'progress', MiB, digestOf(Buffer.from(String(i))))
    await script.passes(0)
    expect(script.coordinator.flightCount).toBe(flightsMax)
    expect(waits.answer).toEqual({ kind: 'wait' })
  })

  it('forgets what is over when something new comes', async () => {
    const script = new Script()
    for (let i = 0; i < 10; i++) script.says('c', 'progress', MiB, digestOf(Buffer.from(String(i))))
    await script.passes(flightForgetMs + 1)
    script.asks('a')
    expect(script.coordinator.flightCount).toBe(1)
  })

  it('answers all who wait when it is closed', async () => {
    const script = new Script()
    script.asks('a')
    const b = script.asks('b')
    script.coordinator.close()
    await script.passes(0)
    expect(b.answer).toEqual({ kind: 'wait' })
  })
})
