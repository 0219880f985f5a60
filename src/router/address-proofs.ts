/**
 * Addresses at which a peer has proven its identity: there was an authenticated connection from or to that IP address. Peers
 * claim any address for themselves. Without a proof, a peer that claims the address of a third party would send the requests
 * of all mirrors there. An address that is claimed and not proven is dialled once, for a proof, before its first use.
 */
import type { Connection, Libp2p } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { CODE_P2P as codeP2p, type Multiaddr } from '@multiformats/multiaddr'
import { surface } from '../lib/background.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { parsed } from '../lib/foreign.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { raceAbort } from '../lib/race-abort.ts'
import {
  addressBookEntriesMax,
  addressProofDialsMax,
  addressProofMs,
  addressProofRetryMs,
  addressProofTimeoutMs,
  addressesPerPeerMax,
} from '../limits.ts'
import { ipOf, ipsOf } from './address-book.ts'

export class AddressProofs {
  readonly #libp2p: Libp2p
  readonly #clock: Clock
  /** When a connection with an address was last seen, by peer and IP address, the latest one last. */
  readonly #proven = new BoundedMap<string, Map<string, number>>(addressBookEntriesMax)
  /** Failed dials are not repeated before then, by peer and IP address. */
  readonly #failed = new BoundedMap<string, number>(addressBookEntriesMax)
  readonly #dials = new Map<string, Promise<void>>()

  constructor(libp2p: Libp2p, clock: Clock) {
    this.#libp2p = libp2p
    this.#clock = clock
    libp2p.addEventListener('connection:open', ({ detail }) => this.#note(detail))
    libp2p.addEventListener('connection:close', ({ detail }) => this.#note(detail))
    for (const connection of libp2p.getConnections()) this.#note(connection)
  }

  /** The IP addresses of these that the peer has proven. */
  proven(id: string, addresses: readonly Multiaddr[]): string[] {
    return ipsOf(addresses).filter((ip) => this.has(id, ip))
  }

  /** Whether the peer has proven that it is at this IP address. */
  has(id: string, ip: string): boolean {
    const seen = this.#proven.get(id)
    if (seen === undefined) return false
    const sinceMs = this.#clock.nowMs() - addressProofMs
    if ((seen.get(ip) ?? -Infinity) < sinceMs) {
      // A connection that is still open counts from now on.
      for (const connection of this.#libp2p.getConnections(peerIdFromString(id))) {
        if (connection.status === 'open') this.#note(connection)
      }
    }
    return (seen.get(ip) ?? -Infinity) >= sinceMs
  }

  /** The IP address of the peer's latest connection. */
  latestIp(id: string): string | undefined {
    return [...(this.#proven.get(id)?.keys() ?? [])].at(-1)
  }

  /** As `proven`, after a dial of each address that is not proven yet. Resolves when all have ended, or the signal aborts. */
  async prove(id: string, addresses: readonly Multiaddr[], signal: AbortSignal): Promise<string[]> {
    const proven = this.proven(id, addresses)
    const dials = addresses.flatMap((address) => {
      const ip = ipOf(address)
      return ip === undefined || proven.includes(ip) ? [] : [this.#dial(id, ip, address)]
    })
    try {
      await raceAbort(Promise.all(dials), signal)
    } catch (error) {
      surface('lookup', error)
    }
    return this.proven(id, addresses)
  }

  /** Callers share the dial; the first address of an IP address is dialled. */
  #dial(id: string, ip: string, address: Multiaddr): Promise<void> {
    const key = `${id} ${ip}`
    const running = this.#dials.get(key)
    if (running !== undefined) return running
    const target = parsed(() => address.decapsulateCode(codeP2p).encapsulate(`/p2p/${id}`))
    const isTooSoon = (this.#failed.get(key) ?? -Infinity) > this.#clock.nowMs()
    if (target === undefined || isTooSoon || this.#dials.size >= addressProofDialsMax) return Promise.resolve()
    const dial = this.#connect(target)
      .then(() => {
        if (this.#proven.get(id)?.has(ip) !== true) this.#failed.set(key, this.#clock.nowMs() + addressProofRetryMs)
      })
      .finally(() => this.#dials.delete(key))
    this.#dials.set(key, dial)
    return dial
  }

  async #connect(target: Multiaddr): Promise<void> {
    using patience = awakeTimeout(this.#clock, addressProofTimeoutMs)
    try {
      // Also when there is a connection with another address of the peer.
      this.#note(await this.#libp2p.dial(target, { force: true, signal: patience.signal }))
    } catch (error) {
      surface('lookup', error)
    }
  }

  #note({ remotePeer, remoteAddr }: Connection): void {
    const ip = ipOf(remoteAddr)
    if (ip === undefined) return
    const id = remotePeer.toString()
    const seen = this.#proven.get(id) ?? new Map<string, number>()
    seen.delete(ip)
    seen.set(ip, this.#clock.nowMs())
    for (const oldest of seen.keys()) {
      if (seen.size <= addressesPerPeerMax) break
      seen.delete(oldest)
    }
    this.#proven.set(id, seen)
  }
}
