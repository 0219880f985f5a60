/** With DOUBLES of the swarm and of peers, which are silent on command. */
import { describe, expect, it } from 'vitest'
import { onInternalError } from '../../../src/lib/background.ts'
import { createLogger } from '../../../src/logger.ts'
import { createMetrics } from '../../../src/metrics.ts'
import { blobFindBudgetMs, hedgeDelayMaxMs, loadTriesMax } from '../../../src/limits.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import { AnswerTimes } from '../../../src/peers/answer-times.ts'
import {
  PeerBusy,
  PeerFailure,
  type PeerQuestion,
  type PeerResponse,
  blobContentType,
} from '../../../src/peers/protocol.ts'
import { PeerSource, type PeerSourceComponents } from '../../../src/peers/source.ts'
import { PeerStanding } from '../../../src/peers/standing.ts'
import type { LookupDepth, Peer } from '../../../src/router/router.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const digest = digestOf(Buffer.from('blob'))
const request = { kind: 'blob' as const, registry: 'r', repository: 'n', tag: undefined, digest, key: digest }
const peer = (id: string): Peer => ({ id, addresses: ['10.0.0.1'] })
const settled = () => new Promise((resolve) => setImmediate(resolve))
const answerOf = (id: string): PeerResponse => ({
  peer: peer(id),
  size: 1,
  range: undefined,
  contentType: blobContentType,
  digest,
  isArriving: false,
  hereBytes: undefined,
  send: () => Promise.resolve(),
  discard: () => undefined,
})
const parts = (clock: ManualClock) => ({
  clock,
  random: () => 0.5,
  metrics: createMetrics(),
  logger: createLogger('ERROR'),
  standing: new PeerStanding(clock),
  answerTimes: new AnswerTimes(),
})

