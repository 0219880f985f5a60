/** One image, phase and mirror: which rounds are used, and what each of them measured. */
import type { PhaseName, Pull } from '../result/schema.ts'
import { type Measurements, type PhaseRun, phaseNames } from './measurements.ts'
import { mean, median } from './statistics.ts'

export interface Cell {
  image: string
  phase: PhaseName
  mirror: string
  /** The good rounds; noisy ones only if there are no others. */
  used: readonly PhaseRun[]
  onlyNoisy: boolean
}

export interface Metric {
  name: string
  unit: string
  less: string
  more: string
  /** Undefined: not measured. */
  of(run: PhaseRun): number | undefined
}

export const meanPull: Metric = {
  name: 'mean pull',
  unit: 'ms',
  less: 'faster',
  more: 'slower',
  of: ({ measured }) => {
    const durations = goodPulls(measured.pulls).map(({ duration }) => duration / 1e6)
    return durations.length === 0 ? undefined : mean(durations)
  },
}

export const lastNode: Metric = {
  name: 'last node',
  unit: 's',
  less: 'faster',
  more: 'slower',
  // Pulls that fail at once are no fast ones.
  of: ({ measured }) => (hasFailed(measured.pulls) ? undefined : measured.duration / 1e9),
}

export const rollout: Metric = {
  name: 'roll-out',
  unit: 's',
  less: 'faster',
  more: 'slower',
  of: ({ measured }) => (measured.rollout === undefined ? undefined : measured.rollout / 1e9),
}

export const upstreamShare: Metric = {
  name: 'upstream ÷ image',
  unit: '×',
  less: 'less',
  more: 'more',
  of: ({ measured: { upstream, imageBytes, pulls } }) => {
    if (hasFailed(pulls)) return undefined
    const sent = upstream.linkBytes ?? upstream.blobBytes
    return sent === undefined || imageBytes === 0 ? undefined : sent / imageBytes
  },
}

export const mirrorCpu: Metric = {
  name: 'mirror CPU',
  unit: 's/GiB',
  less: 'less',
  more: 'more',
  of: ({ measured }) => measured.mirror?.cpuSecondsPerGiB,
}

export const comparedMetrics: readonly Metric[] = [meanPull, lastNode, rollout, upstreamShare, mirrorCpu]

export function goodPulls(pulls: readonly Pull[]): Pull[] {
  return pulls.filter(({ error }) => error === undefined)
}

function hasFailed(pulls: readonly Pull[]): boolean {
  return goodPulls(pulls).length < pulls.length
}

/** In the order of images, phases, mirrors; without those that were not measured. */
export function cells({ images, mirrors, runs }: Measurements): Cell[] {
  return images.flatMap((image) =>
    phaseNames.flatMap((phase) =>
      mirrors.flatMap((mirror) => {
        const own = runs.filter((run) => run.image === image && run.phase === phase && run.mirror === mirror)
        const used = usedRuns(own)
        if (used.length === 0) return []
        return [{ image, phase, mirror, used, onlyNoisy: !used.every(isGood) }]
      }),
    ),
  )
}

function usedRuns(runs: readonly PhaseRun[]): PhaseRun[] {
  const good = runs.filter(isGood)
  return good.length > 0 ? good : lastAttempts(runs.filter(({ round }) => round > 0))
}

export function isGood({ counts, noise }: PhaseRun): boolean {
  return counts && noise.length === 0
}

/** What the rounds measured, those without the metric left out. */
export function samples(cell: Cell, metric: Metric): number[] {
  return cell.used.map((run) => metric.of(run)).filter((value) => value !== undefined)
}

/** Median over rounds. NaN: not measured. */
export function middle(cell: Cell | undefined, metric: Metric): number {
  return cell === undefined ? Number.NaN : median(samples(cell, metric))
}

/** Median and range over rounds. */
export function spreadText(cell: Cell | undefined, metric: Metric, format: (value: number) => string): string {
  const values = cell === undefined ? [] : samples(cell, metric)
  if (values.length === 0) return '–'
  const [low, high] = [format(Math.min(...values)), format(Math.max(...values))]
  return low === high ? low : `${format(median(values))} (${low} – ${high})`
}

/** The round in the middle by mean pull time: it stands for the cell where only one can be shown. */
export function medianRun({ used }: Cell): PhaseRun | undefined {
  const sorted = used
    .map((run) => ({ run, value: meanPull.of(run) ?? Number.POSITIVE_INFINITY }))
    .sort((a, b) => a.value - b.value)
  return sorted[Math.ceil(sorted.length / 2) - 1]?.run
}

/** Repeated rounds have several; the last one is the one that was kept. */
function lastAttempts(runs: readonly PhaseRun[]): PhaseRun[] {
  return runs.filter((run) => !runs.some(({ round, attempt }) => round === run.round && attempt > run.attempt))
}
