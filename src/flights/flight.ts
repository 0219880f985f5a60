/**
 * What the coordinator knows of one digest being fetched, and what it decides. Pure: what happened and the time come
 * in, decisions come out. Words: docs/flights.md.
 *
 * - Nobody is fed by a node that has not strictly more bytes: that alone makes it acyclic, also after restarts.
 * - A source takes another follower only into measured headroom (sources.ts). The first follower of a flight measures for
 *   all: those who come with it wait for that a little, or they would make a chain of all nodes.
 * - The lease goes to the first who asks, later to whoever has most; a failed lease without progress makes the next
 *   one wait, so that a short upstream outage does not fail node after node. Where leases are answered by 404, a node that
 *   leads another blob of the image is preferred, and those that are fed by it wait for that a little.
 */
import {
  flightBackoffMs,
  flightBehindBytes,
  flightDoubtMs,
  flightFailedSourceMs,
  flightForgetMs,
  flightFullMs,
  flightFullShare,
  flightFurtherLeasesMs,
  flightLeaseFreshMs,
  flightLeasesMax,
  flightLoadMs,
  flightReliefMs,
  flightReportBytesMin,
  flightSilentMs,
  flightTreeBytes,
  flightTrialMs,
  flightYieldMs,
} from '../limits.ts'
import {
  type Member,
  type NodeId,
  busyOf,
  follow,
  newMember,
  quietFromMs,
  silentFromMs,
  yieldEndMs,
} from './member.ts'
import { canFeed, sourceFor, sourcesWithRoom } from './sources.ts'

export type Decision =
  /** `afterFailure`: the last one failed without a byte, and its node has said so. */
  | { kind: 'lease'; to: NodeId; further: boolean; afterFailure: boolean }
  /** Take bytes from this node; it has more than `to`. */
  | { kind: 'source'; to: NodeId; source: NodeId }

/** For who is fed too slowly: other bytes, or none for a moment. */
export type Relief = { kind: 'move'; source: NodeId } | { kind: 'pause' }

/** What a node does for other blobs of the same image, where leases are answered by 404. */
export type ImageRole =
  /** It has leases, the first since so long. */
  | { kind: 'leads'; forMs: number }
  /** It is fed by a leader. */
  | { kind: 'yields' }

/** What shares a node's link. */
export interface NodeLoad {
  /** Large blobs that it downloads, this one included: of each it may be a source. */
  blobCount: number
  /** Bodies that it sends to others. */
  feeds: number
}

export class Flight {
  readonly #members = new Map<NodeId, Member>()
  /** Of the blob; undefined: nobody has said. */
  #size: number | undefined
  #order = 0
  #mostBytes = 0
  /** When the most advanced node advanced, or a lease was given. */
  #progressMs: number
  #touchedMs: number
  #furtherLeases = 0
  /** Leases that failed in a row without a byte. */
  #fruitless = 0
  /** One of these has told that it failed. */
  #mayRefuse = false
  #nextLeaseMs = 0
  /** Until then the first follower may measure for all. Undefined: there was none. */
  #trialEndMs: number | undefined

  constructor(nowMs: number) {
    this.#progressMs = nowMs
    this.#touchedMs = nowMs
  }

  get memberCount(): number {
    return this.#members.size
  }

  get waiterCount(): number {
    return this.#waiters().length
  }

  /** A node asks for bytes from `haveBytes` on. Joining again changes nothing but what it has. */
  join(id: NodeId, haveBytes: number, size: number | undefined, nowMs: number, role?: ImageRole): void {
    const member = this.#touch(id, nowMs)
    this.#size ??= size
    const hadBytes = member.haveBytes
    // Its transfer may have begun anew: what it asks for is what it has.
    member.haveBytes = haveBytes
    member.isComplete = false
    member.isHearsay = false
    member.source = undefined
    member.isAway = false
    member.waiting ??= ++this.#order
    member.leadsImageSinceMs = role?.kind === 'leads' ? nowMs - role.forMs : Infinity
    // Once: asking again makes it no longer.
    if (role?.kind === 'yields') member.yieldsUntilMs ??= nowMs + flightYieldMs
    else member.yieldsUntilMs = undefined
    if (haveBytes < hadBytes) this.#noteLess(id)
  }

