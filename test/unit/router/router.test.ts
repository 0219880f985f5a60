import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { PeerId } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import fc from 'fast-check'
import { Key } from 'interface-datastore'
import { base32 } from 'multiformats/bases/base32'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  addressesPerPeerMax,
  lookupCacheMs,
  lookupMissCacheMs,
  peerRecordBytesMax,
  recordValidityMs,
} from '../../../src/limits.ts'
import { contentCid, dhtKey } from '../../../src/router/content-cid.ts'
import { closest, compareDistance } from '../../../src/router/distance.ts'
import { loadIdentity, removeIdentity } from '../../../src/router/identity.ts'
import { LengthPrefixedDecoder, lengthPrefixed } from '../../../src/router/length-prefixed.ts'
import { LookupCache } from '../../../src/router/lookup-cache.ts'
import { ProviderStore } from '../../../src/router/provider-store.ts'
import { readReachable } from '../../../src/router/reachable.ts'
import type { Peer } from '../../../src/router/router.ts'
import { ManualClock } from '../../support/manual-clock.ts'

describe('content keys', () => {
  it('have the CID that Spegel gives them', () => {
    expect(contentCid('foobar')).toBe('bafkreigdvoh7cnza5cwzar65hfdgwpejotszfqx2ha6uuolaofgk54ge6i')
  })
})

describe('distance', () => {
  it('orders by XOR', () => {
    const at = (first: number) => ({ kadId: Uint8Array.from([first, 0]) })
    const target = Uint8Array.from([0b1000, 0])
    expect(closest(target, [at(0), at(0b1001), at(0b1111)], 2)).toEqual([at(0b1001), at(0b1111)])
    expect(compareDistance(target, at(3), at(3))).toBe(0)
  })
})

describe('length-prefixed messages', () => {
  it('come out whole, however they are cut', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 400 })), fc.integer({ min: 1, max: 50 }), (messages, piece) => {
        const bytes = Buffer.concat(messages.map(lengthPrefixed))
        const decoder = new LengthPrefixedDecoder(1_000)
        const out: Buffer[] = []
        for (let at = 0; at < bytes.length; at += piece) {
          for (const message of decoder.decode(bytes.subarray(at, at + piece))) out.push(Buffer.from(message))
        }
        expect(out.map((message) => message.toString('hex'))).toEqual(
          messages.map((message) => Buffer.from(message).toString('hex')),
        )
      }),
    )
  })

  it('are refused when they are too long, before they are read', () => {
    const decoder = new LengthPrefixedDecoder(10)
    expect(() => [...decoder.decode(lengthPrefixed(Buffer.alloc(11)).subarray(0, 1))]).toThrow(/too long/)
    expect(() => [...new LengthPrefixedDecoder(10).decode(Buffer.alloc(9, 0xff))]).toThrow(/does not end/)
  })
})

describe('identity', () => {
  let folder = ''
  beforeEach(async () => void (folder = await mkdtemp(join(tmpdir(), 'identity-'))))
  afterEach(() => rm(folder, { recursive: true, force: true }))

  it('is made once, readable only by us, and kept', async () => {
    const dataDir = join(folder, 'data')
    const first = await loadIdentity(dataDir)
    const second = await loadIdentity(dataDir)
    expect(second.equals(first)).toBe(true)
    expect((await stat(join(dataDir, 'private.key'))).mode & 0o777).toBe(0o600)
    expect(await readFile(join(dataDir, 'private.key'), 'utf8')).toMatch(/^-----BEGIN PRIVATE KEY-----/)
  })

  it('is new each time without a folder', async () => {
    expect((await loadIdentity(undefined)).equals(await loadIdentity(undefined))).toBe(false)
  })

  it('is forgotten with its folder, unless something else is in it', async () => {
    const dataDir = join(folder, 'data')
    await loadIdentity(dataDir)
    await writeFile(join(dataDir, 'notes'), '')
    await removeIdentity(dataDir)
    expect(await readdir(dataDir)).toEqual(['notes'])
    await rm(join(dataDir, 'notes'))
    await removeIdentity(dataDir)
    await removeIdentity(dataDir)
    expect(await readdir(folder)).toEqual([])
    await writeFile(dataDir, '')
    await expect(removeIdentity(dataDir)).rejects.toThrow(/^--data-dir: .*ENOTDIR.*mount its parent writable$/)
  })

  it.each([
    ['nonsense', 'nonsense'],
    [
      'another kind of key',
      generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey.export({ type: 'pkcs8', format: 'pem' }),
    ],
  ])('refuses %s with one line', async (_name, text) => {
    await writeFile(join(folder, 'private.key'), text)
    await expect(loadIdentity(folder)).rejects.toThrow(/^--data-dir: .*private\.key.*remove it/)
  })
})

describe('reachable addresses', () => {
  it('are those of IP over TCP, and not too many; others do not spoil them', () => {
    const good = Array.from({ length: 20 }, (_, at) => multiaddr(`/ip4/10.0.0.${at}/tcp/5001`))
    const bad = [
      multiaddr('/dns4/x.test/tcp/1').bytes,
      multiaddr('/ip4/10.0.0.1/udp/1').bytes,
      Buffer.from([0xff, 0xff]),
    ]
    const read = readReachable([...bad, ...good.map(({ bytes }) => bytes)])
    expect(read.map(String)).toEqual(good.slice(0, addressesPerPeerMax).map(String))
  })
})

