/** Measures paths side by side: each measurement on all of them, one right after the other, in alternating order. */
import type { HostPort } from '../../lib/address.ts'
import { errorMessage } from '../../lib/errors.ts'
import type { NetworkTurn } from '../result/network-schema.ts'
import { type Measurement, type Settings, measureOne, measurementName } from './measurements.ts'

export interface Path {
  name: string
  /** With a numeric address: looking names up is not measured. */
  address: HostPort
}

export interface Turn {
  round: number
  measurement: Measurement
  path: Path
  /** Place in the order of the paths. */
  position: number
}

/** What the machine does to one path, it does to all: the first of a measurement is the last of it in the next round. */
export function turnsOf(paths: readonly Path[], measurements: readonly Measurement[], rounds: number): Turn[] {
  return Array.from({ length: rounds }, (_, index) => index + 1).flatMap((round) =>
    measurements.flatMap((measurement, index) => {
      const order = (round + index) % 2 === 1 ? paths : paths.toReversed()
      return order.map((path, place) => ({ round, measurement, path, position: place + 1 }))
    }),
  )
}

export interface MeasurePathsInit {
  paths: readonly Path[]
  measurements: readonly Measurement[]
  rounds: number
  settings: Settings
  now: () => Date
  /** Called after every turn. */
  onTurn: (turn: NetworkTurn, done: number, all: number) => void
  /** Broken off: rejects with its reason. */
  signal: AbortSignal
}

/** What goes wrong on a path is a turn that failed; the others go on. */
export async function measurePaths(init: MeasurePathsInit): Promise<NetworkTurn[]> {
  const { paths, measurements, rounds, settings, now, onTurn, signal } = init
  const results: NetworkTurn[] = []
  const turns = turnsOf(paths, measurements, rounds)
  for (const { round, measurement, path, position } of turns) {
    const common = { round, path: path.name, position, started: now().toISOString() }
    try {
      const maximum = (bodyBytes: number) => slowestMaximum(results, bodyBytes)
      results.push({ ...common, ...(await measureOne(measurement, path.address, settings, maximum, signal)) })
    } catch (error) {
      signal.throwIfAborted()
      results.push({
        ...common,
        kind: 'failed',
        measurement: measurementName(measurement),
        error: errorMessage(error),
      })
    }
    const last = results.at(-1)
    if (last !== undefined) onTurn(last, results.length, turns.length)
  }
  return results
}

/** Of the first round: rates are the same in all rounds, and for all paths, so that their percentiles can be compared. */
function slowestMaximum(results: readonly NetworkTurn[], bodyBytes: number): number | undefined {
  const maxima = results.flatMap((turn) =>
    turn.kind === 'http-maximum' && turn.round === 1 && turn.bodyBytes === bodyBytes ? [turn.perSecond] : [],
  )
  return maxima.length === 0 ? undefined : Math.min(...maxima)
}
