/** What a peer or a remote address can do to the records of others. */
import { randomBytes } from 'node:crypto'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PeerId } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { Key } from 'interface-datastore'
import { describe, expect, it } from 'vitest'
import { peerRecordBytesMax, peerRecordShares } from '../../../src/limits.ts'
import { dhtKey } from '../../../src/router/content-cid.ts'
import { ProviderStore } from '../../../src/router/provider-store.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const { multihash } = dhtKey('some content')
const randomKey = () => Buffer.concat([Buffer.from([0x12, 0x20]), randomBytes(32)])

describe('provider records', () => {
  it('keep the only provider of an address when another address announces the key under 1,000 identities', () => {
    const store = new ProviderStore(new ManualClock())
    store.addProvider(multihash, 'honest', '10.0.0.1')
    for (let identity = 0; identity < 1_000; identity++)
      store.addProvider(multihash, `sybil ${identity}`, '10.0.0.66')
    expect(store.providers(multihash)).toContain('honest')
  })

  it('name the providers of each address in turns, the latest of each address first', () => {
    const store = new ProviderStore(new ManualClock())
    store.addProvider(multihash, 'honest', '10.0.0.1')
    for (let identity = 0; identity < 10; identity++) store.addProvider(multihash, `sybil ${identity}`, '10.0.0.66')
    expect(store.providers(multihash).slice(0, 3)).toEqual(['sybil 9', 'honest', 'sybil 8'])
  })

  it('keep providers of many addresses when the providers of a key are full', () => {
    const store = new ProviderStore(new ManualClock())
    for (let identity = 0; identity < 20; identity++) store.addProvider(multihash, `sybil ${identity}`, '10.0.0.66')
    for (let node = 0; node < 99; node++) store.addProvider(multihash, `node ${node}`, `10.0.1.${node}`)
    const kept = store.providers(multihash)
    expect(kept.filter((id) => id.startsWith('node'))).toHaveLength(99)
    expect(kept).toContain('sybil 19')
  })

  it('take the record of a newcomer, and keep those of others, after a flood of one peer', () => {
    let drops = 0
    const store = new ProviderStore(new ManualClock(), () => (drops += 1))
    const honest = Array.from({ length: 1_000 }, randomKey)
    for (const key of honest) store.addProvider(key, 'honest', '10.0.0.1')
    for (let record = 0; record < 100_000; record++) store.addProvider(randomKey(), 'flooder', '10.0.0.66')
    store.addProvider(multihash, 'newcomer', '10.0.0.2')
    for (const key of honest) expect(store.providers(key)).toEqual(['honest'])
    expect(store.providers(multihash)).toEqual(['newcomer'])
    expect(store.recordBytes).toBeLessThan(20 * 1024 * 1024)
    expect(store.recordCount + drops).toBe(101_001)
  })

  it('move to the address that a peer announces from last', () => {
    const store = new ProviderStore(new ManualClock())
    store.addProvider(multihash, 'peer', '10.0.0.1')
    store.addProvider(multihash, 'peer', 'fd00::1')
    expect(store.providers(multihash)).toEqual(['peer'])
    expect(store.recordCount).toBe(1)
  })
})

describe('records of peers', () => {
  const nameOf = (peerId: PeerId) => new Key(`/peers/${peerId.toCID().toString()}`)
  const newPeer = async () => peerIdFromPrivateKey(await generateKeyPair('Ed25519'))

  it('are bounded: many identities of one address displace neither other peers nor this node', async () => {
    const store = new ProviderStore(new ManualClock())
    const [self, honest] = [await newPeer(), await newPeer()]
    store.setSelf(self.toString())
    store.setPeerAddresses((id) => (id === honest.toString() ? '10.0.0.1' : '10.0.0.66'))
    const record = new Uint8Array(peerRecordBytesMax)
    for (const peerId of [self, honest]) await store.put(nameOf(peerId), record)
    const identities = await Promise.all(Array.from({ length: 1_000 }, newPeer))
    for (const peerId of identities) await store.put(nameOf(peerId), record)
    expect(store.peerCount).toBeLessThanOrEqual(1 + peerRecordShares.addressMax / peerRecordBytesMax)
    for (const peerId of [self, honest]) expect(await store.get(nameOf(peerId))).toBe(record)
    expect(await store.get(nameOf(identities.at(-1) ?? expect.unreachable()))).toBe(record)
    expect(await store.has(nameOf(identities[0] ?? expect.unreachable()))).toBe(false)
  })
})
