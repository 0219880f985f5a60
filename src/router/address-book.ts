/**
 * Addresses of peers, ready for messages and for callers. They are libp2p's peer store's, which takes a lock, a few
 * promises and a decoding for each question; an answer names up to 20 peers, so what was read is kept until it changes.
 */
import type { Libp2p, PeerId } from '@libp2p/interface'
import { peerIdFromMultihash, peerIdFromString } from '@libp2p/peer-id'
import type { Multiaddr } from '@multiformats/multiaddr'
import * as digest from 'multiformats/hashes/digest'
import { BoundedMap } from '../lib/bounded-map.ts'
import { canonicalIp } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import { addressBookEntriesMax, addressRefreshMs } from '../limits.ts'
import type { Peer as PeerMessage } from './generated/kad-dht.ts'
import { reachable, readReachable } from './reachable.ts'
import { ifUnknownPeer } from './unknown-peer.ts'

export interface AddressBookEntry {
  /** As messages carry it; no multiaddrs: nobody knows where it is. */
  readonly message: PeerMessage
  /** As the peer or others claim them. */
  readonly multiaddrs: readonly Multiaddr[]
}

/** What a peer announced of itself. */
interface Learned {
  readonly id: string
  readonly addresses: string
  readonly untilMs: number
}

export class AddressBook {
  readonly #libp2p: Libp2p
  readonly #clock: Clock
  readonly #entries = new BoundedMap<string, AddressBookEntry | Promise<AddressBookEntry>>(addressBookEntriesMax)
  /** What peers said last of themselves. */
  readonly #said = new BoundedMap<string, Learned>(addressBookEntriesMax)
  /** Announcements come in bulk, and each lookup in a bounded map leaves garbage. */
  #latest: Learned | undefined
  /** Ids as text, by their bytes: base58 costs more than the rest of reading an answer. */
  readonly #names = new BoundedMap<string, string>(addressBookEntriesMax)

  constructor(libp2p: Libp2p, clock: Clock) {
    this.#libp2p = libp2p
    this.#clock = clock
    libp2p.addEventListener('peer:update', ({ detail }) => this.#entries.delete(detail.peer.id.toString()))
  }

  /** A promise only when the peer store has to be asked. */
  get(id: string): AddressBookEntry | Promise<AddressBookEntry> {
    const known = this.#entries.get(id)
    if (known !== undefined) return known
    const reading = this.#read(peerIdFromString(id)).then((entry) => {
      // Unless it changed meanwhile.
      if (this.#entries.get(id) === reading) this.#entries.set(id, entry)
      return entry
    })
    this.#entries.set(id, reading)
    return reading
  }

  /** The id as text. Throws when the bytes are no peer id. */
  nameOf(idBytes: Uint8Array): string {
    const index = Buffer.from(idBytes.buffer, idBytes.byteOffset, idBytes.byteLength).toString('latin1')
    const known = this.#names.get(index)
    if (known !== undefined) return known
    const name = peerIdFromMultihash(digest.decode(idBytes)).toString()
    this.#names.set(index, name)
    return name
  }

  /**
   * A peer said where it is: all of its addresses, so one that it does not repeat is no longer its own. Only what is new
   * goes to the peer store, and all of it now and then, before it expires.
   */
  async learn(peerId: PeerId, id: string, multiaddrs: readonly Uint8Array[]): Promise<void> {
    const addresses = Buffer.concat(multiaddrs).toString('latin1')
    const said = id === this.#latest?.id ? this.#latest : this.#said.get(id)
    if (said !== undefined && said.addresses === addresses && said.untilMs > this.#clock.nowMs()) {
      this.#latest = said
      return
    }
    const reachableAddresses = readReachable(multiaddrs)
    if (reachableAddresses.length === 0) return
    await this.#libp2p.peerStore.patch(peerId, { multiaddrs: reachableAddresses })
    this.#latest = { id, addresses, untilMs: this.#clock.nowMs() + addressRefreshMs }
    this.#said.set(id, this.#latest)
  }

  async #read(peerId: PeerId): Promise<AddressBookEntry> {
    const peer = await this.#libp2p.peerStore.get(peerId).catch(ifUnknownPeer)
    const multiaddrs = reachable(peer?.addresses.map((address) => address.multiaddr) ?? [])
    return {
      message: { id: peerId.toMultihash().bytes, multiaddrs: multiaddrs.map(({ bytes }) => bytes) },
      multiaddrs,
    }
  }
}

/** Each once. */
export function ipsOf(addresses: readonly Multiaddr[]): string[] {
  return [...new Set(addresses.flatMap((address) => ipOf(address) ?? []))]
}

/** The IP address in its canonical spelling. Undefined for a name. */
export function ipOf(address: Multiaddr): string | undefined {
  const [host] = address.getComponents()
  if (host?.value === undefined || (host.name !== 'ip4' && host.name !== 'ip6')) return undefined
  return canonicalIp(host.value)
}
