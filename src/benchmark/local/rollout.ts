/** Who pulls when, without a scene: all at once, then the update in waves. */
import type { PhaseName } from '../result/schema.ts'
import type { Arrival } from './pull-phase.ts'

/** Nodes and images are indices. */
export function rollout(
  phase: PhaseName,
  { nodes, images, waveSize, staggerMs }: { nodes: number; images: number; waveSize: number; staggerMs: number },
): Arrival[] {
  return Array.from({ length: nodes * images }, (_, index) => {
    const node = Math.floor(index / images)
    const image = index % images
    if (phase === 'update') return { wave: Math.floor(node / waveSize) + 1, node, image, delayMs: 0 }
    return { wave: 1, node, image, delayMs: (staggerMs * node) / Math.max(1, nodes - 1) }
  })
}
