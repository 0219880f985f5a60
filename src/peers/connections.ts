/** Connections to peers: opened, kept while idle for the next question, closed after a time. */
import { isIP } from 'node:net'
import { oneIp } from '../lib/address.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import {
  peerAddressStaggerMs,
  peerAvoidMs,
  peerConnectionsMax,
  peerIdleConnectionMs,
  peerIdleConnectionsMax,
  peersRememberedMax,
} from '../limits.ts'
import type { Peer } from '../router/router.ts'
import { PeerConnection } from './connection.ts'
import { PeerFailure } from './protocol.ts'

export interface ConnectionsConfig {
  /** All nodes use the same. */
  registryPort: number
  /** What this node listens on; empty: all addresses. */
  listenHost?: string
  stallTimeoutMs: number
}

export class Connections {
  readonly #config: ConnectionsConfig
  readonly #clock: Clock
  readonly #open = new Set<PeerConnection>()
  readonly #idle = new Map<PeerConnection, { peerId: string; cancelTimer: () => void }>()
  /** Addresses that did not take a connection, until when they are tried after a peer's others. */
  readonly #unreachableUntilMs = new BoundedMap<string, number>(peersRememberedMax)

  constructor(config: ConnectionsConfig, clock: Clock) {
    this.#config = config
    this.#clock = clock
  }

  /** One that lies idle, the latest first. Not one to where the peer was before it was started anew elsewhere. */
  takeIdle(peer: Peer): PeerConnection | undefined {
    for (const [connection, { peerId }] of [...this.#idle].toReversed()) {
      if (peerId !== peer.id) continue
      this.#forgetIdle(connection)
      if (connection.reusable && peer.addresses.includes(connection.ip)) return connection
      connection.destroy()
    }
    return undefined
  }

  /** Rejects as `open` does when nobody is there any more, where this connection leads to. */
  async probe(peer: Peer, { ip }: PeerConnection, signal: AbortSignal): Promise<void> {
    if (this.#open.size >= peerConnectionsMax) return
    const connection = await this.open({ id: peer.id, addresses: [ip] }, signal)
    connection.destroy()
  }

  /** A new one, to the address of the peer that answers first. Rejects with PeerFailure, or the signal's reason. */
  async open(peer: Peer, signal: AbortSignal): Promise<PeerConnection> {
    if (this.#open.size >= peerConnectionsMax) {
      throw new PeerFailure('connect', `there are ${peerConnectionsMax} connections to peers already`)
    }
    const won = new AbortController()
    const others = AbortSignal.any([signal, won.signal])
    const attempts = this.#reachableFirst(peer.addresses).map(async (ip, index) => {
      await this.#clock.sleep(index * peerAddressStaggerMs, others)
      const connection = await PeerConnection.open(
        {
          ip,
          port: this.#config.registryPort,
          localAddress: localAddressTo(ip, this.#config.listenHost),
          clock: this.#clock,
          stallTimeoutMs: this.#config.stallTimeoutMs,
        },
        others,
      ).catch((error: unknown) => {
        // Also when a later one was faster.
        if (!signal.aborted) this.#unreachableUntilMs.set(ip, this.#clock.nowMs() + peerAvoidMs)
        throw error
      })
      this.#unreachableUntilMs.delete(ip)
      // Two may have come in the same turn.
      if (won.signal.aborted) connection.destroy()
      else won.abort(new Error('another address was faster'))
      return connection
    })
    const connection = await Promise.any(attempts).catch((error: unknown) => {
      signal.throwIfAborted()
      throw error instanceof AggregateError ? (error.errors[0] ?? noAddress()) : error
    })
    this.#open.add(connection)
    connection.onClosed(() => {
      this.#open.delete(connection)
      this.#forgetIdle(connection)
    })
    return connection
  }

  /** Keeps the connection for a further question to the peer, if it can take one. */
  giveBack(peer: Peer, connection: PeerConnection): void {
    if (!connection.reusable || this.#idle.size >= peerIdleConnectionsMax) {
      connection.destroy()
      return
    }
    const cancelTimer = this.#clock.after(peerIdleConnectionMs, () => connection.destroy())
    this.#idle.set(connection, { peerId: peer.id, cancelTimer })
  }

  close(): void {
    for (const connection of this.#open) connection.destroy()
  }

  #reachableFirst(addresses: readonly string[]): string[] {
    const isUnreachable = (ip: string) => (this.#unreachableUntilMs.get(ip) ?? 0) > this.#clock.nowMs()
    return addresses.toSorted((a, b) => Number(isUnreachable(a)) - Number(isUnreachable(b)))
  }

  #forgetIdle(connection: PeerConnection): void {
    this.#idle.get(connection)?.cancelTimer()
    this.#idle.delete(connection)
  }
}

function noAddress(): PeerFailure {
  return new PeerFailure('connect', 'the peer has no address')
}

/**
 * A node that listens on one address connects from it, too: others recognise a message by the address that it comes from.
 * Not from loopback to another network, nor from one family to the other.
 */
function localAddressTo(ip: string, listenHost = ''): string | undefined {
  const isSameKind = isIP(listenHost) === isIP(ip) && isLoopback(listenHost) === isLoopback(ip)
  return isSameKind ? oneIp(listenHost) : undefined
}

function isLoopback(ip: string): boolean {
  return ip === '::1' || ip.startsWith('127.')
}
