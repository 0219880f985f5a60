/** What the coordinator knows of one node in a flight. */
import { flightFirstBytesMs, flightFollowerSilentMs, flightQuietLeaderMs } from '../limits.ts'

export type NodeId = string

export interface Member {
  readonly id: NodeId
  /** In its content store, or in a running transfer. */
  haveBytes: number
  isComplete: boolean
  /** It asked for bytes and waits for a decision; since when, for the order. */
  waiting: number | undefined
  /** It waits, but nobody is there to take a decision. */
  isAway: boolean
  source: NodeId | undefined
  /** It leads other blobs of the image since then; Infinity: it does not. */
  leadsImageSinceMs: number
  /** Until then it leaves a lease to the image's leader. */
  yieldsUntilMs: number | undefined
  /** It may fetch upstream. */
  lease: { grantedMs: number; hadBytes: number; afterFailure: boolean } | undefined
  /** Share of the time in which it received, while it wanted to. Undefined: not measured yet. */
  busy: number | undefined
  /** It said that the link of its source may be full, and was behind; until when that counts. */
  fullUntilMs: number
  /** Of a source whose link is full: who of those it feeds is to leave it to the others, and until when no other. */
  relief: { of: NodeId; untilMs: number } | undefined
  /** As NodeLoad. */
  blobCount: number
  feedsElsewhere: number
  /** When that was said. */
  loadMs: number
  /** Others say that it has the blob; it has said nothing itself. */
  isHearsay: boolean
  /** When it did not deliver to somebody. Undefined: it has delivered since. */
  doubtedMs: number | undefined
  /** Sources that did not deliver, until when they are not tried again. */
  readonly avoidUntilMs: Map<NodeId, number>
  seenMs: number
}

/** It has said nothing yet. */
export function newMember(id: NodeId, nowMs: number): Member {
  return {
    id,
    haveBytes: 0,
    isComplete: false,
    waiting: undefined,
    isAway: false,
    source: undefined,
    leadsImageSinceMs: Infinity,
    yieldsUntilMs: undefined,
    lease: undefined,
    busy: undefined,
    fullUntilMs: 0,
    relief: undefined,
    blobCount: 1,
    feedsElsewhere: 0,
    loadMs: nowMs,
    isHearsay: false,
    doubtedMs: undefined,
    avoidUntilMs: new Map(),
    seenMs: nowMs,
  }
}

/** What it measured was behind another one. */
export function follow(member: Member, source: Member): void {
  member.source = source.id
  member.busy = undefined
  member.fullUntilMs = 0
}

/** Who has bytes goes on by itself; what is over counts as 0. */
export function yieldEndMs({ haveBytes, yieldsUntilMs }: Member, nowMs: number): number {
  return haveBytes > 0 || yieldsUntilMs === undefined || yieldsUntilMs <= nowMs ? 0 : yieldsUntilMs
}

/** When a follower takes no room any more, unless it is heard of. */
export function silentFromMs({ haveBytes, seenMs }: Member): number {
  return seenMs + (haveBytes > 0 ? flightFollowerSilentMs : flightFirstBytesMs)
}

/** When who has a lease is asked whether it is there, unless it is heard of. */
export function quietFromMs({ seenMs }: Member): number {
  return seenMs + flightQuietLeaderMs
}

/** Who falls behind over a link that may be full measures wrong: of two or four that share one each seems to wait. */
export function busyOf({ busy, fullUntilMs }: Member, nowMs: number): number | undefined {
  return nowMs < fullUntilMs ? 1 : busy
}
