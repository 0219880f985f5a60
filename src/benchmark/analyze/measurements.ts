/** What the tables and plots are made of, the same for results of this tool and of the Go tool. */
import { UserError } from '../../lib/errors.ts'
import type { Phase, PhaseName, Result } from '../result/schema.ts'
import type { GoRun } from '../result/go-tool.ts'
import { type Fact, goSetUp, setUp } from './set-up.ts'

export const phaseNames: readonly PhaseName[] = ['create', 'update']

/** One image, pulled by all nodes once, through one mirror. */
export interface PhaseRun {
  image: string
  phase: PhaseName
  mirror: string
  round: number
  attempt: number
  counts: boolean
  noise: readonly string[]
  measured: Phase
}

export interface Measurements {
  name: string
  path: string
  /** False: a single run, as the Go tool makes it. Then intervals are across nodes. */
  hasRounds: boolean
  setUp: readonly Fact[]
  /** The baseline comes first. */
  mirrors: readonly string[]
  images: readonly string[]
  nodeCount: number
  /** Nodes at once in an update. */
  waveSize: number
  expectFailures: number
  /** Every attempt: warm-ups and repeated rounds too. */
  runs: readonly PhaseRun[]
}

export function fromResult(result: Result, path: string): Measurements {
  const runs = result.rounds.flatMap((round) =>
    phaseNames.flatMap((phase) => {
      const measured = round.phases[phase]
      if (measured === undefined) return []
      const { image, mirror, number, attempt, counts, noise } = round
      return [{ image, phase, mirror, round: number, attempt, counts, noise, measured }]
    }),
  )
  if (result.rounds.length === 0) {
    throw new UserError(`${path}: no rounds: broken off before the first one ended; measure again`)
  }
  if (runs.length === 0) {
    throw new UserError(`${path}: no phase in any of its ${result.rounds.length} rounds; measure again`)
  }
  const names = unique([...result.mirrors.map(({ name }) => name), ...runs.map(({ mirror }) => mirror)])
  const baseline = names.includes('none') ? 'none' : names[0]
  return {
    name: result.name,
    path,
    hasRounds: true,
    setUp: setUp(result),
    mirrors: unique([...(baseline === undefined ? [] : [baseline]), ...names]),
    images: unique([...result.images.map(({ name }) => name), ...runs.map(({ image }) => image)]),
    nodeCount: result.set.nodes.length,
    waveSize: result.set.waveSize,
    expectFailures: result.set.expectFailures,
    runs,
  }
}

/** The Go tool measures one mirror per file: several files are the mirrors of one comparison, the first its baseline. */
export function fromGoRuns(goRuns: readonly GoRun[]): Measurements {
  const names = goRuns.map(({ name, path }) =>
    goRuns.filter((run) => run.name === name).length > 1 ? `${name} (${path})` : name,
  )
  const runs = goRuns.flatMap(({ benchmarks }, index) =>
    benchmarks.flatMap(({ image, phases }) =>
      phaseNames.map((phase) => ({
        image,
        phase,
        mirror: names[index] ?? '',
        round: 1,
        attempt: 1,
        counts: true,
        noise: [],
        measured: phases[phase],
      })),
    ),
  )
  const nodeCount = Math.max(...runs.map(({ measured }) => measured.pulls.length))
  return {
    name: names.join(' and '),
    path: goRuns.map(({ path }) => path).join(', '),
    hasRounds: false,
    setUp: goRuns.flatMap((run) => goSetUp(run)),
    mirrors: unique(names),
    images: unique(runs.map(({ image }) => image)),
    nodeCount,
    waveSize: Math.ceil(0.2 * nodeCount),
    expectFailures: 0,
    runs,
  }
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)]
}
