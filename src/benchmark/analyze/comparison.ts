/** Two mirrors of one result, or two results: each metric, image by image, with an interval and a verdict. */
import { type Cell, type Metric, cells, comparedMetrics, goodPulls, meanPull } from './cells.ts'
import { type Measurements, type PhaseRun, phaseNames } from './measurements.ts'
import { type RatioEstimate, levelPerRow, median, pairedRatio, ratioOfMeans, welchRatio } from './statistics.ts'
import { verdict } from './verdict.ts'

/** In place of an image's name: the geometric mean over the images, round by round. */
export const allImages = 'all images'

export interface ComparisonRow {
  metric: Metric
  image: string
  phase: string
  baseline: number
  other: number
  estimate: RatioEstimate | undefined
  /** Of the interval, such as 0.995. */
  level: number
  verdict: string
}

export interface Comparison {
  baseline: string
  other: string
  /** How intervals were made, in one sentence. */
  method: string
  /** What makes the comparison doubtful. */
  warnings: readonly string[]
  rows: ComparisonRow[]
}

/** One side of a row: a value per round (by its number), or per node of a single run. */
interface Side {
  byRound: ReadonlyMap<number, number>
  /** Pull times of the nodes, where there is only one round. */
  ofNodes: readonly number[]
}

type Estimator = (baseline: Side, other: Side, level: number) => RatioEstimate | undefined

const levelText = '95 % for all rows of a metric in this table together (Bonferroni)'

export function compareMirrors(measurements: Measurements, baseline: string, other: string): Comparison {
  const all = cells(measurements)
  const [a, b] = [all.filter(({ mirror }) => mirror === baseline), all.filter(({ mirror }) => mirror === other)]
  const method = measurements.hasRounds
    ? `paired by round, Student's t on the logarithm of the ratio, ${levelText}`
    : `one run each, so Welch's t on the ratio of means over nodes (a single run gives no interval between runs: the next one may differ by more), ${levelText}`
  return { baseline, other, method, warnings: [], rows: compared(a, b, measurements.hasRounds ? paired : unpaired) }
}

/**
 * Mirrors of the same name are compared; if no name is in both, the only mirror of each (beside `none`). Empty: which
 * mirror stands against which cannot be told.
 */
export function compareResults(first: Measurements, second: Measurements): Comparison[] {
  const [ownFirst, ownSecond] = [comparable(first), comparable(second)]
  const [[a, moreA], [b, moreB]] = [ownFirst, ownSecond]
  const shared = first.mirrors.filter((name) => second.mirrors.includes(name)).map((name) => [name, name] as const)
  const pairs =
    shared.length > 0 || a === undefined || b === undefined || moreA !== undefined || moreB !== undefined
      ? shared
      : [[a, b] as const]
  return pairs.map(([nameA, nameB]) => ({
    baseline: `${nameA} in ${first.path}`,
    other: `${nameB} in ${second.path}`,
    method: `Welch's t on logarithms (where a result has one round only, across its nodes: then what differs from run to run is not in the interval), ${levelText}`,
    warnings: differences(first, second),
    rows: compared(
      cells(first).filter(({ mirror }) => mirror === nameA),
      cells(second).filter(({ mirror }) => mirror === nameB),
      unpaired,
    ),
  }))
}

/** What should be the same on both sides, and is not. */
function differences(first: Measurements, second: Measurements): string[] {
  const valueIn = (measurements: Measurements, what: string) =>
    measurements.setUp.find((fact) => fact.what === what)?.value
  const differing = ['machine', 'nodes', 'Kubernetes', 'links, set', 'scene'].filter(
    (what) => valueIn(first, what) !== valueIn(second, what),
  )
  return differing.length === 0
    ? []
    : [`The set-ups differ (${differing.join('; ')}): that alone may make the difference.`]
}

function comparable({ mirrors }: Measurements): readonly string[] {
  return mirrors.length === 1 ? mirrors : mirrors.filter((name) => name !== 'none')
}

