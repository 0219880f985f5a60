/**
 * Keeps this node's keys announced: to the 20 nodes closest to each key, again before their records expire, and at
 * once to a node that joins and belongs to those 20. In bulk: all keys for one peer go over one stream. Each peer is told
 * for itself: one that is silent, because it lost its power, keeps nobody else waiting.
 */
import { inBackground, surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { awakeTimeout } from '../lib/patience.ts'
import type { Random } from '../lib/random.ts'
import {
  provideBlobsFlightsMs,
  provideConcurrency,
  provideDelayMs,
  provideTimeoutMs,
  reprovideIntervalMs,
  suspectPeerMs,
} from '../limits.ts'
import type { Metrics } from '../metrics.ts'
import { isDigest } from '../oci/digest.ts'
import { type DhtKey, dhtKey } from './content-cid.ts'
import { Message, type Peer as PeerMessage } from './generated/kad-dht.ts'
import { lengthPrefixed } from './length-prefixed.ts'
import type { ProviderStore } from './provider-store.ts'
import type { RoutingTable, TablePeer } from './routing-table.ts'
import { type DhtRpc, messageType } from './rpc.ts'

/** Keys that come due within one step are announced together; also how often due keys are looked for. */
const stepMs = 10_000
/** A peer that joins is given its records after this long: many join at once. */
const newcomerDelayMs = 200

interface Offer {
  key: DhtKey
  /** What each of its 20 holders is told. */
  message: Uint8Array
  dueMs: number
}

export interface ProviderComponents {
  table: RoutingTable
  store: ProviderStore
  rpc: DhtRpc
  clock: Clock
  random: Random
  metrics: Metrics
}

export class Provider {
  readonly #components: ProviderComponents
  readonly #self: PeerMessage
  #gatherBlobsMs = provideDelayMs
  readonly #offers = new Map<string, Offer>()
  readonly #newcomers = new Set<TablePeer>()
  /** What is to be said, by peer; bounded by the routing table and the offers. */
  readonly #waiting = new Map<string, { peer: TablePeer; offers: Set<Offer> }>()
  /** To whom something is being said. */
  readonly #sending = new Map<string, Promise<void>>()
  readonly #stop = new AbortController()
  #cancelTimer: (() => void) | undefined
  #timerMs = Number.POSITIVE_INFINITY

  constructor(components: ProviderComponents, self: PeerMessage) {
    this.#components = components
    this.#self = self
    components.table.onAdd((peer) => {
      this.#newcomers.add(peer)
      this.#runIn(newcomerDelayMs)
    })
  }

  /** From now on blobs wait for others, and for the tag of their image. */
  gatherBlobs(): void {
    this.#gatherBlobsMs = provideBlobsFlightsMs
  }

  get keyCount(): number {
    return this.#offers.size
  }

  get keys(): string[] {
    return [...this.#offers.keys()]
  }

  add(keys: readonly string[]): void {
    for (const contentKey of keys) {
      if (this.#offers.has(contentKey)) continue
      const key = dhtKey(contentKey)
      this.#offers.set(contentKey, { key, message: this.#announcement(key), dueMs: 0 })
      this.#components.store.setOwn(key.multihash, true)
    }
    // A tag comes when its image is whole.
    this.#runIn(keys.every((key) => isDigest(key)) ? this.#gatherBlobsMs : provideDelayMs)
  }

  remove(keys: readonly string[]): void {
    for (const contentKey of keys) {
      const offer = this.#offers.get(contentKey)
      if (offer === undefined) continue
      this.#offers.delete(contentKey)
      this.#components.store.setOwn(offer.key.multihash, false)
    }
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#cancelTimer?.()
    await Promise.all(this.#sending.values())
  }

  /** Runs once within the delay, and from then on each step. */
  #runIn(delayMs: number): void {
    const atMs = this.#components.clock.nowMs() + delayMs
    if (this.#stop.signal.aborted || atMs >= this.#timerMs) return
    this.#cancelTimer?.()
    this.#timerMs = atMs
    this.#cancelTimer = this.#components.clock.after(delayMs, () => {
      this.#timerMs = Number.POSITIVE_INFINITY
      this.#run()
      this.#runIn(stepMs)
    })
  }

  #run(): void {
    const { table, clock, store } = this.#components
    store.removeExpired()
    const newcomers = new Set([...this.#newcomers].map(({ id }) => id))
    this.#newcomers.clear()
    const nowMs = clock.nowMs()
    if (table.size === 0) return
    for (const offer of this.#offers.values()) {
      const due = offer.dueMs <= nowMs
      if (!due && newcomers.size === 0) continue
      const holders = table.closest(offer.key.kadId)
      for (const peer of holders) {
        if (!due && !newcomers.has(peer.id)) continue
        const forPeer = this.#waiting.get(peer.id) ?? { peer, offers: new Set() }
        forPeer.offers.add(offer)
        this.#waiting.set(peer.id, forPeer)
      }
      if (due && holders.length > 0) offer.dueMs = this.#nextDueMs(nowMs)
    }
    this.#sendWaiting()
  }

  /** Spread over the last third of the interval, so that a node does not announce all its keys in one burst. */
  #nextDueMs(nowMs: number): number {
    return nowMs + reprovideIntervalMs * (2 / 3 + this.#components.random() / 3)
  }

  #sendWaiting(): void {
    for (const [id, { peer, offers }] of this.#waiting) {
      if (this.#sending.size >= provideConcurrency) return
      // One at a time to each: what is said next waits for what is being said.
      if (this.#sending.has(id)) continue
      this.#waiting.delete(id)
      const { signal } = this.#stop
      const sending = inBackground('announce', () => this.#sendTo(peer, [...offers]), { signal }).finally(() => {
        this.#sending.delete(id)
        if (!signal.aborted) this.#sendWaiting()
      })
      this.#sending.set(id, sending)
    }
  }

  #announcement({ multihash }: DhtKey): Uint8Array {
    const message = { type: messageType.addProvider, key: multihash, closer: [], providers: [this.#self] }
    return lengthPrefixed(Message.encode(message).finish())
  }

  async #sendTo(peer: TablePeer, offers: readonly Offer[]): Promise<void> {
    const { rpc, table, metrics } = this.#components
    const messages = offers.map(({ message }) => message)
    using patience = awakeTimeout(this.#components.clock, provideTimeoutMs)
    try {
      await rpc.tell(peer.peerId, messages, AbortSignal.any([this.#stop.signal, patience.signal]))
    } catch (error) {
      surface('announce', error)
      if (this.#stop.signal.aborted) return
      // The other 19 hold the same records. This one gets them a little later, or when it is back in the table.
      metrics.provideFailures.inc()
      await table.noteFailure(peer)
      if (!table.isDead(peer.id)) {
        this.#newcomers.add(peer)
        this.#runIn(suspectPeerMs)
      }
    }
  }
}
