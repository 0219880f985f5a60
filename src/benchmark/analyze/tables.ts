/** The tables of a report. */
import {
  type Cell,
  type Metric,
  cells,
  goodPulls,
  lastNode,
  meanPull,
  middle,
  mirrorCpu,
  rollout,
  spreadText,
  upstreamShare,
} from './cells.ts'
import { type Comparison, allImages, compareMirrors, levelOfRows, pullRow } from './comparison.ts'
import { bytesText, milliseconds, significant, trimmed } from './format.ts'
import type { Measurements, PhaseRun } from './measurements.ts'
import { published, publishedSource } from './published.ts'
import { median } from './statistics.ts'
import type { Table } from './table.ts'
import { improvement, percent } from './verdict.ts'

const nothing = '–'
/** Longer names stand in the title only. */
const longestNames = 60

const stretch: Metric = { ...lastNode, name: 'stretch', unit: '', of: ({ measured }) => measured.stretch }
const peerBytes: Metric = { ...upstreamShare, name: 'peer bytes', unit: '', of: ({ measured }) => measured.peerBytes }
const peakRss: Metric = {
  ...mirrorCpu,
  name: 'peak RSS',
  unit: '',
  of: ({ measured }) => {
    const peaks = measured.mirror?.peakRssBytes ?? []
    return peaks.length === 0 ? undefined : Math.max(...peaks)
  },
}
const containerdCpu: Metric = {
  ...mirrorCpu,
  name: 'containerd CPU',
  unit: 's',
  of: ({ measured }) => measured.containerdCpuSeconds,
}

/** Image by image: the baseline, each mirror, what was published, and what is possible without sharing in a wave. */
export function pullTable(measurements: Measurements): Table {
  const all = cells(measurements)
  const [baseline = '', ...others] = measurements.mirrors
  const comparisons = new Map(others.map((other) => [other, compareMirrors(measurements, baseline, other)]))
  const ceiling = `${percent(1 - measurements.waveSize / measurements.nodeCount)} %`
  // With nothing to compare the baseline stands alone.
  const shown = others.length === 0 ? [baseline] : others
  const rows = all
    .filter(({ mirror }) => shown.includes(mirror))
    .map((cell) => {
      const { image, phase, mirror } = cell
      const base = all.find((other) => other.image === image && other.phase === phase && other.mirror === baseline)
      const comparison = comparisons.get(mirror)
      const row = comparison === undefined ? undefined : pullRow(comparison, image, phase)
      const gain = row === undefined ? nothing : improvement(row.baseline, row.other, row.estimate)
      return [
        image,
        phase,
        mirror,
        marked(base),
        marked(cell),
        gain,
        phase === 'update' ? publishedText(image) : nothing,
        phase === 'update' ? ceiling : nothing,
      ]
    })
  const [comparison] = comparisons.values()
  return {
    title: 'Mean pull time over the nodes',
    head: [
      'image',
      'phase',
      'mirror',
      `baseline (${baseline}) ms`,
      'mirror ms',
      'improvement %',
      'published ms → ms',
      'ceiling',
    ],
    wordColumns: 3,
    rows,
    notes: [
      measurements.hasRounds
        ? 'Times: the median over the good rounds, in brackets the fastest and the slowest round.'
        : 'Times: the mean over the nodes of a single run.',
      ...(comparison === undefined
        ? []
        : [
            measurements.hasRounds
              ? 'Improvement: (baseline − mirror) ÷ baseline, the geometric mean over the rounds, so it may differ a little from what the two medians give.'
              : 'Improvement: (baseline − mirror) ÷ baseline.',
            `Its interval: ${comparison.method}: ${levelOfRows(comparison)}.`,
          ]),
      `Published: ${publishedSource}. Other machines, other links: for orientation only.`,
      `Ceiling: the most that an update can improve when the nodes of a wave do not share with each other: 1 − ${measurements.waveSize} ÷ ${measurements.nodeCount} nodes. Create has none.`,
      ...(all.some(({ onlyNoisy }) => onlyNoisy) ? ['*: there are noisy rounds only.'] : []),
      ...(all.some(hasFailures) ? ['†: pulls failed; the time is that of the others, which may flatter it.'] : []),
    ],
  }
}

/** What it cost: last node, bytes, CPU, memory. Medians over the same rounds. */
export function costTable(measurements: Measurements): Table {
  const rows = cells(measurements).map((cell) => [
    cell.image,
    cell.phase,
    cell.mirror,
    spreadText(cell, lastNode, significant),
    spreadText(cell, rollout, significant),
    spreadText(cell, stretch, significant),
    spreadText(cell, upstreamShare, significant),
    known(middle(cell, peerBytes), bytesText),
    spreadText(cell, mirrorCpu, significant),
    known(middle(cell, peakRss), bytesText),
    known(middle(cell, containerdCpu), significant),
    failedText(cell.used),
  ])
  return {
    title: 'What it cost',
    head: [
      'image',
      'phase',
      'mirror',
      'last node s',
      'roll-out s',
      'stretch',
      'upstream ÷ image',
      'peer bytes',
      'mirror CPU s/GiB',
      'peak RSS',
      'containerd CPU s',
      'failed pulls',
    ],
    wordColumns: 3,
    rows,
    notes: [
      'Last node: from the first pull call to the end of the last pull. Roll-out: in a cluster, from the change of the DaemonSet until all pods are available. Stretch: the last layer in the last node, against how fast the links allow it at best.',
      'Upstream ÷ image: 1 is each byte fetched once; without a mirror it is the number of nodes. Peak RSS: of the largest mirror.',
      `${nothing}: not measured.`,
    ],
  }
}

