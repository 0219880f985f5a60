/**
 * Finds first peers, and goes on doing so: often while this node knows nobody, now and then afterwards, so that a
 * swarm that was split grows together again. Says once that it is alone, and once why it cannot find out.
 */
import type { Libp2p } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import type { Bootstrapper } from '../bootstrap/bootstrapper.ts'
import { Backoff } from '../lib/backoff.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import { type Clock, pause } from '../lib/clock.ts'
import { errorMessage } from '../lib/errors.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { undialableReason } from '../lib/peer-address.ts'
import { raceAbort } from '../lib/race-abort.ts'
import { type Random, shuffled } from '../lib/random.ts'
import {
  bootstrapFirstRetryMs,
  bootstrapEntryCharactersMax,
  bootstrapLastRetryMs,
  bootstrapPeersMax,
  bootstrapRefreshMs,
  bootstrapRoundTimeoutMs,
  undialableEntriesRememberedMax,
} from '../limits.ts'
import type { Logger } from '../logger.ts'
import { inBackground, surface } from '../lib/background.ts'
import { ifUnknownPeer } from './unknown-peer.ts'

export interface BootstrapComponents {
  bootstrapper: Bootstrapper
  libp2p: Libp2p
  /** Peers in the routing table. */
  peerCount: () => number
  /** Called after each return from loneliness, and as long as a connected peer is not in the routing table. */
  onConnected: () => void
  clock: Clock
  random: Random
  logger: Logger
}

export class BootstrapLoop {
  readonly #components: BootstrapComponents
  readonly #ownAddresses: readonly string[]
  readonly #stop = new AbortController()
  readonly #backoff: Backoff
  #running: Promise<void> = Promise.resolve()
  #problem: string | undefined
  #connected = false
  #said = ''
  /** Entries that cannot be dialled and were reported. */
  readonly #reported = new BoundedMap<string, true>(undialableEntriesRememberedMax)

  constructor(components: BootstrapComponents, ownAddresses: readonly string[]) {
    this.#components = components
    this.#ownAddresses = ownAddresses
    this.#backoff = new Backoff(bootstrapFirstRetryMs, bootstrapLastRetryMs, components.random)
    this.#problem = `router: no peer yet, asking ${components.bootstrapper.name}`
  }

  /** Undefined when there are peers, or when this node is known to be the only one. */
  problem(): string | undefined {
    return this.#components.peerCount() > 0 ? undefined : this.#problem
  }

  start(): void {
    this.#running = inBackground('bootstrap', () => this.#run(), { signal: this.#stop.signal })
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { clock, peerCount, random, onConnected } = this.#components
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#round()
      const connected = peerCount() > 0
      if (connected && !this.#connected) {
        this.#backoff.reset()
        this.#say('info', `joined the swarm by ${this.#components.bootstrapper.name}`)
        onConnected()
      }
      // It did not answer kad-dht's ping in time, which kad-dht does not repeat: that is for the membership.
      if (!connected && this.#acquainted) onConnected()
      this.#connected = connected
      const delayMs = connected ? bootstrapRefreshMs * (0.8 + 0.4 * random()) : this.#backoff.nextDelayMs()
      await pause(clock, delayMs, signal)
    }
  }

  async #round(): Promise<void> {
    const { bootstrapper, random, peerCount } = this.#components
    using patience = awakeTimeout(this.#components.clock, bootstrapRoundTimeoutMs)
    const signal = AbortSignal.any([this.#stop.signal, patience.signal])
    try {
      const listed = await raceAbort(bootstrapper.peers(signal), signal)
      const dialable = this.#skipUndialable(listed)
      const others = dialable.filter((address) => !this.#ownAddresses.includes(withoutPeerId(address)))
      const known = await this.#knownAddresses()
      const unknown = shuffled(others, random).filter((address) => !known.has(withoutPeerId(address)))
      const failures = await this.#dial(unknown.slice(0, bootstrapPeersMax), signal)
      if (this.#acquainted || failures.length < Math.min(unknown.length, bootstrapPeersMax)) return
      if (failures.length > 0) {
        this.#problem = `router: none of the peers from ${bootstrapper.name} answers: ${failures[0]}`
        this.#say('warn', this.#problem)
      } else if (listed.length > 0 && dialable.length === 0) {
        this.#problem = `router: none of the peers from ${bootstrapper.name} can be dialled: fix its entries`
        this.#say('warn', this.#problem)
      } else {
        this.#problem = undefined
        this.#say('info', `alone: ${bootstrapper.name} names nobody else; peers that come later will be found`)
      }
    } catch (error) {
      surface('bootstrap', error)
      if (this.#stop.signal.aborted || peerCount() > 0) return
      this.#problem = `router: ${bootstrapper.name} cannot be asked: ${errorMessage(error)}`
      this.#say('warn', this.#problem)
    }
  }

  /** The entries that can be dialled, each once. Every other one is reported the first time. */
  #skipUndialable(entries: readonly string[]): string[] {
    return [...new Set(entries)].filter((entry) => {
      const reason = undialableReason(entry)
      if (reason === undefined) return true
      const shown = entry.slice(0, bootstrapEntryCharactersMax)
      if (this.#reported.get(shown) === undefined) {
        const bootstrap = this.#components.bootstrapper.name
        this.#components.logger.warn(
          { bootstrap, entry: shown, reason },
          'bootstrap entry skipped: it cannot be dialled',
        )
      }
      this.#reported.set(shown, true)
      return false
    })
  }

  /** True when there is a connection, though not yet to a peer of the routing table. */
  get #acquainted(): boolean {
    return this.#components.peerCount() > 0 || this.#components.libp2p.getPeers().length > 0
  }

  /** Returns why each failed one failed. Dialling this node itself is no failure. */
  async #dial(addresses: readonly string[], signal: AbortSignal): Promise<string[]> {
    const { libp2p } = this.#components
    const results = await Promise.allSettled(
      // Async, so that an address that libp2p cannot parse fails by itself.
      addresses.map(async (address) => libp2p.dial(multiaddr(address), { signal })),
    )
    return results.flatMap((result, index) => {
      if (result.status === 'fulfilled') return []
      const message = errorMessage(result.reason)
      return message.includes('dial self') ? [] : [`${addresses[index]}: ${message}`]
    })
  }

  async #knownAddresses(): Promise<Set<string>> {
    const { libp2p } = this.#components
    const peers = await Promise.all(
      libp2p.getPeers().map((peerId) => libp2p.peerStore.get(peerId).catch(ifUnknownPeer)),
    )
    return new Set(peers.flatMap((peer) => peer?.addresses.map(({ multiaddr: address }) => address.toString()) ?? []))
  }

  #say(level: 'info' | 'warn', message: string): void {
    if (message === this.#said) return
    this.#said = message
    this.#components.logger[level](message)
  }
}

function withoutPeerId(address: string): string {
  return address.replace(/\/p2p\/.*$/, '')
}
