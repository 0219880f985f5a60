/** What one request does with the answers of a coordinator. In a whole world: world.test.ts. */
import { describe, expect, it } from 'vitest'
import { FlightSource } from '../../../src/flights/flight-source.ts'
import type { Answer, Join } from '../../../src/flights/protocol.ts'
import {
  flightAliveMs,
  flightAskAgainMs,
  flightCrowdedAskMs,
  flightDropSourceMs,
  flightNotYetMs,
  flightPauseMs,
  flightPauseTurns,
  flightStallMs,
} from '../../../src/limits.ts'
import { createLogger } from '../../../src/logger.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import { PeerFailure, type PeerResponse } from '../../../src/peers/protocol.ts'
import type { WriteChunk } from '../../../src/store/store.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const MiB = 2 ** 20
const digest = digestOf(Buffer.from('blob'))
const request = { kind: 'blob' as const, registry: 'r', repository: 'n', tag: undefined, digest, key: digest }
const sourceOf = (id: string): Answer => ({ kind: 'source', source: { id, addresses: ['10.0.0.1'] } })

/** Of a peer that says nothing. */
function aborted(signal: AbortSignal): Promise<string> {
  const { promise, reject } = Promise.withResolvers<string>()
  signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
  return promise
}

class Script {
  readonly clock = new ManualClock()
  /** What was asked: how long to wait, and whom to avoid. */
  readonly asked: string[] = []
  readonly opened: string[] = []
  readonly moves: string[] = []
  readonly failures: string[] = []
  readonly good = new Set<string>()
  readonly wrong = new Set<string>()
  /** Sends without a pause, 64 KiB each 10 ms. */
  readonly full = new Set<string>()
  readonly source: FlightSource
  /** What is answered to "are you there?". */
  alive: (signal: AbortSignal) => Promise<string> = () => Promise.resolve('')

  constructor(answers: (number: number) => Answer | undefined, holder?: Join['holder']) {
    this.source = new FlightSource(request, {
      clock: this.clock,
      logger: createLogger('ERROR'),
      onBusy: () => {},
      onMoved: (kind) => void this.moves.push(kind),
      onFailed: (reason) => void this.failures.push(reason),
      holder,
      isWrong: ({ id }) => this.wrong.has(id),
      join: ({ waitMs, avoid, gone, isSlow, holder: told }) => {
        this.asked.push(
          `${waitMs} ${avoid ?? '-'}${gone === undefined ? '' : ` gone: ${gone}`}${isSlow ? ' slow' : ''}${told === undefined ? '' : ` holder: ${told.node.id}`}`,
        )
        return Promise.resolve(answers(this.asked.length - 1))
      },
      client: {
        post: (_peer, _path, signal) => this.alive(signal),
        open: (peer) => {
          this.opened.push(peer.id)
          if (!this.good.has(peer.id)) return Promise.reject(new PeerFailure('not-found', '404'))
          const discarded = Promise.withResolvers<void>()
          return Promise.resolve({
            peer,
            size: 64 * MiB,
            range: undefined,
            send: (write: WriteChunk) => {
              return this.full.has(peer.id) ? this.#sendOn(write) : discarded.promise
            },
            discard: () => discarded.reject(new Error('discarded')),
          } as unknown as PeerResponse)
        },
      },
    })
  }

