/** Which of many holders has the most, kept up to date while the amounts change by one. */
import { LinkedList, type ListNode } from './linked-list.ts'

/** An item of a ranking. Only the ranking uses the field. */
export interface Ranked<Item> {
  rank: ListNode<Item> | undefined
}

/** Items ranked by a size that changes in steps of one. The largest item is known without a scan. */
export class SizeRanking<Item extends Ranked<Item>> {
  readonly #bySize = new Map<number, LinkedList<Item>>()
  #largestSize = 0

  /** Of the items with the largest size, the one that has had this size for the longest time. */
  get largest(): Item | undefined {
    return this.#bySize.get(this.#largestSize)?.first
  }

  /** The size of an item changed by one. Items of size 0 are not kept. */
  move(item: Item, from: number, to: number): void {
    const old = item.rank?.list
    const next = this.#bySize.get(to)
    if (old?.size === 1 && next === undefined && to > 0) {
      // The list moves with its only item: no allocation while one holder grows.
      this.#bySize.delete(from)
      this.#bySize.set(to, old)
    } else {
      if (item.rank !== undefined) old?.remove(item.rank)
      if (old?.size === 0) this.#bySize.delete(from)
      item.rank = to > 0 ? this.#list(to).push(item) : undefined
    }
    if (to > this.#largestSize || (from === this.#largestSize && !this.#bySize.has(from))) this.#largestSize = to
  }

  #list(size: number): LinkedList<Item> {
    const existing = this.#bySize.get(size)
    if (existing !== undefined) return existing
    const list = new LinkedList<Item>()
    this.#bySize.set(size, list)
    return list
  }
}
