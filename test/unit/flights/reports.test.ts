/** What a node tells of its own download. */
import { describe, expect, it } from 'vitest'
import { Flights } from '../../../src/flights/flights.ts'
import { type Message, parseMessage } from '../../../src/flights/protocol.ts'
import { createLogger } from '../../../src/logger.ts'
import { createMetrics } from '../../../src/metrics.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import type { Transfer, TransferEvent } from '../../../src/store/transfers.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const MiB = 2 ** 20
const digest = digestOf(Buffer.from('blob'))
const coordinator = { id: 'coordinator', addresses: ['10.0.0.1'] }
const self = { id: 'self', addresses: ['10.0.0.2'] }

class Script {
  readonly clock = new ManualClock()
  readonly messages: Message[] = []
  transfer: Transfer | undefined
  #listener: (event: TransferEvent) => void = () => {}
  readonly flights = new Flights({
    router: { flightNodes: () => Promise.resolve([coordinator]), isPeerAt: () => Promise.resolve(true) },
    client: {
      post: (_peer, path) => {
        const message = parseMessage(path)
        if (message !== undefined) this.messages.push(message)
        return Promise.resolve(JSON.stringify({ kind: 'lease' }))
      },
      open: () => Promise.reject(new Error('nobody is asked for bytes here')),
    },
    transfers: {
      find: () => this.transfer,
      isRunning: () => true,
      watch: (listener) => {
        this.#listener = listener
        return () => void (this.#listener = () => {})
      },
    },
    isStored: () => false,
    feeds: () => 0,
    self,
    clock: this.clock,
    metrics: createMetrics(),
    logger: createLogger('ERROR'),
  })

  async leads(): Promise<void> {
    const request = { kind: 'blob' as const, registry: 'r', repository: 'n', tag: undefined, digest, key: digest }
    const source = this.flights.follow(request, digest, false, () => false, undefined)
    await source.next(undefined, 1_000, new AbortController().signal)
    if (source.outcome !== 'lease') throw new Error(`it was not given the lease: ${source.outcome}`)
    this.messages.length = 0
  }

  async happens(kind: TransferEvent['kind'], haveBytes: number, size: number, of = digest): Promise<void> {
    this.#listener({ digest: of, kind, haveBytes, size })
    await new Promise((resolve) => setImmediate(resolve))
  }

  told(): string[] {
    return this.messages.flatMap((message) =>
      message.kind === 'report' ? [`${message.report.kind} ${message.report.haveBytes / MiB}`] : [],
    )
  }
}

describe('reports', () => {
  it('tell the first bytes, each eighth, and the end, and nothing after it', async () => {
    const script = new Script()
    await script.leads()
    await script.happens('started', 0, 64 * MiB)
    for (let mib = 1; mib <= 64; mib++) await script.happens('grew', mib * MiB, 64 * MiB)
    await script.happens('complete', 64 * MiB, 64 * MiB)
    await script.happens('failed', 0, 64 * MiB)
    expect(script.told()).toEqual(
      [1, 9, 17, 25, 33, 41, 49, 57].map((mib) => `progress ${mib}`).concat('complete 64'),
    )
  })

  it('tell how many large blobs share the link, whoever fetches them', async () => {
    const script = new Script()
    await script.leads()
    const [other, small] = [digestOf(Buffer.from('other')), digestOf(Buffer.from('small'))]
    // Those that wait for their turn have begun too, and share nothing.
    for (const name of ['a', 'b', 'c']) await script.happens('started', 0, 64 * MiB, digestOf(Buffer.from(name)))
    await script.happens('grew', MiB, 64 * MiB, other)
    await script.happens('grew', MiB, 2 * MiB, small)
    await script.happens('grew', MiB, 64 * MiB)
    await script.happens('complete', 64 * MiB, 64 * MiB, other)
    await script.happens('grew', 9 * MiB, 64 * MiB)
    await script.happens('complete', 64 * MiB, 64 * MiB)
    expect(script.messages.map((message) => message.kind === 'report' && message.report.load.blobCount)).toEqual([
      2, 1, 1,
    ])
  })

  it('come often enough when a large blob is slow', async () => {
    const script = new Script()
    await script.leads()
    for (let mib = 1; mib <= 60; mib++) {
      script.clock.advance(1_000)
      await script.happens('grew', mib * MiB, 8_192 * MiB)
    }
    expect(script.told()).toEqual([1, 6, 11, 16, 21, 26, 31, 36, 41, 46, 51, 56].map((mib) => `progress ${mib}`))
  })

  it('tell a failure at once, and say nothing of downloads that are no part of a flight', async () => {
    const script = new Script()
    await script.happens('grew', MiB, 8 * MiB)
    await script.happens('failed', 0, 8 * MiB)
    expect(script.told()).toEqual([])
    await script.leads()
    await script.happens('failed', 0, 8 * MiB)
    expect(script.told()).toEqual(['failed 0'])
  })

  it('tell of leaving, once', async () => {
    const script = new Script()
    const request = { kind: 'blob' as const, registry: 'r', repository: 'n', tag: undefined, digest, key: digest }
    script.flights.follow(request, digest, false, () => false, undefined)
    script.flights.leave(digest)
    script.flights.leave(digest)
    await script.happens('failed', 0, MiB)
    expect(script.told()).toEqual(['left 0'])
  })

  it('do not tell of leaving by who has the lease: its download tells more', async () => {
    const script = new Script()
    await script.leads()
    script.flights.leave(digest)
    await script.happens('started', 0, MiB)
    expect(script.told()).toEqual([])
  })
})

describe('who asks whether we are there', () => {
  const ask = (script: Script) =>
    script.flights.answer(`/spegel-ts/flights/v1/${digest}/alive`, '10.0.0.1', new AbortController().signal)

  it('is told yes by who takes part, and no by who does not', async () => {
    const script = new Script()
    expect(await ask(script)).toEqual({ kind: 'gone' })
    await script.leads()
    expect(await ask(script)).toEqual({ kind: 'wait' })
    await script.happens('failed', 0, 48 * MiB)
    expect(await ask(script)).toEqual({ kind: 'gone' })
  })

  it('finds the download of a mirror that was started anew, which tells of it from then on', async () => {
    const script = new Script()
    script.transfer = { state: 'running', haveBytes: 3 * MiB, size: 48 * MiB } as Transfer
    expect(await ask(script)).toEqual({ kind: 'wait' })
    await script.happens('complete', 48 * MiB, 48 * MiB)
    expect(script.told()).toEqual(['progress 3', 'complete 48'])
  })
})

describe('what is passed on to our containerd', () => {
  it('is there for others when containerd was handed it, and not before', async () => {
    const script = new Script()
    const steps: string[] = []
    const noteAhead = (position: number, chunk: Uint8Array) =>
      void steps.push(`${position} ${chunk.byteLength} ahead`)
    const written = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const write = (chunk: Uint8Array) =>
      written[steps.push(`${chunk.byteLength} written`) > 1 ? 1 : 0]?.promise ?? Promise.resolve()
    const passOn = script.flights.passOn(digest, 100, write)
    // Asked for before its download is seen.
    const first = passOn(new Uint8Array(7))
    script.transfer = {
      digest,
      size: 1_000,
      haveBytes: 100,
      readableBytes: 100,
      startedMs: 0,
      state: 'running',
      hasPast: () => false,
      open: () => Promise.reject(new Error('nobody reads here')),
      noteAhead,
      loseAhead: () => {},
    }
    expect(steps).toEqual(['7 written'])
    written[0]?.resolve()
    await first
    expect(steps).toEqual(['7 written', '100 7 ahead'])
    const second = passOn(new Uint8Array(5))
    written[1]?.reject(new Error('containerd is gone'))
    await expect(second).rejects.toThrow('gone')
    expect(steps).toEqual(['7 written', '100 7 ahead', '5 written'])
  })
})