  async #sendOn(write: WriteChunk): Promise<void> {
    for (let sentBytes = 0; sentBytes < 64 * MiB; sentBytes += 64 * 1024) {
      await write(Buffer.alloc(64 * 1024))
      await this.clock.sleep(10)
    }
  }

  /** The source of the bytes, after a time that passes in small steps. */
  async next(budgetMs: number, first?: number): Promise<string | undefined> {
    const answers: Awaited<ReturnType<FlightSource['next']>>[] = []
    void this.source
      .next(first === undefined ? undefined : { first }, budgetMs, new AbortController().signal)
      .then((answer) => void answers.push(answer))
    for (let turn = 0; turn < 1_000; turn++) {
      await new Promise((resolve) => setImmediate(resolve))
      if (answers.length > 0) break
      this.clock.advance(10)
    }
    return answers[0]?.peer.id
  }

  /** Opens a body and takes it until it fails, which is told to the source of the bytes. */
  async untilFailed(): Promise<{ tookMs: number; failures: unknown[] }> {
    const response = await this.source.next(undefined, 2_000, new AbortController().signal)
    if (response === undefined || 'refusedSize' in response) return expect.unreachable()
    const startMs = this.clock.nowMs()
    const failures: unknown[] = []
    response.send(() => Promise.resolve()).catch((error: unknown) => failures.push(error))
    for (let turn = 0; turn < 2_000 && failures.length === 0; turn++) {
      await new Promise((resolve) => setImmediate(resolve))
      if (failures.length === 0) this.clock.advance(10)
    }
    this.source.noteFailure(response.peer, failures[0])
    return { tookMs: this.clock.nowMs() - startMs, failures }
  }
}

