import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { afterAwake } from '../../../src/lib/patience.ts'
import {
  deliveryCheckMs,
  deliveryCommitMs,
  deliveryRangesMax,
  hedgeDelayMaxMs,
  hedgeDelayMinMs,
  peerAvoidMs,
  wrongBytesMs,
} from '../../../src/limits.ts'
import { type Digest, digestOf } from '../../../src/oci/digest.ts'
import { UnusualAnswer, parseAnswerHead } from '../../../src/peers/answer-head.ts'
import { AnswerTimes } from '../../../src/peers/answer-times.ts'
import { Deliveries } from '../../../src/peers/deliveries.ts'
import { PeerStanding } from '../../../src/peers/standing.ts'
import { ContentNotFound } from '../../../src/store/store.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const digest = digestOf(Buffer.from('blob'))

describe('heads of answers', () => {
  it('are understood when they are plain', () => {
    const head = parseAnswerHead(
      'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nX-A:  b c \r\nConnection: Close',
      'GET',
    )
    expect(head).toMatchObject({ status: 206, bodyBytes: 5, keepAlive: false })
    expect(head.headers.get('x-a')).toBe('b c')
    expect(parseAnswerHead('HTTP/1.1 200\r\ncontent-length: 9', 'HEAD').bodyBytes).toBe(0)
  })

  it.each([
    ['HTTP/1.0 200 OK\r\ncontent-length: 1'],
    ['HTTP/1.1 100 Continue'],
    ['HTTP/1.1 2000 OK\r\ncontent-length: 1'],
    ['HTTP/1.1 200 OK'],
    ['HTTP/1.1 200 OK\r\ntransfer-encoding: chunked'],
    ['HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2'],
    ['HTTP/1.1 200 OK\r\ncontent-length: -1'],
    ['HTTP/1.1 200 OK\r\ncontent-length: 1\r\n folded: x'],
    ['HTTP/1.1 200 OK\r\ncontent-length : 1'],
    ['SSH-2.0-OpenSSH_9.2'],
    [''],
  ])('are left to a library otherwise: %j', (text) => {
    expect(() => parseAnswerHead(text, 'GET')).toThrow(UnusualAnswer)
  })

  it('never make it throw anything else', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.constantFrom('', 'HTTP/1.1 200 OK\r\n'), (text, start) => {
        try {
          expect(parseAnswerHead(start + text, 'GET').bodyBytes).toBeGreaterThanOrEqual(0)
        } catch (error) {
          expect(error).toBeInstanceOf(UnusualAnswer)
        }
      }),
    )
  })
})

describe('the wait for a further answer', () => {
  it('is long as long as nothing is known, and follows the slow ones within its bounds', () => {
    const times = new AnswerTimes()
    expect(times.hedgeDelayMs()).toBe(hedgeDelayMaxMs)
    for (let i = 0; i < 100; i++) times.note(1)
    expect(times.hedgeDelayMs()).toBe(hedgeDelayMinMs)
    for (let i = 0; i < 10; i++) times.note(100)
    expect(times.hedgeDelayMs()).toBe(100)
    for (let i = 0; i < 10; i++) times.note(10_000)
    expect(times.hedgeDelayMs()).toBe(hedgeDelayMaxMs)
  })
})