describe('ProviderStore', () => {
  const { multihash } = dhtKey('some content')
  const prefix = `/dht/provider/${base32.baseEncode(multihash)}`
  const put = (store: ProviderStore, peer: string) => store.put(new Key(`${prefix}/${peer}`), Uint8Array.of(1))
  const newPeer = async () => peerIdFromPrivateKey(await loadIdentity(undefined))
  /** As libp2p keeps what it knows of a peer. */
  const know = (store: ProviderStore, peerId: PeerId, value = Uint8Array.of(2)) =>
    store.put(new Key(`/peers/${peerId.toCID().toString()}`), value)
  const listed = async (store: ProviderStore) => {
    const keys: string[] = []
    for await (const { key } of store.query({ prefix })) keys.push(key.toString().slice(prefix.length + 1))
    return keys
  }

  it('keeps records by key until they expire', async () => {
    const clock = new ManualClock()
    const store = new ProviderStore(clock)
    store.setSelf('self')
    await put(store, 'a')
    clock.advance(recordValidityMs / 2)
    await put(store, 'b')
    expect(store.providers(multihash)).toEqual(['b', 'a'])
    clock.advance(recordValidityMs / 2 + 1)
    expect(store.providers(multihash)).toEqual(['b'])
    await put(store, 'b')
    clock.advance(recordValidityMs)
    store.removeExpired()
    expect(store.recordCount).toBe(0)
  })

  it('answers with this node where it offers the key, and stores no such record', async () => {
    const store = new ProviderStore(new ManualClock())
    store.setSelf('self')
    await put(store, 'self')
    expect(store.recordCount).toBe(0)
    store.setOwn(multihash, true)
    expect(await listed(store)).toEqual(['self'])
    expect(store.providers(multihash)).toEqual([])
    store.setOwn(multihash, false)
    expect(await listed(store)).toEqual([])
  })

  it('keeps no peers that are too large', async () => {
    const store = new ProviderStore(new ManualClock())
    const peer = await newPeer()
    await know(store, peer)
    await know(store, peer, new Uint8Array(peerRecordBytesMax + 1))
    expect(await store.get(new Key(`/peers/${peer.toCID().toString()}`))).toEqual(Uint8Array.of(2))
  })

  it('takes what peers announce, and never what is said of this node', () => {
    const store = new ProviderStore(new ManualClock())
    store.setSelf('self')
    for (const peer of ['a', 'b', 'a', 'self']) store.addProvider(multihash, peer)
    expect(store.providers(multihash).sort()).toEqual(['a', 'b'])
    expect(store.recordCount).toBe(2)
    expect(store.isOwn(multihash)).toBe(false)
    store.setOwn(multihash, true)
    expect(store.isOwn(multihash)).toBe(true)
  })

  it('shows nothing to a walk over all records, and keeps other data', async () => {
    const store = new ProviderStore(new ManualClock())
    await put(store, 'a')
    const walked: unknown[] = []
    for await (const pair of store.query({ prefix: '/dht/provider' })) walked.push(pair)
    expect(walked).toEqual([])
    await store.put(new Key('/peers/x'), Uint8Array.of(7))
    expect(await store.get(new Key('/peers/x'))).toEqual(Uint8Array.of(7))
  })
})

describe('LookupCache', () => {
  const peer = (id: string): Peer => ({ id, addresses: ['10.0.0.1'] })
  const collect = async (cache: LookupCache, key: string) => {
    const found: string[] = []
    for await (const { id } of cache.lookup(key, new AbortController().signal)) found.push(id)
    return found
  }

  it('joins callers, shows what is found so far, and keeps it for a while', async () => {
    const clock = new ManualClock()
    let searches = 0
    const end = Promise.withResolvers<void>()
    const cache = new LookupCache(async (_key, _fresh, onPeer) => {
      searches += 1
      onPeer(peer('a'))
      await end.promise
      onPeer(peer('b'))
    }, clock)
    const early = cache.lookup('key', new AbortController().signal)
    expect((await early.next()).value).toEqual(peer('a'))
    const joined = collect(cache, 'key')
    end.resolve()
    expect(await joined).toEqual(['a', 'b'])
    expect(await collect(cache, 'key')).toEqual(['a', 'b'])
    expect(searches).toBe(1)
    clock.advance(lookupCacheMs + 1)
    await collect(cache, 'key')
    expect(searches).toBe(2)
  })

  it('keeps a miss only for a moment', async () => {
    const clock = new ManualClock()
    let searches = 0
    const cache = new LookupCache(() => Promise.resolve(void (searches += 1)), clock)
    await collect(cache, 'key')
    await collect(cache, 'key')
    expect(searches).toBe(1)
    clock.advance(lookupMissCacheMs + 1)
    await collect(cache, 'key')
    expect(searches).toBe(2)
  })

  it('lets a caller go without ending the search', async () => {
    const end = Promise.withResolvers<void>()
    const cache = new LookupCache(() => end.promise, new ManualClock())
    const gone = new AbortController()
    const left = cache.lookup('key', gone.signal).next()
    gone.abort()
    expect((await left).done).toBe(true)
    end.resolve()
  })
})
