/** Who pulls what when, in a phase of a scene. Pure. */
import type { Random } from '../../lib/random.ts'
import type { Scene, ScenePhase, ScenePhaseName } from './scene.ts'
import { countOf, nodesIn } from './units.ts'

export interface Arrival {
  /** Counted from 1, as images and waves are. */
  node: number
  image: number
  wave: number
  /** Since the begin of the wave: the first begins with the phase, each other one when the one before has ended. */
  atMs: number
}

export interface Holding {
  node: number
  image: number
}

export interface SetUp {
  nodes: number
  images: number
}

/** In order of waves, then of time. A node pulls all of its images at once. */
export function arrivals(name: ScenePhaseName, phase: ScenePhase, setUp: SetUp, random: Random): Arrival[] {
  const held = new Set(prepared(phase, setUp).map(keyOf))
  const wanted = pairs(phase.pulls ?? [{ nodes: 'all' }], setUp).filter((pair) => !held.has(keyOf(pair)))
  const nodes = [...new Set(wanted.map(({ node }) => node))].sort((a, b) => a - b)
  const whens = times(name, phase, nodes.length, setUp.nodes, random)
  return nodes
    .flatMap((node, index) => {
      const { wave, atMs } = whens[index] ?? { wave: 1, atMs: 0 }
      return wanted.filter((pair) => pair.node === node).map(({ image }) => ({ node, image, wave, atMs }))
    })
    .sort((a, b) => a.wave - b.wave || a.atMs - b.atMs || a.node - b.node || a.image - b.image)
}

/** How many nodes an update begins with. */
export function firstWave({ images, phases }: Scene, nodes: number): number {
  const first = arrivals('update', phases.update ?? { prepare: [] }, { nodes, images: images.length }, () => 0)
  return new Set(first.filter(({ wave }) => wave === 1).map(({ node }) => node)).size
}

/** What nodes have before the phase begins. */
export function prepared(phase: ScenePhase, setUp: SetUp): Holding[] {
  return pairs(phase.prepare, setUp)
}

/** One for each of the nodes that pull, which are fewer than all of them where some have it already. */
function times(
  name: ScenePhaseName,
  phase: ScenePhase,
  pulling: number,
  nodes: number,
  random: Random,
): { wave: number; atMs: number }[] {
  const arrival = phase.arrival ?? (name === 'create' ? 'together' : { waves: { firstPercent: 20 } })
  const indexes = Array.from({ length: pulling }, (_, index) => index)
  if (arrival === 'together') return indexes.map(() => ({ wave: 1, atMs: 0 }))
  if ('waves' in arrival) {
    const size = countOf(arrival.waves, nodes)
    return indexes.map((index) => ({ wave: 1 + Math.floor(index / size), atMs: 0 }))
  }
  const { stagger, spacing } = arrival
  const evenly = indexes.map((index) => (pulling === 1 ? 0 : (index * stagger) / (pulling - 1)))
  const atMs = spacing === 'even' ? evenly : fromZero(indexes.map(() => random() * stagger))
  return atMs.map((ms) => ({ wave: 1, atMs: ms }))
}

/** A phase begins with its first pull call. */
function fromZero(atMs: readonly number[]): number[] {
  const first = Math.min(...atMs)
  return atMs.map((ms) => ms - first)
}

/** Each pair once. */
function pairs(
  entries: readonly { nodes: Parameters<typeof nodesIn>[0]; images?: number[] | undefined }[],
  setUp: SetUp,
) {
  const every = Array.from({ length: setUp.images }, (_, index) => index + 1)
  const all = entries.flatMap((entry) =>
    nodesIn(entry.nodes, setUp.nodes).flatMap((node) =>
      (entry.images ?? every).map((image): Holding => ({ node, image })),
    ),
  )
  return [...new Map(all.map((pair) => [keyOf(pair), pair])).values()]
}

function keyOf({ node, image }: Holding): string {
  return `${node}/${image}`
}