describe('the standing of a peer', () => {
  const [a, b, c] = ['10.0.0.1', '10.0.0.2', '10.0.0.3'].map((address) => ({ addresses: [address] })) as [
    { addresses: string[] },
    { addresses: string[] },
    { addresses: string[] },
  ]

  it('recovers, later after wrong bytes', () => {
    const clock = new ManualClock()
    const standing = new PeerStanding(clock)
    standing.noteFailure(a)
    standing.noteWrongHolder(b, digest)
    // A failure does not shorten it.
    standing.noteFailure(b)
    expect([a, b, c].map((peer) => standing.isAvoided(peer))).toEqual([true, true, false])
    expect([b, a].map((peer) => standing.isWrong(peer, digest))).toEqual([true, false])
    expect(standing.isWrong(b, digestOf(Buffer.from('other')))).toBe(false)
    clock.advance(peerAvoidMs)
    expect([a, b].map((peer) => standing.isAvoided(peer))).toEqual([false, true])
    clock.advance(wrongBytesMs)
    expect([standing.isAvoided(b), standing.isWrong(b, digest)]).toEqual([false, false])
  })

  it('of a relay suffers only for the digest', () => {
    const standing = new PeerStanding(new ManualClock())
    standing.noteWrongRelay(a, digest)
    expect([standing.isWrong(a, digest), standing.isAvoided(a)]).toEqual([true, false])
  })

  it('belongs to the address, so that a new id is no new start', () => {
    const standing = new PeerStanding(new ManualClock())
    standing.noteWrongHolder({ addresses: ['10.0.0.1'] }, digest)
    expect(standing.isWrong({ addresses: ['10.0.0.1', 'fd00::1'] }, digest)).toBe(true)
    // It can still be reached where it did not fail.
    expect(standing.isAvoided({ addresses: ['10.0.0.1', 'fd00::1'] })).toBe(false)
    expect(standing.isAvoided({ addresses: [] })).toBe(false)
  })

  it('has nothing to do with a digest that was spoiled, which ends by itself', () => {
    const clock = new ManualClock()
    const standing = new PeerStanding(clock)
    standing.noteSpoiled(digest)
    expect([standing.isSpoiled(digest), standing.isSpoiled(undefined), standing.isAvoided(a)]).toEqual([
      true,
      false,
      false,
    ])
    clock.advance(wrongBytesMs)
    expect(standing.isSpoiled(digest)).toBe(false)
  })
})