/** What the registry was asked, by kind, method and status. Undefined when nobody counted. */
export function requestTable(measurements: Measurements): Table | undefined {
  const counted = cells(measurements).filter(({ used }) =>
    used.some(({ measured }) => measured.upstream.requests !== undefined),
  )
  const keys = [
    ...new Set(counted.flatMap(({ used }) => used.flatMap((run) => [...requestCounts(run).keys()]))),
  ].sort()
  if (keys.length === 0) return undefined
  return {
    title: 'Requests to the upstream registry',
    head: ['image', 'phase', 'mirror', ...keys],
    wordColumns: 3,
    rows: counted.map((cell) => [
      cell.image,
      cell.phase,
      cell.mirror,
      ...keys.map((key) => trimmed(median(cell.used.map((run) => requestCounts(run).get(key) ?? 0)))),
    ]),
    notes: ['Medians over the same rounds. tag, manifest (by digest), blob: what was asked for.'],
  }
}

export function comparisonTable(comparison: Comparison): Table {
  const { baseline, other, method, warnings, rows } = comparison
  const isShort = baseline.length + other.length < longestNames
  const columnNames = isShort ? [baseline, other] : ['baseline', 'compared']
  return {
    title: `${other} against ${baseline}`,
    head: ['metric', 'image', 'phase', 'verdict', ...columnNames],
    wordColumns: 4,
    rows: rows.map(({ metric, image, phase, ...row }) => [
      `${metric.name} ${metric.unit}`,
      image,
      phase,
      row.verdict,
      significant(row.baseline),
      significant(row.other),
    ]),
    notes: [
      ...warnings,
      `Intervals: ${method}: ${levelOfRows(comparison)}.`,
      ...(rows.some(({ image }) => image === allImages)
        ? [`${allImages}: the geometric mean over the images, round by round.`]
        : []),
      'no difference seen (± x %): the interval contains "equal"; a difference smaller than about x % could not have been seen.',
    ],
  }
}

/** Every round, good or not. */
export function roundTable(measurements: Measurements): Table {
  const used = new Set(cells(measurements).flatMap((cell) => cell.used))
  return {
    title: 'Every round',
    head: [
      'image',
      'phase',
      'mirror',
      'used',
      'noise',
      'round',
      'attempt',
      'mean ms',
      'last node s',
      'upstream ÷ image',
      'busy %',
      'steal %',
      'failed pulls',
    ],
    wordColumns: 5,
    rows: measurements.runs.map((run) => [
      run.image,
      run.phase,
      run.mirror,
      used.has(run) ? 'yes' : 'no',
      run.round === 0 ? 'warm-up' : run.noise.join('; '),
      String(run.round),
      String(run.attempt),
      known(meanPull.of(run), ms),
      known(lastNode.of(run), significant),
      known(upstreamShare.of(run), significant),
      known(run.measured.cpu?.busyPercent, significant),
      known(run.measured.cpu?.stealPercent, significant),
      failedText([run]),
    ]),
    notes: [],
  }
}

function marked(cell: Cell | undefined): string {
  const marks = cell === undefined ? '' : `${cell.onlyNoisy ? ' *' : ''}${hasFailures(cell) ? ' †' : ''}`
  return `${spreadText(cell, meanPull, ms)}${marks}`
}

function hasFailures({ used }: Cell): boolean {
  return used.some(({ measured }) => measured.pulls.some(({ error }) => error !== undefined))
}

function ms(value: number): string {
  return milliseconds(value * 1e6)
}

function known(value: number | undefined, format: (value: number) => string): string {
  return value === undefined || Number.isNaN(value) ? nothing : format(value)
}

function publishedText(image: string): string {
  const row = published.get(image)
  if (row === undefined) return nothing
  return `${row.baselineMs} → ${row.spegelMs} (${percent(1 - row.spegelMs / row.baselineMs)} %)`
}

function failedText(runs: readonly PhaseRun[]): string {
  const pulls = runs.flatMap(({ measured }) => measured.pulls)
  const failed = pulls.length - goodPulls(pulls).length
  return failed === 0 ? '0' : `${failed} of ${pulls.length}`
}

function requestCounts({ measured }: PhaseRun): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { kind, method, status, count } of measured.upstream.requests ?? []) {
    const key = `${kind} ${method} ${status}`
    counts.set(key, (counts.get(key) ?? 0) + count)
  }
  return counts
}
