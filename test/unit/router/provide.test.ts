/** With DOUBLES of the swarm: a real one does not say on command which of its nodes is silent. */
import { describe, expect, it } from 'vitest'
import { provideBlobsFlightsMs, provideDelayMs } from '../../../src/limits.ts'
import { createMetrics } from '../../../src/metrics.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import { Provider, type ProviderComponents } from '../../../src/router/provide.ts'
import type { PeerId } from '@libp2p/interface'
import { ManualClock } from '../../support/manual-clock.ts'

class Script {
  readonly clock = new ManualClock()
  /** Whom how many announcements reached. */
  readonly told: [id: string, count: number][] = []
  readonly silent = new Set<string>()
  readonly peers = ['a', 'b', 'c'].map((id) => ({ id, peerId: id as unknown as PeerId, kadId: new Uint8Array() }))
  readonly provider: Provider

  constructor() {
    const components = {
      clock: this.clock,
      random: () => 0.5,
      metrics: createMetrics(),
      store: { removeExpired: () => undefined, setOwn: () => undefined },
      table: { size: 3, closest: () => this.peers, onAdd: () => undefined },
      rpc: {
        tell: async (peer: unknown, messages: readonly Uint8Array[]) => {
          if (this.silent.has(String(peer))) await Promise.withResolvers<void>().promise
          this.told.push([String(peer), messages.length])
        },
      },
    } as unknown as ProviderComponents
    this.provider = new Provider(components, { id: new Uint8Array(), multiaddrs: [] })
  }

  async passes(ms: number): Promise<void> {
    this.clock.advance(ms)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

const digests = ['a', 'b', 'c'].map((text) => digestOf(Buffer.from(text)))

describe('announcements', () => {
  it('of blobs are gathered with flights, and go out with the tag of their image', async () => {
    const script = new Script()
    script.provider.gatherBlobs()
    for (const digest of digests) {
      script.provider.add([digest])
      await script.passes(100)
    }
    expect(script.told).toEqual([])
    script.provider.add(['registry.example/image:tag'])
    await script.passes(provideDelayMs)
    expect(script.told).toEqual(['a', 'b', 'c'].map((id) => [id, 4]))
  })

  it('of blobs alone do not wait longer', async () => {
    const script = new Script()
    script.provider.gatherBlobs()
    script.provider.add(digests)
    await script.passes(provideBlobsFlightsMs)
    expect(script.told).toEqual(['a', 'b', 'c'].map((id) => [id, 3]))
  })

  it('reach the others while one peer is silent', async () => {
    const script = new Script()
    script.silent.add('a')
    script.provider.add(['sha256:1'])
    await script.passes(1_000)
    script.provider.add(['sha256:2', 'sha256:3'])
    await script.passes(1_000)
    expect(script.told).toEqual([
      ['b', 1],
      ['c', 1],
      ['b', 2],
      ['c', 2],
    ])
  })
})