describe('deliveries', () => {
  const byHolder = (id: string) => ({ peer: { id, addresses: [] }, isRelay: false })
  const size = 100
  const setUp = (blobBytes = size) => {
    const storedMs = new Map<Digest, number>()
    const clock = new ManualClock()
    const wrong: (readonly string[])[] = []
    const deliveredBy = (id: string, first: number, last: number) => ({ ...byHolder(id), first, last })
    const downloading = new Set<Digest>()
    const deliveries = new Deliveries({
      clock,
      isDownloading: (asked) => downloading.has(asked),
      store: {
        open: () => Promise.reject(new ContentNotFound('gone')),
        wasStoredSince: (asked, sinceMs) => (storedMs.get(asked) ?? -1) >= sinceMs,
      },
      onWrong: (_digest, deliverers) => wrong.push(deliverers.map(({ peer }) => peer.id).sort()),
    })
    const deliver = (...given: [peerId: string, first: number, last: number][]) =>
      deliveries.begin(digest, blobBytes)(given.map(([id, first, last]) => deliveredBy(id, first, last)))
    return { clock, wrong, deliveries, deliver, storedMs, downloading }
  }

  it('blames all that gave bytes when the blob is asked for again from its start', () => {
    const { wrong, deliveries, deliver } = setUp()
    deliver(['a', 0, 49], ['b', 50, 99])
    deliveries.noteRequest(digest, 50)
    expect(wrong).toEqual([])
    deliveries.noteRequest(digest, 0)
    expect(wrong).toEqual([['a', 'b']])
    deliveries.noteRequest(digest, 0)
    expect(wrong).toHaveLength(1)
  })

  it('suspects no peer of a part after which containerd starts again, only the digest', async () => {
    const { wrong, deliveries, deliver, clock } = setUp()
    deliver(['a', 0, 98])
    clock.advance(deliveryCheckMs)
    await new Promise((resolve) => setImmediate(resolve))
    expect(wrong).toEqual([])
    // It resumes where the body ended.
    deliveries.noteRequest(digest, 99)
    expect(wrong).toEqual([])
    deliveries.noteRequest(digest, 0)
    expect(wrong).toEqual([[]])
  })

  it('adds up what several requests brought, in any order', () => {
    const { wrong, deliveries, deliver } = setUp()
    deliver(['b', 60, 99])
    deliver(['a', 0, 30])
    deliver(['c', 20, 59])
    deliveries.noteRequest(digest, 0)
    expect(wrong).toEqual([['a', 'b', 'c']])
  })

  it('does not remember more pieces than anybody needs', () => {
    const { wrong, deliveries, deliver } = setUp()
    const end = deliveries.begin(digest, 10_000)
    end(Array.from({ length: deliveryRangesMax + 1 }, (_, at) => ({ ...byHolder('a'), first: 3 * at, last: 3 * at })))
    deliver(['b', 0, 99])
    deliveries.noteRequest(digest, 0)
    // Not known to be whole.
    expect(wrong).toEqual([[]])
  })

  it('blames when the blob is not in the store some time later', async () => {
    const { wrong, deliver, clock } = setUp()
    deliver(['a', 0, 99])
    clock.advance(deliveryCheckMs)
    await new Promise((resolve) => setImmediate(resolve))
    expect(wrong).toEqual([['a']])
  })

  it('believes a blob that was in the store since, also when it is removed and pulled again at once', async () => {
    const { wrong, deliver, deliveries, clock, storedMs } = setUp()
    deliver(['a', 0, 99])
    storedMs.set(digest, clock.nowMs())
    deliveries.noteRequest(digest, 0)
    expect(wrong).toEqual([])
    // What was stored before does not speak for what is delivered now.
    clock.advance(1_000)
    deliver(['b', 0, 99])
    clock.advance(deliveryCheckMs)
    await new Promise((resolve) => setImmediate(resolve))
    expect(wrong).toEqual([['b']])
  })

  it('waits for a containerd that still writes gigabytes to a slow disk, but not for ever', async () => {
    const large = 8 * 1024 ** 3
    const { wrong, deliver, clock, storedMs, downloading } = setUp(large)
    const settled = async () => {
      clock.advance(deliveryCheckMs)
      await new Promise((resolve) => setImmediate(resolve))
    }
    downloading.add(digest)
    deliver(['a', 0, large - 1])
    await settled()
    await settled()
    expect(wrong).toEqual([])
    storedMs.set(digest, clock.nowMs())
    downloading.delete(digest)
    await settled()
    expect(wrong).toEqual([])

    storedMs.clear()
    downloading.add(digest)
    deliver(['b', 0, large - 1])
    for (let waitedMs = 0; waitedMs < deliveryCommitMs; waitedMs += deliveryCheckMs) {
      expect(wrong).toEqual([])
      await settled()
    }
    expect(wrong).toEqual([['b']])
  })

  it('does not wait so long for a small one, which stays a download when it was not accepted', async () => {
    const { wrong, deliver, clock, downloading } = setUp()
    downloading.add(digest)
    deliver(['a', 0, 99])
    for (let turn = 0; turn < 2; turn++) {
      clock.advance(deliveryCheckMs)
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(wrong).toEqual([['a']])
  })

  it('waits as long as other requests for the blob run', async () => {
    const { wrong, deliver, deliveries, clock } = setUp()
    const end = deliveries.begin(digest, size)
    deliver(['a', 0, 99])
    deliveries.noteRequest(digest, 0)
    clock.advance(deliveryCheckMs)
    await new Promise((resolve) => setImmediate(resolve))
    expect(wrong).toEqual([])
    end([])
    clock.advance(deliveryCheckMs)
    await new Promise((resolve) => setImmediate(resolve))
    expect(wrong).toEqual([['a']])
  })
})

describe('patience', () => {
  it('does not count a time in which the process stood still', () => {
    const clock = new ManualClock()
    let over = false
    afterAwake(clock, 200, () => (over = true))
    clock.standStill(10_000)
    expect(over).toBe(false)
    clock.advance(140)
    expect(over).toBe(false)
    clock.advance(10)
    expect(over).toBe(true)
  })

  it('can be ended', () => {
    const clock = new ManualClock()
    let over = false
    const cancel = afterAwake(clock, 200, () => (over = true))
    clock.advance(120)
    cancel()
    clock.advance(1_000)
    expect(over).toBe(false)
  })
})