/** `99.50 % in each of the 10 rows`, for the rows of mean pull times; other metrics may have fewer rows. */
export function levelOfRows({ rows }: Comparison): string {
  const own = rows.filter(({ metric }) => metric === meanPull)
  return `${(100 * (own[0]?.level ?? 0.95)).toFixed(2)} % in each of the ${own.length} rows of ${meanPull.name}`
}

/** The estimate of mean pull times for one image and phase. */
export function pullRow({ rows }: Comparison, image: string, phase: string): ComparisonRow | undefined {
  return rows.find((row) => row.metric === meanPull && row.image === image && row.phase === phase)
}

function compared(baseline: readonly Cell[], other: readonly Cell[], estimate: Estimator): ComparisonRow[] {
  return comparedMetrics.flatMap((metric) => {
    const rows = baseline.flatMap((a) => {
      const b = other.find(({ image, phase }) => image === a.image && phase === a.phase)
      if (b === undefined) return []
      const [sideA, sideB] = [side(a, metric), side(b, metric)]
      return sideA.byRound.size === 0 || sideB.byRound.size === 0
        ? []
        : [{ image: a.image, phase: a.phase, sideA, sideB }]
    })
    const sums = phaseNames.flatMap((phase) => {
      const own = rows.filter((row) => row.phase === phase)
      const sideA = overImages(own.map((row) => row.sideA))
      const sideB = overImages(own.map((row) => row.sideB))
      return own.length < 2 || sideA.byRound.size < 2 || sideB.byRound.size < 2
        ? []
        : [{ image: allImages, phase, sideA, sideB }]
    })
    const level = levelPerRow(rows.length + sums.length)
    return [...rows, ...sums].map(({ image, phase, sideA, sideB }) => {
      const ratio = estimate(sideA, sideB, level)
      return {
        metric,
        image,
        phase,
        baseline: median([...sideA.byRound.values()]),
        other: median([...sideB.byRound.values()]),
        estimate: ratio,
        level,
        verdict:
          ratio === undefined ? 'no interval: fewer than two samples, or a value of 0' : verdict(ratio, metric),
      }
    })
  })
}

function side(cell: Cell, metric: Metric): Side {
  const [only, more] = cell.used
  return {
    byRound: byRound(cell.used, metric),
    ofNodes:
      metric === meanPull && only !== undefined && more === undefined
        ? goodPulls(only.measured.pulls).map(({ duration }) => duration / 1e6)
        : [],
  }
}

function byRound(runs: readonly PhaseRun[], metric: Metric): Map<number, number> {
  return new Map(
    runs.flatMap((run) => {
      const value = metric.of(run)
      return value === undefined ? [] : [[run.round, value] as const]
    }),
  )
}

/** Only rounds in which every image was measured. */
function overImages(sides: readonly Side[]): Side {
  const [first, ...others] = sides
  const rounds = [...(first?.byRound.keys() ?? [])].filter((round) =>
    others.every(({ byRound: values }) => values.has(round)),
  )
  const values = rounds.map((round) => {
    const logs = sides.map(({ byRound: own }) => Math.log(own.get(round) ?? Number.NaN))
    return [round, Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length)] as const
  })
  return { byRound: new Map(values), ofNodes: [] }
}

const paired: Estimator = (baseline, other, level) =>
  pairedRatio(
    [...baseline.byRound].flatMap(([round, value]) => {
      const partner = other.byRound.get(round)
      return partner === undefined ? [] : [{ baseline: value, other: partner }]
    }),
    level,
  )

const unpaired: Estimator = (baseline, other, level) =>
  baseline.ofNodes.length > 0 || other.ofNodes.length > 0
    ? ratioOfMeans(sampleValues(baseline), sampleValues(other), level)
    : welchRatio(sampleValues(baseline), sampleValues(other), level)

function sampleValues({ byRound: values, ofNodes }: Side): number[] {
  return ofNodes.length > 0 ? [...ofNodes] : [...values.values()]
}
