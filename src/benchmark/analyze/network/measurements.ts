/** A result of `benchmark network`, added up: one cell for each path and measurement, over all rounds. */
import { UserError, errorMessage } from '../../../lib/errors.ts'
import { Latencies } from '../../network/latencies.ts'
import { measurementName } from '../../network/measurements.ts'
import type { LatencySummary, NetworkResult, NetworkTurn } from '../../result/network-schema.ts'

type MeasuredTurn = Exclude<NetworkTurn, { kind: 'failed' }>
export type Kind = MeasuredTurn['kind']
type TurnOf<K extends Kind> = Extract<MeasuredTurn, { kind: K }>

export interface Cell<K extends Kind> {
  /** What was measured, such as `throughput, 4 streams`. */
  name: string
  path: string
  /** One per round. At least one. */
  turns: readonly [TurnOf<K>, ...TurnOf<K>[]]
}

export interface NetworkMeasurements {
  result: NetworkResult
  path: string
}

/** Throws a UserError for a histogram that cannot be read. */
export function fromNetworkResult(result: NetworkResult, path: string): NetworkMeasurements {
  try {
    for (const turn of [...result.loopback, ...result.turns]) {
      if ('latencies' in turn) Latencies.merged([turn.latencies])
      if ('generatorLag' in turn) Latencies.merged([turn.generatorLag])
    }
  } catch (error) {
    throw new UserError(`${path}: a histogram cannot be read (${errorMessage(error)}): measure again`)
  }
  return { result, path }
}

/** Measurement by measurement; within one the paths in the order of the result. */
export function cellsOf<K extends Kind>(result: NetworkResult, kind: K, turns = result.turns): Cell<K>[] {
  const ofKind = turns.filter((turn): turn is TurnOf<K> => turn.kind === kind)
  const names = [...new Set(ofKind.map(measurementName))]
  const paths = [...new Set(ofKind.map(({ path }) => path))].sort((a, b) => placeOf(result, a) - placeOf(result, b))
  return names.flatMap((name) =>
    paths.flatMap((path) => {
      const [first, ...more] = ofKind.filter((turn) => turn.path === path && measurementName(turn) === name)
      return first === undefined ? [] : [{ name, path, turns: [first, ...more] as const }]
    }),
  )
}

/** The same measurement on the path that all are compared with. */
export function baseOf<K extends Kind>(
  result: NetworkResult,
  cells: readonly Cell<K>[],
  cell: Cell<K>,
): Cell<K> | undefined {
  const baseline = result.paths[0]?.name
  return cell.path === baseline ? undefined : cells.find(({ name, path }) => name === cell.name && path === baseline)
}

export function latenciesOf(cell: { turns: readonly { latencies: LatencySummary }[] }): Latencies {
  return Latencies.merged(cell.turns.map(({ latencies }) => latencies))
}

function placeOf({ paths }: NetworkResult, path: string): number {
  return paths.findIndex(({ name }) => name === path)
}
