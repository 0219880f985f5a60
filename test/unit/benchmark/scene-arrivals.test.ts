import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Arrival, arrivals, prepared } from '../../../src/benchmark/scene/arrivals.ts'
import type { ScenePhase } from '../../../src/benchmark/scene/scene.ts'
import { type NodeSet, nodesIn } from '../../../src/benchmark/scene/units.ts'
import { seededRandom } from '../../../src/lib/random.ts'
import { printedSeed } from '../../support/seed.ts'

const seed = printedSeed('arrivals')

/** As `node/image@wave+ms`. */
function plan(phase: Partial<ScenePhase>, nodes: number, images = 1, name: 'create' | 'update' = 'create'): string[] {
  const setUp = { nodes, images }
  return arrivals(name, { prepare: [], ...phase }, setUp, seededRandom(1)).map(spelled)
}

function spelled({ node, image, wave, atMs }: Arrival): string {
  return `${node}/${image}@${wave}+${atMs}`
}

describe('arrivals', () => {
  it('are together in a create, and in waves of 20 % in an update, unless the scene says otherwise', () => {
    expect(plan({}, 3)).toEqual(['1/1@1+0', '2/1@1+0', '3/1@1+0'])
    expect(plan({}, 7, 1, 'update')).toEqual([1, 1, 2, 2, 3, 3, 4].map((wave, index) => `${index + 1}/1@${wave}+0`))
    expect(plan({ arrival: 'together' }, 7, 1, 'update')).toHaveLength(7)
    expect(plan({ arrival: 'together' }, 2, 1, 'update')).toEqual(['1/1@1+0', '2/1@1+0'])
  })

  it('are spread evenly, from the first to the last node', () => {
    expect(plan({ arrival: { stagger: 900, spacing: 'even' } }, 4)).toEqual([
      '1/1@1+0',
      '2/1@1+300',
      '3/1@1+600',
      '4/1@1+900',
    ])
    expect(plan({ arrival: { stagger: 900, spacing: 'even' } }, 1)).toEqual(['1/1@1+0'])
  })

  it('are spread at random by the seed', () => {
    const spread = (randomSeed: number) =>
      arrivals(
        'create',
        { arrival: { stagger: 900, spacing: 'random' }, prepare: [] },
        { nodes: 4, images: 1 },
        seededRandom(randomSeed),
      )
    expect(spread(1)).toEqual(spread(1))
    expect(spread(1)).not.toEqual(spread(2))
    expect(new Set(spread(1).map(({ atMs }) => atMs)).size).toBe(4)
  })

  it('come in waves of a number, or of a part of all nodes, rounded up', () => {
    const waves = (count: { first: number } | { firstPercent: number }, nodes: number) =>
      arrivals('create', { arrival: { waves: count }, prepare: [] }, { nodes, images: 1 }, () => 0).map(
        ({ wave }) => wave,
      )
    expect(waves({ first: 2 }, 5)).toEqual([1, 1, 2, 2, 3])
    expect(waves({ firstPercent: 30 }, 5)).toEqual([1, 1, 2, 2, 3])
    expect(waves({ firstPercent: 1 }, 3)).toEqual([1, 2, 3])
    // 7 of 100, although 0.07 × 100 is more than 7.
    expect(waves({ firstPercent: 7 }, 100).filter((wave) => wave === 1)).toHaveLength(7)
  })

  it('are of the images that a node is to pull, each once, and not of those that it has', () => {
    const pulls = [
      { nodes: 'odd' as const, images: [1] },
      { nodes: 'even' as const, images: [2] },
      { nodes: [1], images: [1, 2] },
    ]
    expect(plan({ pulls }, 4, 2)).toEqual(['1/1@1+0', '1/2@1+0', '2/2@1+0', '3/1@1+0', '4/2@1+0'])
    const prepare = [
      { nodes: [1], images: [1] },
      { nodes: { firstPercent: 50 }, images: [2] },
    ]
    expect(plan({ pulls, prepare }, 4, 2)).toEqual(['3/1@1+0', '4/2@1+0'])
    expect(prepared({ prepare }, { nodes: 4, images: 2 })).toEqual([
      { node: 1, image: 1 },
      { node: 1, image: 2 },
      { node: 2, image: 2 },
    ])
  })

  it('leave no gap where nodes have it already', () => {
    const prepare = [{ nodes: [1, 3] }]
    expect(plan({ prepare, arrival: { waves: { first: 1 } } }, 4)).toEqual(['2/1@1+0', '4/1@2+0'])
    expect(plan({ prepare, arrival: { stagger: 500, spacing: 'even' } }, 4)).toEqual(['2/1@1+0', '4/1@1+500'])
  })
})

describe('arrivals of any phase', () => {
  const set = fc.oneof(
    fc.constantFrom<NodeSet>('all', 'odd', 'even'),
    fc.record({ first: fc.integer({ min: 1, max: 30 }) }),
    fc.record({ firstPercent: fc.integer({ min: 1, max: 100 }) }),
    fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 5 }),
  )
  const entries = fc.array(
    fc.record({ nodes: set, images: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1 }) }),
    {
      minLength: 1,
      maxLength: 3,
    },
  )
  const arrival = fc.oneof(
    fc.constant('together' as const),
    fc.record({
      stagger: fc.integer({ min: 0, max: 60_000 }),
      spacing: fc.constantFrom('even' as const, 'random' as const),
    }),
    fc.record({
      waves: fc.oneof(
        fc.record({ first: fc.integer({ min: 1, max: 9 }) }),
        fc.record({ firstPercent: fc.integer({ min: 1, max: 100 }) }),
      ),
    }),
  )
  const phase = fc.record({ arrival, pulls: entries, prepare: entries })

  it('are what was wanted less what is there, begin at 0, keep within the time and fill every wave but the last', () => {
    fc.assert(
      fc.property(phase, fc.integer({ min: 1, max: 30 }), fc.integer(), (given, nodes, chance) => {
        const setUp = { nodes, images: 3 }
        const planned = arrivals('create', given, setUp, seededRandom(chance))
        const keys = (of: typeof given.pulls) =>
          of.flatMap((entry) =>
            nodesIn(entry.nodes, nodes).flatMap((node) => entry.images.map((image) => `${node}/${image}`)),
          )
        const held = new Set(keys(given.prepare))
        const wanted = new Set(keys(given.pulls).filter((key) => !held.has(key)))
        expect(new Set(planned.map(({ node, image }) => `${node}/${image}`))).toEqual(wanted)
        expect(planned).toHaveLength(wanted.size)
        if (planned.length === 0) return
        expect(planned[0]).toMatchObject({ wave: 1, atMs: 0 })
        const whens = new Map(planned.map(({ node, wave, atMs }) => [node, { wave, atMs }]))
        for (const { node, wave, atMs } of planned) expect({ wave, atMs }).toEqual(whens.get(node))
        const timeMs = typeof given.arrival === 'object' && 'stagger' in given.arrival ? given.arrival.stagger : 0
        for (const { atMs } of whens.values()) expect(atMs >= 0 && atMs <= timeMs).toBe(true)
        const size = new Map<number, number>()
        for (const { wave } of whens.values()) size.set(wave, (size.get(wave) ?? 0) + 1)
        const sizes = [...size.values()]
        expect([...size.keys()]).toEqual(sizes.map((_, index) => index + 1))
        expect(new Set(sizes.slice(0, -1)).size).toBeLessThanOrEqual(1)
        expect(sizes.at(-1)).toBeLessThanOrEqual(sizes[0] ?? 0)
      }),
      { seed, numRuns: 500 },
    )
  })
})