describe('the peers for a request', () => {
  it('are looked for again while the only known one is silent', async () => {
    const clock = new ManualClock()
    const components: PeerSourceComponents = {
      ...parts(clock),
      router: {
        async *lookup(_key: string, _signal: AbortSignal, depth?: LookupDepth) {
          await settled()
          yield peer('silent')
          if (depth === 'fresh') yield peer('living')
        },
      },
      client: {
        load: () => 0,
        isLeftOut: () => false,
        open: async ({ id }: Peer) => {
          if (id === 'silent') await Promise.withResolvers<void>().promise
          return answerOf(id)
        },
      },
    }
    const source = new PeerSource(
      request,
      { method: 'GET', resolveTimeoutMs: 20, depth: 'usual', idleOnly: false, isPatient: true },
      components,
    )
    const answered = source.next(undefined, blobFindBudgetMs, new AbortController().signal)
    for (let passedMs = 0; passedMs <= hedgeDelayMaxMs; passedMs += 100) {
      for (let turn = 0; turn < 5; turn++) await settled()
      clock.advance(100)
    }
    for (let turn = 0; turn < 5; turn++) await settled()
    const answer = await Promise.race([answered, settled().then(() => undefined)])
    source.close()
    expect(answer).toMatchObject({ peer: { id: 'living' } })
  })

  it('do not include a peer that is left out', async () => {
    const clock = new ManualClock()
    const requested: string[] = []
    const source = new PeerSource(
      request,
      { method: 'GET', resolveTimeoutMs: 20, depth: 'usual', idleOnly: false, isPatient: true },
      {
        ...parts(clock),
        router: {
          async *lookup() {
            await settled()
            yield peer('left-out')
          },
        },
        client: {
          load: () => 0,
          isLeftOut: ({ id }: Peer) => id === 'left-out',
          open: ({ id }: Peer) => {
            requested.push(id)
            return Promise.resolve(answerOf(id))
          },
        },
      },
    )
    const answered = source.next(undefined, blobFindBudgetMs, new AbortController().signal)
    for (let turn = 0; turn < 5; turn++) await settled()
    clock.advance(blobFindBudgetMs)
    expect(await answered).toBeUndefined()
    source.close()
    expect(requested).toEqual([])
    expect(source.missReason).toBe('no-provider')
  })

  it('are given up at once when the lookup fails, and the error is reported', async () => {
    const clock = new ManualClock()
    const bug = new TypeError('x is not iterable')
    const reported: unknown[] = []
    const stop = onInternalError((internal) => reported.push([internal.task, internal.error]))
    const components: PeerSourceComponents = {
      ...parts(clock),
      router: {
        async *lookup() {
          await settled()
          if (bug.message !== '') throw bug
          yield peer('never')
        },
      },
      client: { load: () => 0, isLeftOut: () => false, open: () => Promise.reject(new Error('not asked')) },
    }
    const source = new PeerSource(
      request,
      { method: 'GET', resolveTimeoutMs: 20_000, depth: 'usual', idleOnly: false, isPatient: true },
      components,
    )
    const answered = source.next(undefined, blobFindBudgetMs, new AbortController().signal)
    for (let turn = 0; turn < 10; turn++) await settled()
    const answer = await Promise.race([answered, settled().then(() => 'still waits')])
    source.close()
    stop()
    expect(answer).toBeUndefined()
    expect(reported).toEqual([['lookup', bug]])
  })

  it.each([true, false])('are left when they are slow, and that is known (connected: %s)', async (isConnected) => {
    const clock = new ManualClock()
    const components: PeerSourceComponents = {
      ...parts(clock),
      router: {
        async *lookup() {
          await settled()
          yield peer('slow')
        },
      },
      client: {
        load: () => 0,
        isLeftOut: () => false,
        open: (
          _peer: Peer,
          _question: PeerQuestion,
          _signal: AbortSignal,
          onConnected: (address: string) => void,
        ) => {
          if (isConnected) onConnected('10.0.0.1')
          return Promise.withResolvers<never>().promise
        },
      },
    }
    const looking = {
      method: 'GET',
      resolveTimeoutMs: 20,
      depth: 'usual',
      idleOnly: false,
      isPatient: false,
    } as const
    const source = new PeerSource(request, looking, components)
    const answered = source.next(undefined, blobFindBudgetMs, new AbortController().signal)
    const startMs = clock.nowMs()
    for (let turn = 0; turn <= blobFindBudgetMs / 100; turn++) {
      for (let step = 0; step < 5; step++) await settled()
      clock.advance(100)
    }
    expect(await answered).toBeUndefined()
    source.close()
    expect(clock.nowMs() - startMs).toBeLessThan(blobFindBudgetMs + 200)
    expect(source.hasLeftSomebody).toBe(isConnected)
  })

  it.each([
    { loads: [9, 0], idleOnly: true, taken: ['p1', 'p0'], busyPeer: undefined },
    { loads: [5, 4], idleOnly: true, taken: [undefined, undefined], busyPeer: { feeds: 4 } },
    { loads: [5], idleOnly: true, taken: [undefined, undefined], busyPeer: { feeds: 5 } },
    { loads: Array(20).fill(5) as number[], idleOnly: true, taken: [undefined, undefined], busyPeer: { feeds: 5 } },
    { loads: [5, 4], idleOnly: false, taken: ['p1', 'p0'], busyPeer: undefined },
  ])(
    'with loads of $loads, idle ones only: $idleOnly: first $taken',
    async ({ loads, idleOnly, taken, busyPeer }) => {
      let [lookups, asked] = [0, 0]
      const clock = new ManualClock()
      const components: PeerSourceComponents = {
        ...parts(clock),
        router: {
          async *lookup() {
            lookups += 1
            await settled()
            for (const index of loads.keys()) yield peer(`p${index}`)
          },
        },
        client: {
          load: () => 0,
          isLeftOut: () => false,
          open: async ({ id }: Peer, { loadMax }: PeerQuestion) => {
            asked += 1
            await settled()
            const load = loads[Number(id.slice(1))] ?? 0
            if (load > (loadMax ?? Infinity)) throw new PeerBusy(load)
            return answerOf(id)
          },
        },
      }
      const looking = { method: 'GET', resolveTimeoutMs: 20, depth: 'usual', idleOnly, isPatient: true } as const
      const source = new PeerSource(request, looking, components)
      const next = async () => {
        const answered = source.next(undefined, blobFindBudgetMs, new AbortController().signal)
        for (let turn = 0; turn < 200; turn++) {
          await settled()
          clock.advance(10)
        }
        return answered
      }
      const first = await next()
      expect(first?.peer.id).toBe(taken[0])
      // Left at once: no search for more, and not all of them are asked.
      if (idleOnly && first === undefined) {
        expect({ lookups, asked }).toEqual({ lookups: 1, asked: Math.min(loads.length, loadTriesMax) })
      }
      // Whoever was busy is better than nobody when that one breaks off.
      if (first !== undefined) source.noteFailure(first.peer, new PeerFailure('not-found', 'gone'))
      expect((await next())?.peer.id).toBe(taken[1])
      source.close()
      if (busyPeer === undefined) expect(source.busyPeer).toBeUndefined()
      else expect(source.busyPeer).toMatchObject(busyPeer)
    },
  )

  const at = (id: string, ...addresses: string[]): Peer => ({ id, addresses })
  const refused = () => Promise.reject(new PeerFailure('connect', 'refused'))
  const silent = () => Promise.withResolvers<never>().promise

  /** Asks for one answer. `asked`: who was asked where, in order. */
  async function askOnce(
    lookup: (depth: LookupDepth | undefined) => Peer[],
    open: (peer: Peer, onConnected: (address: string) => void) => Promise<PeerResponse>,
  ) {
    const clock = new ManualClock()
    const asked: string[] = []
    const depths: (LookupDepth | undefined)[] = []
    const components: PeerSourceComponents = {
      ...parts(clock),
      router: {
        async *lookup(_key: string, _signal: AbortSignal, depth?: LookupDepth) {
          depths.push(depth)
          await settled()
          yield* lookup(depth)
        },
      },
      client: {
        load: () => 0,
        isLeftOut: () => false,
        open: async (
          who: Peer,
          _question: PeerQuestion,
          _signal: AbortSignal,
          onConnected: (address: string) => void,
        ) => {
          asked.push(`${who.id} ${who.addresses.join()}`)
          await settled()
          return open(who, onConnected)
        },
      },
    }
    const looking = {
      method: 'GET',
      resolveTimeoutMs: 20,
      depth: 'usual',
      idleOnly: false,
      isPatient: false,
    } as const
    const source = new PeerSource(request, looking, components)
    const answered = source.next(undefined, blobFindBudgetMs, new AbortController().signal)
    for (let passedMs = 0; passedMs <= 2 * blobFindBudgetMs; passedMs += 10) {
      for (let turn = 0; turn < 10; turn++) await settled()
      clock.advance(10)
    }
    const answer = await answered
    source.close()
    return { answer, asked, depths }
  }

  it('are asked at another address at once when the one that is known refuses', async () => {
    const { answer, asked } = await askOnce(
      (depth) => (depth === 'fresh' ? [at('moved', '10.0.0.1'), at('moved', '10.0.0.2')] : [at('moved', '10.0.0.1')]),
      ({ id, addresses }) => (addresses.includes('10.0.0.2') ? Promise.resolve(answerOf(id)) : refused()),
    )
    expect(answer).toMatchObject({ peer: { id: 'moved' } })
    expect(asked).toEqual(['moved 10.0.0.1', 'moved 10.0.0.2'])
  })

  it('are requested at another address while one never responds', async () => {
    const { answer, asked } = await askOnce(
      (depth) => [at('moved', depth === 'fresh' ? '10.0.0.2' : '10.0.0.1')],
      ({ id, addresses }) => (addresses.includes('10.0.0.2') ? Promise.resolve(answerOf(id)) : silent()),
    )
    expect(answer).toMatchObject({ peer: { id: 'moved' } })
    expect(asked).toEqual(['moved 10.0.0.1', 'moved 10.0.0.2'])
  })

  it('are asked at their other addresses when another program answers at the first', async () => {
    const { answer, asked } = await askOnce(
      () => [at('moved', '10.0.0.1', '10.0.0.2')],
      ({ id, addresses: [first = ''] }, onConnected) => {
        onConnected(first)
        return first === '10.0.0.2'
          ? Promise.resolve(answerOf(id))
          : Promise.reject(new PeerFailure('not-found', '404'))
      },
    )
    expect(answer).toMatchObject({ peer: { id: 'moved' } })
    expect(asked).toEqual(['moved 10.0.0.1,10.0.0.2', 'moved 10.0.0.2'])
  })

  it('are looked up again when all that are known fail, whatever the reason, and once only', async () => {
    for (const reason of ['connect', 'not-found', 'status', 'headers'] as const) {
      const known = ['a', 'b', 'c', 'd', 'e'].map((id) => at(id, '10.0.0.1'))
      const { answer, asked, depths } = await askOnce(
        (depth) => (depth === 'fresh' ? [...known, at('new', '10.0.0.9')] : known),
        ({ id }) => (id === 'new' ? Promise.resolve(answerOf(id)) : Promise.reject(new PeerFailure(reason, 'no'))),
      )
      expect(answer, reason).toMatchObject({ peer: { id: 'new' } })
      expect(new Set(asked).size, reason).toBe(asked.length)
      expect(depths, reason).toEqual(['usual', 'fresh'])
    }
  })

  it('are looked up again for the next request when too many are silent to try them all', async () => {
    const known = Array.from({ length: 40 }, (_, index) => at(`p${index}`, '10.0.0.1'))
    const { answer, depths } = await askOnce(() => known, silent)
    expect(answer).toBeUndefined()
    expect(depths).toEqual(['usual', 'fresh'])
  })

  it('are not asked for ever at new addresses', async () => {
    let count = 0
    const { answer, asked } = await askOnce(
      () => Array.from({ length: 100 }, () => at('liar', `10.0.1.${(count += 1)}`)),
      refused,
    )
    expect(answer).toBeUndefined()
    expect(asked.length).toBeLessThanOrEqual(16)
  })
})
