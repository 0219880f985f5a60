/** What this node knows of the swarm: a view of kad-dht's routing table, plus who did not answer lately. */
import type { PeerId } from '@libp2p/interface'
import type { Clock } from '../lib/clock.ts'
import { deadPeerMs, recordsCompleteAfterMs, replication } from '../limits.ts'
import { closest, compareDistance } from './distance.ts'
import type { DhtInternals } from './libp2p-node.ts'

export interface TablePeer {
  readonly peerId: PeerId
  readonly id: string
  readonly kadId: Uint8Array
}

export class RoutingTable {
  readonly #table: DhtInternals['routingTable']
  readonly #selfKadId: Uint8Array
  readonly #clock: Clock
  #peers: TablePeer[] | undefined
  /** Since when there has been anybody. */
  #joinedMs: number | undefined
  readonly #deadUntilMs = new Map<string, number>()
  readonly #onAdd: ((peer: TablePeer) => void)[] = []

  constructor(table: DhtInternals['routingTable'], selfKadId: Uint8Array, clock: Clock) {
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

  /** Calls back for each peer that comes in. */
  onAdd(callback: (peer: TablePeer) => void): void {
    this.#onAdd.push(callback)
  }

  /** The closest peers to a position that are not known to be dead, closest first. */
  closest(target: Uint8Array, count: number = replication): TablePeer[] {
    const alive = this.peers.filter((peer) => !this.isDead(peer.id))
    return closest(target, alive, count)
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
    const untilMs = this.#deadUntilMs.get(id)
    if (untilMs === undefined) return false
    if (untilMs > this.#clock.nowMs()) return true
    this.#deadUntilMs.delete(id)
    return false
  }

  /** Has kad-dht ping the peer and take it in. */
  async add(peerId: PeerId, signal: AbortSignal): Promise<void> {
    await this.#table.add(peerId, { signal })
  }

  /** The peer cannot be reached: out of the table, and not asked again for a while. It comes back by connecting. */
  async markDead(peer: TablePeer): Promise<void> {
    for (const id of this.#deadUntilMs.keys()) this.isDead(id)
    this.#deadUntilMs.set(peer.id, this.#clock.nowMs() + deadPeerMs)
    await this.#table.remove(peer.peerId)
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
      this.#deadUntilMs.delete(peer.id)
      for (const callback of this.#onAdd) callback(peer)
    }
  }
}