describe('a follower', () => {
  it('tells of a busy holder until it is given a source', async () => {
    const holder = { node: { id: 'h', addresses: ['10.0.0.9'] }, feeds: 4 }
    const script = new Script((number) => (number === 0 ? { kind: 'wait' } : sourceOf('a')), holder)
    expect(await script.next(5_000)).toBeUndefined()
    expect(script.asked.slice(0, 3)).toEqual(['2000 - holder: h', '2000 - holder: h', '2000 a'])
  })

  it('takes the next source at once when one does not deliver, and says which', async () => {
    const script = new Script((number) => sourceOf(['a', 'b', 'c'][number] ?? 'c'))
    script.good.add('c')
    const startMs = script.clock.nowMs()
    expect(await script.next(2_000)).toBe('c')
    expect(script.asked).toEqual(['2000 -', '2000 a', '2000 b'])
    expect(script.failures).toEqual(['not-found', 'not-found'])
    expect(script.clock.nowMs()).toBe(startMs)
  })

  it('in mid-blob asks again who has not got as far as it said, and blames it after a while', async () => {
    const script = new Script(() => sourceOf('a'))
    expect(await script.next(flightNotYetMs / 2, MiB)).toBeUndefined()
    expect(script.failures).toEqual([])
    script.good.add('a')
    expect(await script.next(100, MiB)).toBe('a')
    expect(script.asked.every((question) => question === '2000 -')).toBe(true)

    const behind = new Script((number) => sourceOf(number < 20 ? 'a' : 'b'))
    behind.good.add('b')
    expect(await behind.next(3 * flightNotYetMs, MiB)).toBe('b')
    expect(behind.asked).toContain('2000 a')
    expect(behind.failures).toContain('not-found')
  })

  it.each([
    ['"wait" at once', { kind: 'wait' } as const],
    ['the same source that does not deliver', sourceOf('a')],
  ])('asks no storm of questions when it is answered %s', async (_what, answer) => {
    const script = new Script(() => answer)
    expect(await script.next(2_000)).toBeUndefined()
    expect(script.source.outcome).toBe('timeout')
    expect(script.asked.length).toBeGreaterThan(5)
    expect(script.asked.length).toBeLessThanOrEqual(2_000 / flightAskAgainMs + 3)
  })

  it('does not ask who gave a wrong blob, and says that nothing is to be had there', async () => {
    const script = new Script((number) => sourceOf(['a', 'b'][number] ?? 'b'))
    for (const id of ['a', 'b']) script.good.add(id)
    script.wrong.add('a')
    expect(await script.next(2_000)).toBe('b')
    expect(script.opened).toEqual(['b'])
    expect(script.asked).toEqual(['2000 -', '2000 - gone: a'])
  })

  it.each([
    ['that is frozen', aborted, flightStallMs + flightAliveMs, ' gone: a'],
    ['that takes no connection', () => Promise.reject(new PeerFailure('connect', 'no')), flightStallMs, ' gone: a'],
    ['that was started anew', () => Promise.resolve('{"kind":"gone"}'), flightStallMs, ' gone: a'],
    ['that knows no such question', () => Promise.reject(new PeerFailure('status', '400')), flightDropSourceMs, ''],
    ['that is there', () => Promise.resolve(''), flightDropSourceMs, ''],
  ])('leaves a silent source %s', async (_what, alive, afterMs, told) => {
    const script = new Script((number) => (number === 0 ? sourceOf('a') : { kind: 'wait' }))
    script.good.add('a')
    script.alive = alive
    const { tookMs } = await script.untilFailed()
    expect(tookMs).toBeGreaterThanOrEqual(afterMs)
    expect(tookMs).toBeLessThan(afterMs + flightStallMs)
    script.asked.length = 0
    await script.next(100)
    expect(script.asked[0]).toBe(`2000 a${told}`)
  })

  async function untilLeft(script: Script): Promise<void> {
    const { tookMs, failures } = await script.untilFailed()
    expect(tookMs).toBeGreaterThanOrEqual(flightCrowdedAskMs)
    expect(failures).toMatchObject([{ reason: 'moved' }])
  }

  /** `answers`: to the questions whether to leave the link of 'a' to others. */
  function fullSource(...answers: Answer[]): Script {
    const script = new Script((number) => [sourceOf('a'), ...answers][number] ?? { kind: 'wait' })
    script.good.add('a').add('b')
    script.full.add('a')
    return script
  }

  it('leaves a source whose link is full when another one is named, and does not blame it', async () => {
    const script = fullSource({ kind: 'wait' }, sourceOf('b'))
    await untilLeft(script)
    expect(await script.next(100)).toBe('b')
    expect(script.asked).toEqual(['2000 -', '0 - slow', '0 - slow'])
    expect(script.moves).toEqual(['moved'])
    expect(script.failures).toEqual([])
  })

  it('goes back to the source that it left when the other one does not deliver, and says so', async () => {
    const script = fullSource(sourceOf('b'), { kind: 'wait' }, { kind: 'wait' })
    script.good.delete('b')
    await untilLeft(script)
    expect(await script.next(100)).toBe('a')
    expect(script.opened).toEqual(['a', 'b', 'a'])
    await script.next(100)
    expect(script.asked[2]).toBe('2000 b')
  })

  it('pauses, and goes on with the same source or with one that got ahead', async () => {
    const script = fullSource(...Array.from({ length: 9 }, () => ({ kind: 'pause' as const })))
    await untilLeft(script)
    const startMs = script.clock.nowMs()
    expect(await script.next(2_000)).toBe('a')
    expect(script.clock.nowMs() - startMs).toBeGreaterThanOrEqual(flightPauseMs)
    expect(script.clock.nowMs() - startMs).toBeLessThan(flightPauseMs + 100)
    expect(script.asked).toEqual(['2000 -', ...Array.from({ length: 1 + flightPauseTurns }, () => '0 - slow')])
    expect(script.moves).toEqual(['paused'])
    // Another one has left it meanwhile.
    const alone = fullSource({ kind: 'pause' }, { kind: 'wait' })
    await untilLeft(alone)
    const aloneMs = alone.clock.nowMs()
    expect(await alone.next(2_000)).toBe('a')
    expect(alone.clock.nowMs() - aloneMs).toBeLessThan(flightPauseMs / 2)

    const other = fullSource({ kind: 'pause' }, { kind: 'pause' }, sourceOf('b'))
    await untilLeft(other)
    expect(await other.next(2_000)).toBe('b')
  })

  it('ends with a lease, or alone', async () => {
    const leads = new Script(() => ({ kind: 'lease' }))
    expect(await leads.next(2_000)).toBeUndefined()
    expect(leads.source.outcome).toBe('lease')
    const alone = new Script(() => undefined)
    expect(await alone.next(2_000)).toBeUndefined()
    expect(alone.source.outcome).toBe('alone')
  })
})
