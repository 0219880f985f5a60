import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FairShare, type SharedItem, type ShareLimits } from '../../../src/router/fair-share.ts'

interface Item extends SharedItem<Item> {
  readonly name: string
}

const itemSize = 100
const holderSize = 1_000

/** Room for so many items, those of all holders included. */
const roomFor = (items: number, peers: number) => items * itemSize + peers * holderSize

const unlimited: ShareLimits = {
  totalMax: Infinity,
  addressMax: Infinity,
  peerMax: Infinity,
  peersPerAddressMax: Infinity,
  holderSize,
  replacementMs: 0,
}

class Scenario {
  readonly kept = new Set<string>()
  readonly evicted: string[] = []
  nowMs = 1
  readonly share: FairShare<Item>

  constructor(limits: Partial<ShareLimits>) {
    this.share = new FairShare<Item>({ ...unlimited, ...limits }, ({ name }) => {
      this.evicted.push(name)
      this.kept.delete(name)
    })
  }

  add(name: string, address: string, peerId: string): Item {
    const item: Item = { name, size: itemSize, share: undefined, node: undefined }
    if (!this.share.admits(itemSize, address, peerId, this.nowMs)) return item
    this.kept.add(name)
    this.share.add(item, address, peerId)
    return item
  }

  addMany(count: number, address: string, peerId: string): void {
    for (let index = 0; index < count; index++) this.add(`${peerId}-${index}`, address, peerId)
  }
}

describe('a fair share', () => {
  it('evicts the oldest item of the largest peer of the largest address when all is full', () => {
    const scenario = new Scenario({ totalMax: roomFor(9, 4) })
    scenario.addMany(2, '10.0.0.1', 'honest')
    scenario.addMany(3, '10.0.0.66', 'small')
    scenario.addMany(4, '10.0.0.66', 'large')
    expect(scenario.evicted).toEqual([])
    scenario.add('first', '10.0.0.2', 'newcomer')
    expect(scenario.evicted).toEqual(['large-0'])
  })

  it('lets a peer that exceeds its share evict only its own items', () => {
    const scenario = new Scenario({ peerMax: 3 * itemSize })
    scenario.addMany(3, '10.0.0.1', 'honest')
    scenario.addMany(5, '10.0.0.1', 'flooder')
    expect(scenario.evicted).toEqual(['flooder-0', 'flooder-1'])
  })

  it('drops the items of a full peer between two replacements, and takes those of others', () => {
    const scenario = new Scenario({ peerMax: 2 * itemSize, replacementMs: 10 })
    scenario.addMany(5, '10.0.0.66', 'flooder')
    expect([...scenario.kept]).toEqual(['flooder-1', 'flooder-2'])
    scenario.add('a', '10.0.0.66', 'behind the same address')
    scenario.nowMs += 10
    scenario.add('b', '10.0.0.66', 'flooder')
    expect([...scenario.kept]).toEqual(['flooder-2', 'a', 'b'])
  })

  it('evicts an item that was refreshed after the others', () => {
    const scenario = new Scenario({ peerMax: 2 * itemSize })
    const first = scenario.add('first', '10.0.0.1', 'peer')
    scenario.add('second', '10.0.0.1', 'peer')
    scenario.share.refresh(first)
    scenario.add('third', '10.0.0.1', 'peer')
    expect(scenario.evicted).toEqual(['second'])
  })

  it('lets an address that exceeds its share evict the items of its largest peer', () => {
    const scenario = new Scenario({ addressMax: roomFor(5, 2) })
    scenario.addMany(5, '10.0.0.1', 'honest')
    scenario.addMany(3, '10.0.0.66', 'flooder')
    scenario.addMany(2, '10.0.0.66', 'behind the same address')
    scenario.add('one more', '10.0.0.66', 'behind the same address')
    expect(scenario.evicted).toEqual(['flooder-0'])
  })

  it('evicts the peer of an address that was silent for the longest time when there are too many', () => {
    const scenario = new Scenario({ peersPerAddressMax: 2 })
    scenario.add('a', '10.0.0.1', 'first')
    scenario.add('b', '10.0.0.1', 'second')
    scenario.add('c', '10.0.0.1', 'first')
    scenario.add('d', '10.0.0.1', 'third')
    scenario.add('e', '10.0.0.2', 'elsewhere')
    expect(scenario.evicted).toEqual(['b'])
  })

  it('removes items that are over, and frees their share', () => {
    const scenario = new Scenario({})
    scenario.addMany(3, '10.0.0.1', 'peer')
    const removed: string[] = []
    scenario.share.removeWhile(
      ({ name }) => name !== 'peer-2',
      ({ name }) => removed.push(name),
    )
    expect(removed).toEqual(['peer-0', 'peer-1'])
    expect(scenario.share.size).toBe(roomFor(1, 1))
  })

  it('stays within its bounds, keeps each new item, and takes no item from a small holder', () => {
    const totalMax = roomFor(12, 6)
    const operation = fc.record({
      address: fc.integer({ min: 0, max: 3 }),
      peer: fc.integer({ min: 0, max: 2 }),
      remove: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 120 }), (operations) => {
        const scenario = new Scenario({ totalMax })
        const items: Item[] = []
        for (const [index, { address, peer, remove }] of operations.entries()) {
          const oldest = remove ? items.shift() : undefined
          if (oldest !== undefined && scenario.kept.delete(oldest.name)) scenario.share.remove(oldest)
          const sizes = new Map<string, number>()
          for (const name of scenario.kept) {
            const owner = name.split('/')[0] ?? ''
            sizes.set(owner, (sizes.get(owner) ?? 0) + 1)
          }
          const evictedBefore = scenario.evicted.length
          const name = `10.0.0.${address}/${peer}/${index}`
          items.push(scenario.add(name, `10.0.0.${address}`, `${address}-${peer}`))
          sizes.set(`10.0.0.${address}`, (sizes.get(`10.0.0.${address}`) ?? 0) + 1)
          for (const evicted of scenario.evicted.slice(evictedBefore)) {
            const owner = evicted.split('/')[0] ?? ''
            expect(sizes.get(owner)).toBe(Math.max(...sizes.values()))
            sizes.set(owner, (sizes.get(owner) ?? 0) - 1)
          }
          expect(scenario.share.size).toBeLessThanOrEqual(totalMax)
          expect(scenario.share.count).toBe(scenario.kept.size)
          expect(scenario.kept.has(name)).toBe(true)
        }
      }),
    )
  })
})
