/** The tables about paths: latencies by percentile, rates, CPU, and every turn. */
import { percentilesShown, samplesAboveMin, type Latencies } from '../../network/latencies.ts'
import { measurementName } from '../../network/measurements.ts'
import type { NetworkResult, NetworkTurn } from '../../result/network-schema.ts'
import { bytesText, rateText, significant, trimmed } from '../format.ts'
import { median } from '../statistics.ts'
import type { Table } from '../table.ts'
import { type Cell, type Kind, baseOf, cellsOf, latenciesOf } from './measurements.ts'

const nothing = '–'
const GiB = 1024 ** 3

const percentileHeads = [...percentilesShown.map((percentile) => `p${percentile}`), 'max']
const percentileNote = `A percentile stands there only when at least ${samplesAboveMin} samples lie above it; those of all rounds are added up. ×: against the first path.`

export function pingPongTable(result: NetworkResult): Table {
  const cells = cellsOf(result, 'ping-pong')
  const instrument = cellsOf(result, 'ping-pong', result.loopback)
  const lost = sum(cells.flatMap(({ turns }) => turns.map(({ lostDatagrams }) => lostDatagrams ?? 0)))
  return {
    title: 'Latency without load, µs',
    head: ['measurement', 'path', ...percentileHeads, 'p50 − first', 'p50 ×', 'p99 ×'],
    wordColumns: 2,
    rows: [
      ...instrument.map((cell) => [
        cell.name,
        'the instrument itself',
        ...percentileCells(latenciesOf(cell)),
        nothing,
        nothing,
        nothing,
      ]),
      ...cells.map((cell) => {
        const [own, base] = [latenciesOf(cell), baseOf(result, cells, cell)]
        const first = base === undefined ? undefined : latenciesOf(base)
        return [
          cell.name,
          cell.path,
          ...percentileCells(own),
          difference(own, first),
          factor(own, first, 50),
          factor(own, first, 99),
        ]
      }),
    ],
    notes: [
      'There and back, 64 bytes, one message at a time; sockperf prints half of it.',
      'The instrument itself: both ends on one machine, over the loopback interface. As much is in the other rows too; their differences are of the paths.',
      percentileNote,
      `Datagrams that were lost: ${lost}.`,
    ],
  }
}

export function rateTable(result: NetworkResult): Table {
  const perSecond = (value: number) => `${trimmed(value)}/s`
  return {
    title: 'How much passes',
    head: ['measurement', 'path', 'median', 'lowest', 'highest', '×'],
    wordColumns: 2,
    rows: [
      ...rateRows(result, 'request-response', (turn) => turn.perSecond, perSecond),
      ...rateRows(result, 'throughput', (turn) => turn.bytesPerSecond, rateText),
      ...rateRows(result, 'blob', (turn) => (turn.bytes * 1e9) / turn.duration, rateText),
      ...rateRows(result, 'values', (turn) => turn.perSecond, perSecond),
      ...rateRows(result, 'http-maximum', (turn) => turn.perSecond, perSecond),
    ],
    notes: [
      'Over the rounds. ×: the median against that of the first path. Throughput: payload, from the agent to the one who measures.',
      `Values and HTTP: ${result.set.connections} connections, each asks again when it has its answer.`,
    ],
  }
}

/** One table for each size of body. */
export function httpTables(result: NetworkResult): Table[] {
  const all = cellsOf(result, 'http-rate')
  const bodies = [...new Set(all.map(({ turns: [first] }) => first.bodyBytes))]
  return bodies.map((bodyBytes) => {
    const cells = all.filter(({ turns: [first] }) => first.bodyBytes === bodyBytes)
    return {
      title: `HTTP at a constant rate, bodies of ${bytesText(bodyBytes)}, latency in µs`,
      head: ['load', 'path', 'wanted', 'answered', ...percentileHeads, 'p50 ×', 'p99 ×', 'lag p99'],
      wordColumns: 2,
      rows: cells.map((cell) => {
        const { turns, path } = cell
        const [own, base] = [latenciesOf(cell), baseOf(result, cells, cell)]
        const first = base === undefined ? undefined : latenciesOf(base)
        const missed = turns.filter(({ reached }) => !reached).length
        return [
          `${turns[0].loadPercent} %`,
          path,
          `${trimmed(turns[0].wantedPerSecond)}/s`,
          `${trimmed(median(turns.map(({ answeredPerSecond }) => answeredPerSecond)))}/s${missed === 0 ? '' : `, rate not reached in ${missed} of ${turns.length}`}`,
          ...percentileCells(own),
          factor(own, first, 50),
          factor(own, first, 99),
          microseconds(
            latenciesOf({ turns: turns.map(({ generatorLag }) => ({ latencies: generatorLag })) }).percentileNs(99),
          ),
        ]
      }),
      notes: [
        'Latency from the moment when a request was due, whether or not a connection was free: waiting for the ones before is in it.',
        'Load: of what the slowest path answered at most; all paths get the same arrivals. Lag: how late the generator itself was; it is in the latencies.',
        percentileNote,
      ],
    }
  })
}