  /** Nobody is there to take a decision, until it asks again. It keeps its place. */
  pause(id: NodeId): void {
    const member = this.#members.get(id)
    if (member !== undefined) member.isAway = true
  }

  /** Its client left, or it goes upstream by itself: it says no more, and what it has may be gone. */
  leave(id: NodeId, nowMs: number): void {
    if (this.#members.get(id)?.isComplete === false) this.failed(id, nowMs)
  }

  /** Other coordinators, of other blobs, count on the same link. */
  noteLoad(id: NodeId, { blobCount, feeds }: NodeLoad, nowMs: number): void {
    const member = this.#members.get(id)
    if (member === undefined) return
    member.loadMs = nowMs
    member.blobCount = Math.max(1, blobCount)
    member.feedsElsewhere = Math.max(0, feeds - this.#all(({ source }) => source === id).length)
  }

  /** Bytes that a running transfer of the node has; never less than before, except for a new transfer (`join`). */
  progress(id: NodeId, haveBytes: number, size: number | undefined, busy: number | undefined, nowMs: number): void {
    const member = this.#touch(id, nowMs)
    this.#size ??= size
    if (haveBytes > member.haveBytes) this.#noteDelivered(member.source)
    member.haveBytes = Math.max(member.haveBytes, haveBytes)
    if (busy !== undefined) member.busy = busy
    this.#noteMost(member.haveBytes, nowMs)
  }

  /** Somebody else found that it has the blob, and feeds so many. What it says itself is believed more. */
  hearsay(id: NodeId, feeds: number, nowMs: number): void {
    const known = this.#members.get(id)
    if (known !== undefined && (!known.isComplete || (!known.isHearsay && nowMs < known.loadMs + flightLoadMs)))
      return
    const member = known ?? this.#touch(id, nowMs)
    member.isHearsay = known === undefined || known.isHearsay
    member.isComplete = true
    member.haveBytes = this.#size ?? member.haveBytes
    this.noteLoad(id, { blobCount: 1, feeds }, nowMs)
  }

  /** The blob is in its content store. */
  complete(id: NodeId, size: number | undefined, nowMs: number): void {
    const member = this.#touch(id, nowMs)
    this.#size ??= size
    this.#noteDelivered(member.source)
    member.isHearsay = false
    member.doubtedMs = undefined
    member.haveBytes = this.#size ?? member.haveBytes
    member.isComplete = true
    member.waiting = undefined
    member.source = undefined
    member.lease = undefined
    this.#noteUpstreamGives()
    this.#noteMost(member.haveBytes, nowMs)
  }

  /** It is there, and still takes part. */
  heard(id: NodeId, nowMs: number): void {
    const member = this.#members.get(id)
    if (member !== undefined) member.seenMs = nowMs
  }

  /** Its transfer is gone: nothing more comes from it. */
  failed(id: NodeId, nowMs: number): void {
    if (this.#members.get(id)?.lease !== undefined) this.#mayRefuse = true
    this.vanished(id, nowMs)
  }

  /** Nobody is there any more, which says nothing of upstream. */
  vanished(id: NodeId, nowMs: number): void {
    const member = this.#members.get(id)
    if (member === undefined) return
    if (member.lease !== undefined) this.#endLease(member, nowMs)
    this.#members.delete(id)
    this.#noteLess(id)
  }

  /** A source did not deliver to this node, or stands still. */
  sourceFailed(id: NodeId, source: NodeId, nowMs: number): void {
    const member = this.#touch(id, nowMs)
    const failed = this.#members.get(source)
    if (failed !== undefined) {
      member.avoidUntilMs.set(source, nowMs + flightFailedSourceMs)
      failed.doubtedMs ??= nowMs
    }
    if (member.source === source) member.source = undefined
  }

  /** Its source stands still. Another one that has more, if there is one: it is the node's source from now on. */
  stalled(id: NodeId, source: NodeId, haveBytes: number, nowMs: number): Relief | undefined {
    const member = this.#touch(id, nowMs)
    member.haveBytes = Math.max(member.haveBytes, haveBytes)
    const others = sourcesWithRoom(this.#members.values(), this.#size, nowMs).filter(
      (other) => other.member.id !== source,
    )
    const other = sourceFor(member, nowMs, others)
    if (other === undefined) return undefined
    this.sourceFailed(id, source, nowMs)
    follow(member, other.member)
    return { kind: 'move', source: other.member.id }
  }

  /**
   * The link of its source is full. If all whom that feeds say so, and this one has fallen behind, it is moved to somebody who
   * has more and fewer to feed. There is none: the one that is furthest behind pauses, so that the others, and those fed
   * by them, get ahead of it. Early measures are wrong where nodes are short of CPU, and without this two that share a link
   * do so to the end (16 nodes behind 50 Mbit: the last after 56 s, not 24).
   */
  crowded(id: NodeId, source: NodeId, haveBytes: number, nowMs: number): Relief | undefined {
    const member = this.#touch(id, nowMs)
    const from = this.#members.get(source)
    // It has got more than it told that it can give; those that it feeds may have as much.
    const gotBytes = Math.max(member.haveBytes, haveBytes)
    if (from === undefined || from.haveBytes <= gotBytes || member.waiting !== undefined) return undefined
    // What it was answered last may have been lost, or was of no use.
    member.source = source
    const behindBytes = from.haveBytes - gotBytes
    if (behindBytes >= flightBehindBytes / 2) member.fullUntilMs = nowMs + flightFullMs
    if (behindBytes < flightBehindBytes) return undefined
    const fellows = this.#all((other) => other !== member && other.source === source && nowMs < silentFromMs(other))
    const isShared = fellows.length > 0 && fellows.every((fellow) => (busyOf(fellow, nowMs) ?? 0) >= flightFullShare)
    if (!isShared) return undefined
    // One at a time: what the others have measured was with it.
    if (from.relief !== undefined && from.relief.of !== id && nowMs < from.relief.untilMs) return undefined
    const ahead = sourcesWithRoom(this.#members.values(), this.#size, nowMs).filter(
      (other) => other.member !== from && other.member.haveBytes > gotBytes,
    )
    const other = sourceFor(member, nowMs, ahead)
    const moves = other !== undefined && other.followers.length < fellows.length
    // The others have said what they have up to a step ago.
    const isLast = fellows.every((fellow) => fellow.haveBytes + flightReportBytesMin >= gotBytes)
    // Of who has it complete everybody is far behind, also where their own links or disks are what is slow.
    const pauses = !moves && isLast && !from.isComplete
    if (!moves && !pauses) return undefined
    from.relief = { of: id, untilMs: nowMs + flightReliefMs }
    if (!moves) return { kind: 'pause' }
    follow(member, other.member)
    return { kind: 'move', source: other.member.id }
  }

  /** What can be decided now. Whoever gets a decision waits no longer. */
  decide(nowMs: number): Decision[] {
    const decisions: Decision[] = []
    const waiters = this.#waiters()
    const sources = waiters.length === 0 ? [] : sourcesWithRoom(this.#members.values(), this.#size, nowMs)
    let isOnTrial = false
    for (const member of waiters) {
      isOnTrial ||= this.#isOnTrial(nowMs)
      const isOnItsWay = member.lease !== undefined && nowMs - member.lease.grantedMs < flightLeaseFreshMs
      const isPatient = isOnItsWay || (isOnTrial && member.haveBytes === 0)
      const source = isPatient ? undefined : sourceFor(member, nowMs, sources)
      if (source !== undefined) {
        member.waiting = undefined
        follow(member, source.member)
        member.seenMs = nowMs
        source.followers.push(member)
        this.#trialEndMs ??= nowMs + flightTrialMs
        // Somebody else goes upstream for it, or has been.
        member.lease = undefined
        decisions.push({ kind: 'source', to: member.id, source: source.member.id })
      } else if (member.lease !== undefined) {
        // Who may fetch upstream asks again: a token round trip, a resume, a retry. It is never told to wait.
        member.waiting = undefined
        decisions.push({ kind: 'lease', to: member.id, further: false, afterFailure: member.lease.afterFailure })
      }
    }
    const lease = this.#lease(nowMs)
    if (lease !== undefined) decisions.push(lease)
    return decisions
  }

  /** When time alone may bring a decision. Undefined: only something that happens can. */
  nextMs(nowMs: number): number | undefined {
    if (this.waiterCount === 0) return undefined
    let nextMs = Infinity
    const consider = (moment: number) => {
      if (moment > nowMs) nextMs = Math.min(nextMs, moment)
    }
    consider(this.#leaseDueMs(nowMs) ?? Infinity)
    if (this.#isOnTrial(nowMs)) consider(this.#trialEndMs ?? Infinity)
    for (const { avoidUntilMs } of this.#waiters()) for (const moment of avoidUntilMs.values()) consider(moment)
    for (const member of this.#members.values()) {
      if (member.source !== undefined) consider(silentFromMs(member))
      if (member.lease !== undefined) consider(quietFromMs(member))
      consider(member.fullUntilMs)
      if (member.isComplete) consider(member.loadMs + flightLoadMs)
    }
    return nextMs === Infinity ? undefined : nextMs
  }

  /** They have leases, and those who wait do not know whether they are still there. */
  quietLeaders(nowMs: number): NodeId[] {
    const quiet = this.#leaders().filter((leader) => leader.waiting === undefined && quietFromMs(leader) <= nowMs)
    return quiet.length === 0 || this.waiterCount === 0 ? [] : quiet.map(({ id }) => id)
  }

  isOver(nowMs: number): boolean {
    return this.waiterCount === 0 && nowMs - this.#touchedMs > flightForgetMs
  }

  /** For tests and the log. */
  describe(
    id: NodeId,
  ): Readonly<{ haveBytes: number; isComplete: boolean; source: NodeId | undefined; leads: boolean }> | undefined {
    const member = this.#members.get(id)
    if (member === undefined) return undefined
    const { haveBytes, isComplete, source, lease } = member
    return { haveBytes, isComplete, source, leads: lease !== undefined }
  }

  /** The first follower measures; who has nothing yet may wait for that. */
  #isOnTrial(nowMs: number): boolean {
    if ((this.#size ?? 0) <= flightTreeBytes || nowMs >= (this.#trialEndMs ?? 0)) return false
    let isFed = false
    for (const { isComplete, busy, source } of this.#members.values()) {
      if (isComplete || busy !== undefined) return false
      isFed ||= source !== undefined
    }
    return isFed
  }

  // --- Leases ---

  #lease(nowMs: number): Decision | undefined {
    const dueMs = this.#leaseDueMs(nowMs)
    if (dueMs === undefined || dueMs > nowMs) return undefined
    const [most] = this.#waiters().sort(
      (a, b) =>
        b.haveBytes - a.haveBytes ||
        yieldEndMs(a, nowMs) - yieldEndMs(b, nowMs) ||
        Math.min(Number.MAX_VALUE, a.leadsImageSinceMs) - Math.min(Number.MAX_VALUE, b.leadsImageSinceMs) ||
        (a.waiting ?? 0) - (b.waiting ?? 0),
    )
    if (most === undefined) return undefined
    const further = this.#leaders().length > 0
    if (further) this.#furtherLeases += 1
    const afterFailure = this.#mayRefuse
    most.lease = { grantedMs: nowMs, hadBytes: most.haveBytes, afterFailure }
    most.waiting = undefined
    this.#progressMs = nowMs
    return { kind: 'lease', to: most.id, further, afterFailure }
  }

  /** When the next waiter may go upstream. Undefined: none may, as things are. */
  #leaseDueMs(nowMs: number): number | undefined {
    const waiters = this.#waiters()
    if (waiters.length === 0) return undefined
    const mostWaiting = Math.max(...waiters.map(({ haveBytes }) => haveBytes))
    const ahead = this.#all(({ waiting, haveBytes }) => waiting === undefined && haveBytes > mostWaiting)
    const leaders = this.#leaders()
    if (leaders.length === 0 && ahead.length === 0) {
      const most = waiters.filter(({ haveBytes }) => haveBytes === mostWaiting)
      return Math.max(this.#nextLeaseMs, Math.min(...most.map((member) => yieldEndMs(member, 0))))
    }
    // Unless it gave nothing to all who wait: it may be gone, and so may the blob on it.
    const mayFeed = (source: Member) => waiters.some((waiter) => canFeed(source, waiter, nowMs))
    const holders = ahead.filter((source) => source.isComplete && mayFeed(source))
    // Or nothing to somebody, and nobody has told of bytes since: it may be frozen.
    const frozenMs = Math.max(0, ...holders.map(({ doubtedMs }) => (doubtedMs ?? Infinity) + flightDoubtMs))
    if (frozenMs === Infinity) return undefined
    if (leaders.length >= flightLeasesMax) return undefined
    if (leaders.length === 0) return Math.max(frozenMs, this.#progressMs + flightSilentMs)
    const delayMs = flightFurtherLeasesMs[Math.min(this.#furtherLeases, flightFurtherLeasesMs.length - 1)] ?? 0
    return Math.max(frozenMs, this.#progressMs + delayMs)
  }

  #endLease(member: Member, nowMs: number): void {
    const { lease } = member
    member.lease = undefined
    if (lease === undefined) return
    if (member.haveBytes > lease.hadBytes) this.#noteUpstreamGives()
    else this.#fruitless += 1
    const backoffMs =
      this.#fruitless === 0 ? 0 : (flightBackoffMs[Math.min(this.#fruitless, flightBackoffMs.length) - 1] ?? 0)
    this.#nextLeaseMs = nowMs + backoffMs
  }

  #noteUpstreamGives(): void {
    this.#fruitless = 0
    this.#mayRefuse = false
  }

  // --- Members ---

  #touch(id: NodeId, nowMs: number): Member {
    this.#touchedMs = nowMs
    const known = this.#members.get(id)
    if (known !== undefined) {
      known.seenMs = nowMs
      return known
    }
    const member = newMember(id, nowMs)
    this.#members.set(id, member)
    return member
  }

  #noteDelivered(source: NodeId | undefined): void {
    const member = source === undefined ? undefined : this.#members.get(source)
    if (member !== undefined) member.doubtedMs = undefined
  }

  #noteMost(haveBytes: number, nowMs: number): void {
    if (haveBytes <= this.#mostBytes) return
    this.#mostBytes = haveBytes
    this.#progressMs = nowMs
    this.#noteUpstreamGives()
    this.#furtherLeases = 0
  }

  /** It has fewer bytes than it had, or is gone: a new transfer. Who was fed by the last one is no longer. */
  #noteLess(id: NodeId): void {
    this.#mostBytes = 0
    for (const member of this.#members.values()) {
      if (member.source === id) member.source = undefined
      this.#mostBytes = Math.max(this.#mostBytes, member.haveBytes)
    }
  }

  #all(wanted: (member: Member) => boolean = () => true): Member[] {
    return [...this.#members.values()].filter(wanted)
  }

  #waiters(): Member[] {
    return this.#all(({ waiting, isAway }) => waiting !== undefined && !isAway).sort(
      (a, b) => (a.waiting ?? 0) - (b.waiting ?? 0),
    )
  }

  #leaders(): Member[] {
    return this.#all(({ lease }) => lease !== undefined)
  }
}
