/** With DOUBLES of the swarm: a real one does not say on command which of its nodes know what. */
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromMultihash, peerIdFromPrivateKey } from '@libp2p/peer-id'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import * as digest from 'multiformats/hashes/digest'
import { beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { ipsOf } from '../../../src/router/address-book.ts'
import { dhtKey, kadId } from '../../../src/router/content-cid.ts'
import { closest } from '../../../src/router/distance.ts'
import { type FindComponents, findProviders } from '../../../src/router/find.ts'
import type { LookupDepth, Peer } from '../../../src/router/router.ts'
import type { TablePeer } from '../../../src/router/routing-table.ts'

const key = dhtKey('sha256:abc')
const size = 20

/** The swarm, closest to the key first. */
let peers: TablePeer[]

beforeAll(async () => {
  const made = Array.from({ length: size }, async () => {
    const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
    return { peerId, id: peerId.toString(), kadId: kadId(peerId.toMultihash().bytes) }
  })
  peers = closest(key.kadId, await Promise.all(made), size)
})

interface SearchInit {
  mixed?: boolean
  /** Of whom this node has records itself. */
  own?: readonly string[]
  depth?: LookupDepth
  /** This node is one of the closest, and has been for long enough. */
  holdsRecords?: boolean
  /** Without it, all addresses are proven. */
  proofs?: Partial<FindComponents['proofs']>
}

/**
 * Searches in a swarm where these, by closeness, know that the last one has the key. Returns who was
 * asked.
 */
async function search(
  knowing: readonly number[],
  { mixed = true, own = [], depth = 'usual', holdsRecords = true, proofs = {} }: SearchInit = {},
): Promise<{ found: Peer[]; asked: string[] }> {
  const holder = peers.at(-1) ?? expect.unreachable()
  const record = {
    id: holder.peerId.toMultihash().bytes,
    multiaddrs: [multiaddr('/ip4/10.0.0.1/tcp/5001').bytes],
    connection: 0,
  }
  const asked: string[] = []
  const components = {
    libp2p: { peerId: peerIdFromPrivateKey(await generateKeyPair('Ed25519')) },
    table: { closestToAsk: () => peers, noteAnswer: () => undefined, hasRecordsOf: () => holdsRecords },
    store: { providers: () => own },
    addresses: {
      get: () => ({ multiaddrs: [multiaddr('/ip4/10.0.0.2/tcp/5001')] }),
      nameOf: (id: Uint8Array) => peerIdFromMultihash(digest.decode(id)).toString(),
    },
    proofs: {
      proven: (_id: string, claimed: readonly Multiaddr[]) => ipsOf(claimed),
      prove: () => expect.unreachable(),
      ...proofs,
    },
    kinds: { mixed },
    clock: systemClock,
    rpc: {
      async ask(peerId: TablePeer['peerId']) {
        await Promise.resolve()
        const id = peerId.toString()
        asked.push(id)
        const knows = knowing.includes(peers.findIndex((peer) => peer.id === id))
        return { closer: [], providers: knows ? [record] : [] }
      },
    },
  } as unknown as FindComponents
  const found: Peer[] = []
  await findProviders(
    key,
    { providersWanted: 3, depth },
    components,
    (peer) => found.push(peer),
    new AbortController().signal,
  )
  return { found, asked }
}

describe('a search', () => {
  it('asks the three closest when one of them knows somebody', async () => {
    const { found, asked } = await search([1], { holdsRecords: false })
    expect(found).toEqual([{ id: peers.at(-1)?.id, addresses: ['10.0.0.1'] }])
    expect(asked).toEqual(peers.slice(0, 3).map(({ id }) => id))
  })

  it('asks two where it holds the records itself', async () => {
    const { asked } = await search([1])
    expect(asked).toEqual(peers.slice(0, 2).map(({ id }) => id))
  })

  it.each([3, 11, 19])(
    'goes on beyond the three closest while nobody is found: to the one at place %i',
    async (at) => {
      const { found, asked } = await search([at])
      expect(found).toHaveLength(1)
      expect(asked).toContain(peers[at]?.id)
    },
  )

  it('asks each of the twenty closest once before it believes that nobody has it', async () => {
    const { found, asked } = await search([])
    expect(found).toEqual([])
    expect(asked.toSorted()).toEqual(peers.map(({ id }) => id).toSorted())
  })

  it.each([
    [3, false],
    [2, true],
  ])(
    'believes the %i closest where all nodes hand records over, if it holds them itself: %s',
    async (count, holdsRecords) => {
      const { found, asked } = await search([11], { mixed: false, holdsRecords })
      expect(found).toEqual([])
      expect(asked).toEqual(peers.slice(0, count).map(({ id }) => id))
    },
  )

  it('asks nobody when it is to be quick, unless its records may not be all', async () => {
    const depth = 'quick'
    const nobody = { found: [], asked: [] }
    expect(await search([0], { depth, mixed: false })).toEqual(nobody)
    expect(await search([0], { depth, mixed: false, holdsRecords: false })).toMatchObject({ found: [{}] })
    expect(await search([0], { depth, mixed: true })).toMatchObject({ found: [{}] })
  })

  it('believes its own records, unless those whom they name did not help: then others are asked', async () => {
    const own = ['gone', 'gone too', 'gone as well']
    expect(await search([1], { own })).toMatchObject({ found: own.map((id) => ({ id })), asked: [] })
    const { found, asked } = await search([1], { own, depth: 'fresh' })
    expect(found.map(({ id }) => id)).toEqual([...own, peers.at(-1)?.id])
    expect(asked).toEqual(peers.slice(0, 3).map(({ id }) => id))
  })

  it('reports a provider again when others know it at another address than its own records', async () => {
    const moved = peers.at(-1)?.id ?? ''
    const { found } = await search([0, 1, 2], { own: [moved], depth: 'fresh' })
    expect(found).toEqual([
      { id: moved, addresses: ['10.0.0.2'] },
      { id: moved, addresses: ['10.0.0.1'] },
    ])
  })

  it('reports a provider at the address that it proved of those that it claims, without a dial', async () => {
    const { found } = await search([1], { proofs: { proven: () => ['10.0.0.7'] } })
    expect(found).toEqual([{ id: peers.at(-1)?.id, addresses: ['10.0.0.7'] }])
  })

  it('reports a provider whose address no connection proved only after a dial has', async () => {
    const proved = Promise.withResolvers<string[]>()
    const started = Promise.withResolvers<void>()
    const prove = () => {
      started.resolve()
      return proved.promise
    }
    const searching = search([1], { proofs: { proven: () => [], prove } })
    await started.promise
    proved.resolve(['10.0.0.1'])
    expect((await searching).found).toEqual([{ id: peers.at(-1)?.id, addresses: ['10.0.0.1'] }])
  })

  it('does not report a provider that did not prove the address that it claims', async () => {
    const prove = () => Promise.resolve([])
    const { found, asked } = await search([], { own: [peers[5]?.id ?? ''], proofs: { proven: () => [], prove } })
    expect(found).toEqual([])
    // Others are asked as if there were no record.
    expect(asked.length).toBeGreaterThan(0)
  })
})
