/** All that is said about one result of `benchmark network`. */
import type { NetworkResult } from '../../result/network-schema.ts'
import { bytesText, rateText, seconds, significant, trimmed } from '../format.ts'
import { percentilePlots } from '../plots/percentiles.ts'
import type { Section } from '../section.ts'
import type { Fact } from '../set-up.ts'
import { median } from '../statistics.ts'
import { type NetworkMeasurements, cellsOf } from './measurements.ts'
import { cpuTable, httpTables, pingPongTable, rateTable, turnTable } from './tables.ts'

/** As the images of the benchmark are called: 1 GB = 2^30 bytes. */
const imageBytes = 1024 ** 3
/** A path that comes this close to the instrument's own throughput may be faster than it. */
const instrumentShare = 0.7

export function networkSection({ result, path }: NetworkMeasurements): Section {
  const failed = result.turns.filter((turn) => turn.kind === 'failed')
  return {
    name: result.name,
    path,
    summary: {
      failures: [
        `Failed measurements: ${failed.length === 0 ? 'none' : failed.length} of ${result.turns.length}`,
        ...failed.map((turn) => `${turn.path}, round ${turn.round}, ${turn.measurement}: ${turn.error}`),
      ],
      headlines: result.paths.flatMap(({ name }) => pullTimeLine(result, name)),
      rounds: [
        `Rounds: ${result.set.rounds}, ${seconds(result.set.duration)} s for one measurement, paths in alternating order.`,
      ],
    },
    tables: [pingPongTable(result), rateTable(result), ...httpTables(result), cpuTable(result)],
    everyRound: turnTable(result),
    setUp: setUp(result),
    plots: percentilePlots(result),
  }
}

/** What the path means for a mirror: no pull between two nodes is faster. */
function pullTimeLine(result: NetworkResult, path: string): string[] {
  const best = fastest(result, result.turns, path)
  if (best === undefined) return []
  const instrument = Math.max(
    0,
    ...cellsOf(result, 'throughput', result.loopback).flatMap(({ turns }) =>
      turns.map(({ bytesPerSecond }) => bytesPerSecond),
    ),
  )
  const { bytesPerSecond, streams } = best
  const first = fastest(result, result.turns, result.paths[0]?.name ?? '')
  const factor =
    first === undefined || result.paths[0]?.name === path
      ? ''
      : `, ${significant(bytesPerSecond / first.bytesPerSecond)} × ${result.paths[0]?.name}`
  const limit =
    bytesPerSecond > instrumentShare * instrument
      ? `; the instrument itself reaches ${rateText(instrument)} on this machine, so the path may carry more`
      : ''
  return [
    `${path}: a 1 GB image takes at least ${significant(imageBytes / bytesPerSecond)} s: the path carries ${rateText(bytesPerSecond)} (${streams} ${streams === 1 ? 'stream' : 'streams'})${factor}${limit}. No mirror is faster.`,
  ]
}

function fastest(
  result: NetworkResult,
  turns: NetworkResult['turns'],
  path: string,
): { streams: number; bytesPerSecond: number } | undefined {
  return cellsOf(result, 'throughput', turns)
    .filter((cell) => cell.path === path)
    .map((cell) => ({
      streams: cell.turns[0].streams,
      bytesPerSecond: median(cell.turns.map(({ bytesPerSecond }) => bytesPerSecond)),
    }))
    .filter(({ bytesPerSecond }) => bytesPerSecond > 0)
    .sort((a, b) => b.bytesPerSecond - a.bytesPerSecond)[0]
}

function setUp({ name, started, updated, complete, tool, machine, set, paths }: NetworkResult): Fact[] {
  return [
    { what: 'result', value: `${name}, ${started} to ${updated}${complete ? '' : ', NOT COMPLETE: broken off'}` },
    { what: 'tool', value: `spegel-ts ${tool.version}, commit ${tool.commit}, Node ${tool.node}` },
    { what: 'command', value: tool.command.join(' ') },
    {
      what: 'machine that measured',
      value: `${machine.cores} × ${machine.cpu}, ${bytesText(machine.memoryBytes)}, Linux ${machine.kernel}`,
    },
    ...(set.nodes === undefined
      ? []
      : [
          {
            what: `nodes, Kubernetes ${set.kubernetes ?? 'unknown'}`,
            value: `from ${set.nodes.here} to ${set.nodes.there}; same-node: inside ${set.nodes.here}`,
          },
        ]),
    { what: 'load at the start', value: trimmed(machine.load) },
    { what: 'connections', value: `${set.connections} for values and HTTP` },
    ...paths.map((path) => ({ what: `path ${path.name}`, value: `${path.address}, agent ${path.agent}` })),
  ]
}
