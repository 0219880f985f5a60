/**
 * Divides a bounded resource among the peers that fill it. Each peer and each remote address has a share, in the unit of the
 * owner (bytes, connections), and each address a limit of peers. A new item is always taken. When a share or the whole is full,
 * the oldest item of the largest holder is evicted: of the largest address, and there of the largest peer. No operation scans all
 * items.
 */
import { LinkedList, type ListNode } from './linked-list.ts'
import { type Ranked, SizeRanking } from './size-ranking.ts'

export interface ShareLimits {
  /** All items. */
  totalMax: number
  /** The items of one remote address. */
  addressMax: number
  /** The items of one peer. */
  peerMax: number
  /** Peers of one remote address. Full: the items of the peer that was silent for the longest time are evicted. */
  peersPerAddressMax: number
  /** The size of a peer with its address, without items. */
  holderSize: number
  /**
   * A peer that is full, or the largest holder while all is full, replaces its own oldest item at most this often. Its items
   * are dropped in between: without a pause, a flood leaves garbage faster than it is collected.
   */
  replacementMs: number
}

interface AddressShare<Item> extends Ranked<AddressShare<Item>> {
  readonly address: string
  /** The peer that was silent for the longest time first. */
  readonly peers: Map<string, PeerShare<Item>>
  latest: PeerShare<Item> | undefined
  readonly ranking: SizeRanking<PeerShare<Item>>
  count: number
  size: number
}

/** What one peer holds from one remote address. */
export interface PeerShare<Item> extends Ranked<PeerShare<Item>> {
  readonly peerId: string
  readonly owner: AddressShare<Item>
  /** Oldest first. */
  readonly items: LinkedList<Item>
  size: number
  nextReplacementMs: number
}

export interface SharedItem<Item> {
  readonly size: number
  /** Set while the item is kept. */
  share: PeerShare<Item> | undefined
  /** Its place in the share. */
  node: ListNode<Item> | undefined
}

export class FairShare<Item extends SharedItem<Item>> {
  readonly #limits: ShareLimits
  readonly #onEvict: (item: Item) => void
  readonly #addresses = new Map<string, AddressShare<Item>>()
  readonly #ranking = new SizeRanking<AddressShare<Item>>()
  #count = 0
  #size = 0

  constructor(limits: ShareLimits, onEvict: (item: Item) => void) {
    this.#limits = limits
    this.#onEvict = onEvict
  }

  get count(): number {
    return this.#count
  }

  get size(): number {
    return this.#size
  }

  /** False if a new item of this size is to be dropped, because the peer replaces its own items too often. */
  admits(size: number, address: string, peerId: string, nowMs: number): boolean {
    const share = this.#addresses.get(address)?.peers.get(peerId)
    if (share === undefined || this.#victim(share, size) !== share) return true
    if (nowMs < share.nextReplacementMs) return false
    share.nextReplacementMs = nowMs + this.#limits.replacementMs
    return true
  }

  /** Takes the item as the latest one of the peer, and evicts others where that is too much. */
  add(item: Item, address: string, peerId: string): void {
    const share = this.#shareOf(address, peerId)
    const { owner } = share
    item.share = share
    item.node = share.items.push(item)
    share.size += item.size
    this.#count += 1
    this.#grow(owner, item.size)
    owner.ranking.move(share, share.items.size - 1, share.items.size)
    owner.count += 1
    this.#ranking.move(owner, owner.count - 1, owner.count)
    if (owner.peers.size > this.#limits.peersPerAddressMax) this.#evictSilentPeer(owner)
    while (this.#evictOldest(this.#victim(share, 0)));
  }

  /** Makes the item the latest one of its peer. */
  refresh({ share, node }: Item): void {
    if (share === undefined || node === undefined) return
    share.items.moveToEnd(node)
    makeLatest(share)
  }

  remove(item: Item): void {
    const { share, node } = item
    if (share === undefined || node === undefined) return
    const { owner } = share
    share.items.remove(node)
    item.share = undefined
    item.node = undefined
    share.size -= item.size
    this.#count -= 1
    this.#grow(owner, -item.size)
    owner.ranking.move(share, share.items.size + 1, share.items.size)
    owner.count -= 1
    this.#ranking.move(owner, owner.count + 1, owner.count)
    if (share.items.size > 0) return
    this.#grow(owner, -this.#limits.holderSize)
    owner.peers.delete(share.peerId)
    if (owner.latest === share) owner.latest = undefined
    if (owner.peers.size === 0) this.#addresses.delete(owner.address)
  }

  /** Removes the items for which the check is true; it holds for all items of a peer that are older, too. */
  removeWhile(isOver: (item: Item) => boolean, onRemoved: (item: Item) => void): void {
    for (const { peers } of this.#addresses.values()) {
      for (const { items } of peers.values()) {
        for (let item = items.first; item !== undefined && isOver(item); item = items.first) {
          this.remove(item)
          onRemoved(item)
        }
      }
    }
  }

  #shareOf(address: string, peerId: string): PeerShare<Item> {
    let owner = this.#addresses.get(address)
    if (owner === undefined) {
      owner = {
        address,
        peers: new Map(),
        latest: undefined,
        ranking: new SizeRanking(),
        count: 0,
        size: 0,
        rank: undefined,
      }
      this.#addresses.set(address, owner)
    }
    const existing = owner.peers.get(peerId)
    if (existing !== undefined) {
      makeLatest(existing)
      return existing
    }
    const share = { peerId, owner, items: new LinkedList<Item>(), size: 0, nextReplacementMs: 0, rank: undefined }
    this.#grow(owner, this.#limits.holderSize)
    owner.peers.set(peerId, share)
    owner.latest = share
    return share
  }

  #grow(owner: AddressShare<Item>, size: number): void {
    owner.size += size
    this.#size += size
  }

  /** The peer whose item is evicted when the peer of this share adds this size. Undefined: there is room. */
  #victim(share: PeerShare<Item>, size: number): PeerShare<Item> | undefined {
    const { totalMax, addressMax, peerMax } = this.#limits
    if (share.size + size > peerMax) return share
    if (share.owner.size + size > addressMax) return share.owner.ranking.largest
    if (this.#size + size > totalMax) return this.#ranking.largest?.ranking.largest
    return undefined
  }

  #evictSilentPeer(owner: AddressShare<Item>): void {
    const silent = owner.peers.values().next().value
    for (let count = silent?.items.size ?? 0; count > 0; count--) this.#evictOldest(silent)
  }

  #evictOldest(share: PeerShare<Item> | undefined): boolean {
    const oldest = share?.items.first
    if (oldest === undefined) return false
    this.remove(oldest)
    this.#onEvict(oldest)
    return true
  }
}

/** The peer is the last one of its address to be evicted. Deleting and inserting again leaves garbage: only where needed. */
function makeLatest<Item>(share: PeerShare<Item>): void {
  const { owner, peerId } = share
  if (owner.latest === share) return
  owner.peers.delete(peerId)
  owner.peers.set(peerId, share)
  owner.latest = share
}
