/** When a round's times cannot be trusted, and what would help. */
import type { ImageSet } from '../target.ts'
import type { Phase } from '../result/schema.ts'

export const stealPercentMax = 2
export const busyPercentMax = 85

/** Reasons; none: a good round. */
export function noiseOf(phases: Readonly<Record<string, Phase | undefined>>): string[] {
  return Object.entries(phases).flatMap(([name, phase]) => {
    const { stealPercent = 0, busyPercent = 0 } = phase?.cpu ?? {}
    return [
      ...(stealPercent > stealPercentMax ? [`${name}: the host took ${stealPercent.toFixed(1)} % of the CPU`] : []),
      ...(busyPercent > busyPercentMax
        ? [`${name}: the CPU was ${busyPercent.toFixed(0)} % busy: ${busyAdvice}`]
        : []),
    ]
  })
}

const busyAdvice = 'fewer --nodes, a lower --upstream-rate or a lower --node-rate would help'

/** What the nodes keep in the middle of a round: compressed and unpacked, of two versions; and the registry. */
export function roundBytes(images: readonly ImageSet[], nodes: number): number {
  const sizes = images.map(({ create, update }) =>
    [...create, ...update].reduce((sum, source) => sum + (source.kind === 'generated' ? source.sizeBytes : 0), 0),
  )
  return (2 * nodes + 2) * Math.max(0, ...sizes)
}

/** Undefined: enough memory for one round to stay in the page cache. */
export function memoryWarning(images: readonly ImageSet[], nodes: number, memoryGiB: number): string | undefined {
  const neededGiB = roundBytes(images, nodes) / 2 ** 30
  if (neededGiB < memoryGiB) return undefined
  return `one round moves ${neededGiB.toFixed(0)} GiB, the machine has ${memoryGiB} GiB of memory: the disk will be measured too. Fewer --nodes or smaller --images would help`
}
