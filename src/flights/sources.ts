/**
 * Which nodes of a flight can feed another one: a source takes a follower only into headroom that its followers measured
 * (simulated: a fixed fan-out of 3 is 2 to 3.5 times slower than no mirror where the nodes' uplinks are the limit).
 */
import { flightLoadMs, flightSlotsMax, flightSmallBytes, flightTreeBytes } from '../limits.ts'
import { type Member, type NodeId, busyOf, silentFromMs } from './member.ts'

export interface Source {
  readonly member: Member
  /** Those that are heard of. */
  readonly followers: Member[]
  /** So many it may have. */
  readonly slots: number
  readonly feedsElsewhere: number
}

/**
 * The sources that can take a follower more. Made once for all who wait: there may be a thousand of each.
 * `size`: of the blob; undefined: nobody has said.
 */
export function sourcesWithRoom(members: Iterable<Member>, size: number | undefined, nowMs: number): Source[] {
  const all = [...members]
  const followersOf = new Map<NodeId, Member[]>()
  for (const member of all) {
    if (member.source === undefined || nowMs >= silentFromMs(member)) continue
    const others = followersOf.get(member.source)
    if (others === undefined) followersOf.set(member.source, [member])
    else others.push(member)
  }
  const measured = [...followersOf.values()].flatMap((followers) => measuredHeadroom(followers, nowMs) ?? [])
  const worst = measured.length === 0 ? undefined : Math.min(...measured)
  return all
    .filter(({ haveBytes }) => haveBytes > 0)
    .map((member): Source => {
      const followers = followersOf.get(member.id) ?? []
      // Who has it complete says no more: what it said of its load is over some time.
      const isOld = member.isComplete && nowMs >= member.loadMs + flightLoadMs
      const { blobCount, feedsElsewhere } = isOld ? { blobCount: 1, feedsElsewhere: 0 } : member
      const headroom = measuredHeadroom(followers, nowMs) ?? worst ?? followers.length
      const slots = slotsOf(member.isComplete, size ?? 0, { blobCount, feedsElsewhere, headroom })
      return { member, followers, slots, feedsElsewhere }
    })
    .filter(hasRoom)
}

/** The best of them for this one. Undefined: none has more and room. */
export function sourceFor(member: Member, nowMs: number, sources: readonly Source[]): Source | undefined {
  let best: Source | undefined
  for (const source of sources) {
    if (!canFeed(source.member, member, nowMs) || !hasRoom(source)) continue
    if (best === undefined || isBetter(source, best)) best = source
  }
  return best
}

/** It has more, and did not fail to deliver to this one a moment ago. */
export function canFeed(source: Member, member: Member, nowMs: number): boolean {
  if (source === member || source.haveBytes <= member.haveBytes) return false
  return (member.avoidUntilMs.get(source.id) ?? 0) <= nowMs
}

function hasRoom({ followers, slots }: Source): boolean {
  return followers.length < slots
}

function slotsOf(
  isComplete: boolean,
  size: number,
  { blobCount, feedsElsewhere, headroom }: Readonly<{ blobCount: number; feedsElsewhere: number; headroom: number }>,
): number {
  // Small ones are there in one step: everybody takes them at once from whoever has them.
  if (size < flightSmallBytes) return isComplete ? Infinity : 0
  if (size <= flightTreeBytes) return isComplete ? flightSlotsMax : 3
  const slots = Math.min(flightSlotsMax, Math.floor((isComplete ? flightSlotsMax : headroom) / blobCount))
  // Of who feeds others while it downloads, its followers' measure tells that.
  return Math.max(1, isComplete ? Math.min(slots, flightSlotsMax - feedsElsewhere) : slots)
}

/** Fewest followers first, then most bytes; of those that have it complete, who feeds fewest with other blobs. */
function isBetter(a: Source, b: Source): boolean {
  const fewer = b.followers.length - a.followers.length
  const more = a.member.haveBytes - b.member.haveBytes
  return (fewer || more || b.feedsElsewhere - a.feedsElsewhere) > 0
}

/** Followers that its link could carry. Undefined: none of them has told yet. */
function measuredHeadroom(followers: readonly Member[], nowMs: number): number | undefined {
  const measured = followers.flatMap((member) => busyOf(member, nowMs) ?? [])
  if (measured.length === 0) return undefined
  // A slow follower blames itself, not the source: the least busy one tells. Who has just come is not in what they saw.
  return (0.6 * measured.length) / Math.max(0.01, Math.min(...measured))
}
