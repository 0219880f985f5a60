/**
 * All flights that this node coordinates. A node that asks for bytes waits here until its flight decides, as long as it
 * says; what it reports may decide for others. Bounded in flights, nodes and time.
 */
import { inBackground } from '../lib/background.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import {
  flightFailedSourceMs,
  flightGoneMax,
  flightMembersMax,
  flightNodesMax,
  flightQuestionsMax,
  flightsMax,
} from '../limits.ts'
import type { Digest } from '../oci/digest.ts'
import { Flight } from './flight.ts'
import type { NodeId } from './member.ts'
import type { Answer, FlightNode, Join, Report } from './protocol.ts'

interface Entry {
  readonly flight: Flight
  readonly nodes: Map<NodeId, FlightNode>
  /** Questions of each, the oldest first. */
  readonly waiters: Map<NodeId, ((answer: Answer) => void)[]>
  cancelTimer: () => void
  /** Leaders that are being asked whether they are there. */
  readonly asked: Set<NodeId>
  /** Somebody said that it is gone: hearsay does not bring it back until then. */
  readonly goneUntilMs: BoundedMap<NodeId, number>
  /** It was found here. Once: whoever was told that nothing is to be had here must not be sent here again. */
  isFoundHere: boolean
}

export interface CoordinatorComponents {
  clock: Clock
  self: FlightNode
  /** In this node's own store. */
  isStored: (digest: Digest) => boolean
  /** Whether a node that fetches it is there: that it is not, if nothing comes within `flightAliveMs`. */
  isAlive: (node: FlightNode, digest: Digest) => Promise<boolean>
  onLease: (digest: Digest, node: NodeId, further: boolean) => void
}

export class Coordinator {
  readonly #clock: Clock
  readonly #components: CoordinatorComponents
  /** In the order of use, the least recent first. */
  readonly #entries = new Map<Digest, Entry>()
  /** An upper bound of the nodes of all flights: nodes that left are subtracted when the bound reaches the limit. */
  #nodesAtMost = 0

  constructor(components: CoordinatorComponents) {
    this.#clock = components.clock
    this.#components = components
  }

  get flightCount(): number {
    return this.#entries.size
  }