export function cpuTable(result: NetworkResult): Table {
  const row = (
    { name, path }: { name: string; path: string },
    turns: readonly { cpu: { client: number; server: number } }[],
    unit: string,
    units: number,
  ) => {
    const per = (seconds: number[]) => (units > 0 ? significant(sum(seconds) / units) : nothing)
    return [name, path, unit, per(turns.map(({ cpu }) => cpu.client)), per(turns.map(({ cpu }) => cpu.server))]
  }
  const ofBytes = (kind: 'throughput' | 'blob') =>
    cellsOf(result, kind).map((cell) => row(cell, cell.turns, 'GiB', sum(cell.turns.map(({ bytes }) => bytes)) / GiB))
  const ofRequests = (kind: 'request-response' | 'values' | 'http-maximum') =>
    cellsOf(result, kind).map((cell) =>
      row(cell, cell.turns, '100,000 requests', sum(cell.turns.map(({ requests }) => requests)) / 1e5),
    )
  return {
    title: 'CPU seconds on both ends',
    head: ['measurement', 'path', 'per', 'here', 'agent'],
    wordColumns: 3,
    rows: [
      ...ofBytes('throughput'),
      ...ofBytes('blob'),
      ...ofRequests('request-response'),
      ...ofRequests('values'),
      ...ofRequests('http-maximum'),
    ],
    notes: [
      'Of the two processes, in user and system mode. What the kernel does in interrupts is charged to nobody or to a bystander, and is missing.',
    ],
  }
}

export function turnTable(result: NetworkResult): Table {
  return {
    title: 'Every measurement, in the order of time',
    head: ['measurement', 'path', 'round', 'place', 'result', 'p50 µs', 'p99 µs', 'max µs'],
    wordColumns: 2,
    rows: [...result.loopback, ...result.turns].map((turn) => [
      turn.kind === 'failed' ? turn.measurement : measurementName(turn),
      turn.path,
      String(turn.round),
      String(turn.position),
      resultText(turn),
      ...('latencies' in turn
        ? [percentileOf(turn, 50), percentileOf(turn, 99), microseconds(turn.latencies.max)]
        : [nothing, nothing, nothing]),
    ]),
    notes: [],
  }
}

function rateRows<K extends Kind>(
  result: NetworkResult,
  kind: K,
  rate: (turn: Cell<K>['turns'][number]) => number,
  text: (value: number) => string,
): string[][] {
  const cells = cellsOf(result, kind)
  return cells.map((cell) => {
    const rates = cell.turns.map(rate)
    const base = baseOf(result, cells, cell)
    return [
      cell.name,
      cell.path,
      text(median(rates)),
      text(Math.min(...rates)),
      text(Math.max(...rates)),
      base === undefined ? nothing : significant(median(rates) / median(base.turns.map(rate))),
    ]
  })
}

function resultText(turn: NetworkTurn): string {
  switch (turn.kind) {
    case 'failed':
      return `FAILED: ${turn.error}`
    case 'ping-pong':
      return turn.lostDatagrams === undefined ? '' : `${turn.lostDatagrams} lost`
    case 'throughput':
      return rateText(turn.bytesPerSecond)
    case 'blob':
      return `${significant(turn.duration / 1e9)} s, first byte ${microseconds(turn.firstByte)} µs`
    case 'http-rate':
      return `${trimmed(turn.answeredPerSecond)}/s${turn.reached ? '' : `, rate not reached, ${turn.unanswered} unanswered`}`
    case 'request-response':
    case 'values':
    case 'http-maximum':
      return `${trimmed(turn.perSecond)}/s`
  }
}

function percentileOf(
  turn: { latencies: { percentiles: { percentile: number; value: number }[] } },
  wanted: number,
): string {
  return microseconds(turn.latencies.percentiles.find(({ percentile }) => percentile === wanted)?.value)
}

function percentileCells(latencies: Latencies): string[] {
  return [
    ...percentilesShown.map((percentile) => microseconds(latencies.percentileNs(percentile))),
    latencies.count === 0 ? nothing : microseconds(latencies.maxNs),
  ]
}

function factor(own: Latencies, first: Latencies | undefined, percentile: number): string {
  const [value, base] = [own.percentileNs(percentile), first?.percentileNs(percentile)]
  return value === undefined || base === undefined ? nothing : significant(value / base)
}

function difference(own: Latencies, first: Latencies | undefined): string {
  const [value, base] = [own.percentileNs(50), first?.percentileNs(50)]
  return value === undefined || base === undefined ? nothing : significant((value - base) / 1000)
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function microseconds(ns: number | undefined): string {
  return ns === undefined ? nothing : significant(ns / 1000)
}
