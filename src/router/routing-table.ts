/** What this node knows of the swarm: a view of kad-dht's routing table, plus who did not answer lately. */
import type { PeerId } from '@libp2p/interface'
import type { Clock } from '../lib/clock.ts'
import { deadPeerMs, recordsCompleteAfterMs, replication, suspectPeerMs } from '../limits.ts'
import { closest, compareDistance } from './distance.ts'
import type { DhtInternals } from './libp2p-node.ts'

export interface TablePeer {
  readonly peerId: PeerId
  readonly id: string
  readonly kadId: Uint8Array
}

interface Silence {
  sinceMs: number
  /** Forgotten then. */
  untilMs: number
  /** Not asked until then. */
  avoidUntilMs: number
  dead: boolean
}

export class RoutingTable {
  readonly #table: DhtInternals['routingTable']
  readonly #selfKadId: Uint8Array
  readonly #isConnected: (peerId: PeerId) => boolean
  readonly #clock: Clock
  #peers: TablePeer[] | undefined
  /** Since when there has been anybody. */
  #joinedMs: number | undefined
  /** Who did not answer lately: not asked for a moment, or for as long as it counts as dead. */
  readonly #silent = new Map<string, Silence>()
  readonly #onAdd: ((peer: TablePeer) => void)[] = []

  constructor(
    table: DhtInternals['routingTable'],
    selfKadId: Uint8Array,
    isConnected: (peerId: PeerId) => boolean,
    clock: Clock,
  ) {
    this.#isConnected = isConnected
    this.#table = table
    this.#selfKadId = selfKadId
    this.#clock = clock
    table.addEventListener('peer:remove', () => this.#refresh())
    table.addEventListener('peer:add', () => this.#refresh())
  }

  get size(): number {
    return this.peers.length
  }

  get peers(): readonly TablePeer[] {
    this.#peers ??= this.#read()
    return this.#peers
  }

  /** Calls back for each peer that comes in, or back. */
  onAdd(callback: (peer: TablePeer) => void): void {
    this.#onAdd.push(callback)
  }

  /** The closest peers to a position that are not dead, closest first: they hold its records. */
  closest(target: Uint8Array, count: number = replication): TablePeer[] {
    const alive = this.peers.filter((peer) => !this.isDead(peer.id))
    return closest(target, alive, count)
  }

  /** Of these the ones to ask: not those that were silent a moment ago, unless all were. */
  closestToAsk(target: Uint8Array): TablePeer[] {
    const nowMs = this.#clock.nowMs()
    const ready = this.peers.filter(({ id }) => (this.#silent.get(id)?.avoidUntilMs ?? 0) <= nowMs)
    return closest(target, ready.length > 0 ? ready : this.peers, replication)
  }

  /**
   * True when this node's own records of the position are complete: it is among those that hold them, and has been in
   * the swarm for long enough to have been handed those that are older than itself.
   */
  hasRecordsOf(target: Uint8Array): boolean {
    if (this.#joinedMs === undefined || this.#clock.nowMs() - this.#joinedMs < recordsCompleteAfterMs) return false
    const last = this.closest(target)[replication - 1]
    return last === undefined || compareDistance(target, { kadId: this.#selfKadId }, last) < 0
  }

  isDead(id: string): boolean {
    const silent = this.#silent.get(id)
    return silent !== undefined && silent.dead && silent.avoidUntilMs > this.#clock.nowMs()
  }

  /** Has kad-dht ping the peer and take it in. */
  async add(peerId: PeerId, signal: AbortSignal): Promise<void> {
    await this.#table.add(peerId, { signal })
  }

  /**
   * The peer did not answer, or did not take an announcement. Without a connection it is gone: out of the table, until
   * it connects again. With one, it may just be busy, or we are: only a second failure makes it dead for a while. A
   * node that stood still for a moment would otherwise forget its whole swarm.
   */
  async noteFailure(peer: TablePeer): Promise<void> {
    const nowMs = this.#clock.nowMs()
    for (const [id, { untilMs }] of this.#silent) if (untilMs <= nowMs) this.#silent.delete(id)
    const connected = this.#isConnected(peer.peerId)
    const before = this.#silent.get(peer.id)
    // All that was under way fails at once: that is one silence.
    if (connected && before !== undefined && nowMs - before.sinceMs < suspectPeerMs) return
    const dead = !connected || before !== undefined
    const durationMs = dead ? deadPeerMs : suspectPeerMs
    const silence = { sinceMs: nowMs, untilMs: nowMs + deadPeerMs, avoidUntilMs: nowMs + durationMs, dead }
    this.#silent.set(peer.id, silence)
    if (!connected) await this.#table.remove(peer.peerId)
    else if (dead) this.#clock.after(deadPeerMs, () => this.#welcome(peer, silence))
  }

  /**
   * A new connection to a peer. One that is in the table already may have been started again under its old identity: it
   * lost its records, and believes before long that those it has are all there are.
   */
  noteConnection(id: string): void {
    const peer = this.peers.find((other) => other.id === id)
    if (peer !== undefined && !this.isDead(id)) for (const callback of this.#onAdd) callback(peer)
  }

  /** The peer answered, or asked or told something itself: it lives. */
  noteAnswer(id: string): void {
    this.#silent.delete(id)
  }

  #read(): TablePeer[] {
    // kad-dht can hold a peer twice when it connects from both sides at once.
    const byId = new Map<string, TablePeer>()
    for (const { peerId, kadId } of this.#table.kb.toIterable()) {
      const id = peerId.toString()
      byId.set(id, { peerId, id, kadId })
    }
    return [...byId.values()]
  }

  #refresh(): void {
    const before = new Set(this.#peers?.map(({ id }) => id))
    this.#peers = undefined
    if (this.size === 0) this.#joinedMs = undefined
    else this.#joinedMs ??= this.#clock.nowMs()
    for (const peer of this.peers) {
      if (before.has(peer.id)) continue
      this.#silent.delete(peer.id)
      for (const callback of this.#onAdd) callback(peer)
    }
  }

  /** It was dead and still is in the table: it is given what it missed. */
  #welcome(peer: TablePeer, silence: Silence): void {
    // Not by the time: a timer may fire a moment early.
    const current = this.#silent.get(peer.id)
    if (current === silence) this.#silent.delete(peer.id)
    else if (current?.dead === true) return
    if (!this.peers.some(({ id }) => id === peer.id)) return
    for (const callback of this.#onAdd) callback(peer)
  }
}