  /** Over all flights. */
  get nodeCount(): number {
    return [...this.#entries.values()].reduce((sum, { nodes }) => sum + nodes.size, 0)
  }

  /** Resolves with `wait` when nothing was decided within the time that the node gave. The signal: it has left. */
  join(
    digest: Digest,
    { node, haveBytes, size, load, waitMs, avoid, gone, keep, isSlow, image, holder }: Join,
    signal: AbortSignal,
  ): Promise<Answer> {
    const entry = this.#entry(digest)
    if (entry.flight.memberCount >= flightMembersMax && !entry.nodes.has(node.id)) {
      return Promise.resolve({ kind: 'lease' })
    }
    this.#addNode(entry, node)
    const nowMs = this.#clock.nowMs()
    // The follower cannot use this node as its source, so it fetches upstream. Nothing changes for other members.
    if (gone === this.#components.self.id && gone !== node.id) return Promise.resolve({ kind: 'lease' })
    if (gone !== undefined && gone !== node.id) {
      entry.flight.sourceFailed(node.id, gone, nowMs)
      void inBackground('flight_leader_check', () => this.#checkGone(digest, entry, gone))
    }
    if (avoid !== undefined) entry.flight.sourceFailed(node.id, avoid, nowMs)
    if (keep !== undefined) {
      const { flight } = entry
      const relief = isSlow
        ? flight.crowded(node.id, keep, haveBytes, nowMs)
        : flight.stalled(node.id, keep, haveBytes, nowMs)
      const source = relief?.kind === 'move' ? entry.nodes.get(relief.source) : undefined
      flight.noteLoad(node.id, load, nowMs)
      this.#decide(digest, entry)
      if (relief?.kind === 'pause') return Promise.resolve({ kind: 'pause' })
      return Promise.resolve(source === undefined ? { kind: 'wait' } : { kind: 'source', source })
    }
    entry.flight.join(node.id, haveBytes, size, nowMs, image)
    entry.flight.noteLoad(node.id, load, nowMs)
    if (holder !== undefined) this.#noteHolder(entry, holder, nowMs)
    this.#lookHere(digest, entry, node.id, nowMs)
    const { promise, resolve } = Promise.withResolvers<Answer>()
    const others = entry.waiters.get(node.id) ?? []
    if (others.length >= flightQuestionsMax) others.shift()?.({ kind: 'wait' })
    entry.waiters.set(node.id, [...others, resolve])
    const onGone = () => {
      resolve({ kind: 'wait' })
      const left = entry.waiters.get(node.id)?.filter((other) => other !== resolve) ?? []
      if (left.length > 0) {
        entry.waiters.set(node.id, left)
      } else if (entry.waiters.delete(node.id)) {
        entry.flight.pause(node.id)
      }
    }
    const cancel = this.#clock.after(waitMs, onGone)
    signal.addEventListener('abort', onGone, { once: true })
    this.#decide(digest, entry)
    return promise.finally(() => {
      cancel()
      signal.removeEventListener('abort', onGone)
    })
  }

  /** What a node says of its own transfer, or of itself. */
  report(digest: Digest, report: Report): void {
    const { node, haveBytes, size, load, busy } = report
    const known = this.#entries.get(digest)
    // Who gave up, or failed, makes no flight.
    if (known === undefined && (report.kind === 'left' || report.kind === 'failed')) return
    const entry = known ?? this.#entry(digest)
    if (entry.flight.memberCount >= flightMembersMax && !entry.nodes.has(node.id)) return
    this.#addNode(entry, node)
    const nowMs = this.#clock.nowMs()
    if (report.kind === 'progress') entry.flight.progress(node.id, haveBytes, size, busy, nowMs)
    else if (report.kind === 'complete') entry.flight.complete(node.id, size, nowMs)
    else if (report.kind === 'failed') entry.flight.failed(node.id, nowMs)
    else entry.flight.leave(node.id, nowMs)
    entry.flight.noteLoad(node.id, load, nowMs)
    if (entry.flight.describe(node.id) === undefined) entry.nodes.delete(node.id)
    this.#decide(digest, entry)
  }

  close(): void {
    for (const entry of this.#entries.values()) this.#forget(entry)
    this.#entries.clear()
  }

  #entry(digest: Digest): Entry {
    const nowMs = this.#clock.nowMs()
    const last = this.#entries.get(digest)
    // What was said a minute ago need not be true: who had the blob may have removed it.
    const known = last?.flight.isOver(nowMs) === true ? undefined : last
    if (known === undefined && last !== undefined) this.#forget(last)
    const entry = known ?? {
      flight: new Flight(nowMs),
      nodes: new Map(),
      waiters: new Map(),
      goneUntilMs: new BoundedMap(flightGoneMax),
      cancelTimer: () => {},
      asked: new Set(),
      isFoundHere: false,
    }
    this.#entries.delete(digest)
    if (known === undefined) this.#makeRoom()
    this.#entries.set(digest, entry)
    return entry
  }

  /** This node may have it without having said so: from a holder, or from before it was started. */
  #lookHere(digest: Digest, entry: Entry, asker: NodeId, nowMs: number): void {
    const { self, isStored } = this.#components
    if (entry.isFoundHere || asker === self.id || !isStored(digest)) return
    entry.isFoundHere = true
    entry.nodes.set(self.id, self)
    entry.flight.complete(self.id, undefined, nowMs)
  }

  /** One that the asker knows, and found busy. */
  #noteHolder(entry: Entry, { node, feeds }: NonNullable<Join['holder']>, nowMs: number): void {
    const { flight, goneUntilMs } = entry
    const isKnown = flight.describe(node.id) !== undefined
    if ((goneUntilMs.get(node.id) ?? 0) > nowMs || (!isKnown && flight.memberCount >= flightMembersMax)) return
    if (!isKnown) this.#addNode(entry, node)
    flight.hearsay(node.id, feeds, nowMs)
  }

  /** The limit over all flights: at about 4 KiB each, the nodes of many flights would fill the memory. */
  #addNode(entry: Entry, node: FlightNode): void {
    if (!entry.nodes.has(node.id)) {
      this.#nodesAtMost += 1
      if (this.#nodesAtMost > flightNodesMax) this.#makeRoomForNodes(entry)
    }
    entry.nodes.set(node.id, node)
  }

  #makeRoomForNodes(current: Entry): void {
    this.#nodesAtMost = this.nodeCount + 1
    for (const [digest, entry] of this.#entries) {
      if (this.#nodesAtMost <= flightNodesMax) return
      if (entry === current) continue
      this.#nodesAtMost -= entry.nodes.size
      this.#forget(entry)
      this.#entries.delete(digest)
    }
  }

  #makeRoom(): void {
    const nowMs = this.#clock.nowMs()
    for (const [digest, entry] of this.#entries) {
      // The oldest come first: behind one that is still of use there are only others.
      if (!entry.flight.isOver(nowMs) && this.#entries.size < flightsMax) return
      this.#forget(entry)
      this.#entries.delete(digest)
    }
  }

  #forget(entry: Entry): void {
    entry.cancelTimer()
    for (const id of entry.waiters.keys()) this.#answer(entry, id, { kind: 'wait' })
  }

  #decide(digest: Digest, entry: Entry): void {
    const nowMs = this.#clock.nowMs()
    for (const decision of entry.flight.decide(nowMs)) {
      if (decision.kind === 'lease') {
        this.#components.onLease(digest, decision.to, decision.further)
        const { afterFailure } = decision
        this.#answer(entry, decision.to, afterFailure ? { kind: 'lease', afterFailure } : { kind: 'lease' })
        continue
      }
      const source = entry.nodes.get(decision.source)
      if (source !== undefined) this.#answer(entry, decision.to, { kind: 'source', source })
    }
    for (const id of entry.flight.quietLeaders(nowMs)) {
      void inBackground('flight_leader_check', () => this.#askLeader(digest, entry, id))
    }
    entry.cancelTimer()
    const nextMs = entry.flight.nextMs(nowMs)
    entry.cancelTimer =
      nextMs === undefined ? () => {} : this.#clock.after(nextMs - nowMs, () => this.#decide(digest, entry))
  }

  async #askLeader(digest: Digest, entry: Entry, id: NodeId): Promise<void> {
    const isNodeAlive = await this.#isNodeAlive(digest, entry, id)
    if (isNodeAlive === undefined || this.#entries.get(digest) !== entry) return
    const nowMs = this.#clock.nowMs()
    // It may have spoken meanwhile.
    if (isNodeAlive || !entry.flight.quietLeaders(nowMs).includes(id)) entry.flight.heard(id, nowMs)
    else entry.flight.vanished(id, nowMs)
    this.#decide(digest, entry)
  }

  /** Verifies a follower's report that a node is gone. Only then does the node lose its place and its lease. */
  async #checkGone(digest: Digest, entry: Entry, id: NodeId): Promise<void> {
    const isNodeAlive = await this.#isNodeAlive(digest, entry, id)
    if (isNodeAlive !== false || this.#entries.get(digest) !== entry) return
    const nowMs = this.#clock.nowMs()
    entry.flight.vanished(id, nowMs)
    entry.goneUntilMs.set(id, nowMs + flightFailedSourceMs)
    this.#decide(digest, entry)
  }

  /** Undefined: the node is unknown here, or another check is running. */
  async #isNodeAlive(digest: Digest, { nodes, asked }: Entry, id: NodeId): Promise<boolean | undefined> {
    const { self, isAlive } = this.#components
    const node = nodes.get(id)
    if (node === undefined || asked.has(id)) return undefined
    if (id === self.id) return true
    asked.add(id)
    try {
      return await isAlive(node, digest)
    } finally {
      asked.delete(id)
    }
  }

  #answer(entry: Entry, id: NodeId, answer: Answer): void {
    const questions = entry.waiters.get(id) ?? []
    entry.waiters.delete(id)
    for (const resolve of questions) resolve(answer)
  }
}
