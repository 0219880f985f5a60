/** What is measured on a path, one thing after the other. */
import type { HostPort } from '../../lib/address.ts'
import { formatDuration } from '../../lib/duration.ts'
import type { NetworkTurn } from '../result/network-schema.ts'
import { readAgent } from './agents.ts'
import { type Asker, type OpenAsker, datagramAsker, echoAsker, getAsker, httpAsker, setAsker } from './askers.ts'
import { closedLoop } from './closed-loop.ts'
import { openStream } from './connection.ts'
import { openLoop } from './open-loop.ts'
import { sourcePath, valueBytes } from './protocol.ts'

export type Measurement =
  | { kind: 'ping-pong'; protocol: 'TCP' | 'UDP' }
  | { kind: 'request-response' }
  | { kind: 'throughput'; streams: number }
  | { kind: 'values'; operation: 'get' | 'set' }
  | { kind: 'http-maximum'; bodyBytes: number }
  | { kind: 'http-rate'; bodyBytes: number; loadPercent: number }
  | { kind: 'blob' }

/** sockperf and others measure with small messages too; a token has to fit. */
const messageBytes = 64
const bodies: readonly number[] = [350, 4096]
const loadPercents: readonly number[] = [10, 30, 50, 70, 90]
const streamCounts: readonly number[] = [1, 2, 4]
const blobBytes = 100 * 1024 ** 2

const MiB = 1024 ** 2
/** Connections, caches and shapers come to rest. */
const warmUpMs = 250
/** Requests that are late may still be answered so long after the last was due. */
const openLoopPatienceMs = 1000
/** Connecting, asking for the CPU time, and the last answers, beside the time that a measurement takes. */
const overheadMs = 10_000
/** 100 MB at 10 Mbit/s. */
const blobTimeoutMs = 90_000

/** In this order: what others need comes first. */
export const allMeasurements: readonly Measurement[] = [
  { kind: 'ping-pong', protocol: 'TCP' },
  { kind: 'ping-pong', protocol: 'UDP' },
  { kind: 'request-response' },
  ...streamCounts.map((streams) => ({ kind: 'throughput' as const, streams })),
  { kind: 'blob' },
  { kind: 'values', operation: 'set' },
  { kind: 'values', operation: 'get' },
  ...bodies.map((bodyBytes) => ({ kind: 'http-maximum' as const, bodyBytes })),
  ...bodies.flatMap((bodyBytes) =>
    loadPercents.map((loadPercent) => ({ kind: 'http-rate' as const, bodyBytes, loadPercent })),
  ),
]

/** What tells how good the instrument itself is. */
export const instrumentMeasurements: readonly Measurement[] = [
  { kind: 'ping-pong', protocol: 'TCP' },
  { kind: 'ping-pong', protocol: 'UDP' },
  { kind: 'throughput', streams: 1 },
  { kind: 'throughput', streams: 4 },
]

export interface Settings {
  /** Of one measurement. */
  durationMs: number
  /** Of values and HTTP. */
  connections: number
  random: () => number
}

/** The part of a turn that is measured. */
export type Outcome = NetworkTurn extends infer Turn
  ? Turn extends { kind: 'failed' }
    ? never
    : Omit<Turn, 'round' | 'path' | 'position' | 'started'>
  : never

export function measurementName(measurement: Measurement): string {
  switch (measurement.kind) {
    case 'ping-pong':
      return `${measurement.protocol} ping-pong`
    case 'request-response':
      return 'TCP request and response'
    case 'throughput':
      return `throughput, ${measurement.streams} ${measurement.streams === 1 ? 'stream' : 'streams'}`
    case 'values':
      return `${measurement.operation} of ${valueBytes} B`
    case 'http-maximum':
      return `HTTP, ${measurement.bodyBytes} B, as many as possible`
    case 'http-rate':
      return `HTTP, ${measurement.bodyBytes} B, at ${measurement.loadPercent} %`
    case 'blob':
      return 'one blob of 100 MB'
  }
}

/** How long it may take at most; about `expectedMs` when nothing is wrong. */
export function timesOf(measurement: Measurement, { durationMs }: Settings): { expectedMs: number; mostMs: number } {
  if (measurement.kind === 'blob') return { expectedMs: 1000, mostMs: blobTimeoutMs }
  return { expectedMs: warmUpMs + durationMs, mostMs: warmUpMs + durationMs + openLoopPatienceMs + overheadMs }
}

/** `maximumPerSecond`: of HTTP requests for a body, as far as it was measured. Rejects in bounded time. */
export async function measureOne(
  measurement: Measurement,
  address: HostPort,
  settings: Settings,
  maximumPerSecond: (bodyBytes: number) => number | undefined,
  stop: AbortSignal,
): Promise<Outcome> {
  const { mostMs } = timesOf(measurement, settings)
  const timeout = new AbortController()
  const timer = setTimeout(() => timeout.abort(new Error(`not finished within ${formatDuration(mostMs)}`)), mostMs)
  const signal = AbortSignal.any([stop, timeout.signal])
  try {
    return await start(measurement, address, settings, maximumPerSecond, signal)
  } catch (error) {
    // A connection that the signal ended says only that it was ended.
    throw signal.aborted ? signal.reason : error
  } finally {
    clearTimeout(timer)
  }
}

async function start(
  measurement: Measurement,
  address: HostPort,
  { durationMs, connections, random }: Settings,
  maximumPerSecond: (bodyBytes: number) => number | undefined,
  signal: AbortSignal,
): Promise<Outcome> {
  const times = { warmUpMs, durationMs }
  const withAskers = async <T, A extends Asker>(
    count: number,
    open: (address: HostPort, signal: AbortSignal) => Promise<A>,
    use: (askers: readonly A[]) => Promise<T>,
  ) => {
    const opened = await Promise.allSettled(Array.from({ length: count }, () => open(address, signal)))
    const askers = opened.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
    try {
      for (const each of opened) if (each.status === 'rejected') throw each.reason
      return await use(askers)
    } finally {
      for (const asker of askers) asker.close()
    }
  }
  const closed = (count: number, open: OpenAsker) =>
    withAskers(count, open, (askers) =>
      withCpu(address, signal, async () => {
        const { latencies, ...rest } = await closedLoop(askers, times)
        return { ...rest, latencies: latencies.summary() }
      }),
    )
  const { kind } = measurement
  switch (kind) {
    case 'ping-pong': {
      const { protocol } = measurement
      if (protocol === 'TCP') {
        const { latencies } = await closed(1, echoAsker(messageBytes))
        return { kind, protocol, messageBytes, latencies }
      }
      return withAskers(1, datagramAsker(messageBytes), async (askers) => {
        const { latencies } = await closedLoop(askers, times)
        const lostDatagrams = askers.reduce((sum, asker) => sum + asker.lostDatagrams, 0)
        return { kind, protocol, messageBytes, latencies: latencies.summary(), lostDatagrams }
      })
    }
    case 'request-response':
      return { kind, ...(await closed(1, echoAsker(1))) }
    case 'values': {
      const { operation } = measurement
      const open = operation === 'set' ? setAsker(random) : getAsker(random)
      return { kind, operation, connections, valueBytes, ...(await closed(connections, open)) }
    }
    case 'http-maximum': {
      const { bodyBytes } = measurement
      return { kind, bodyBytes, connections, ...(await closed(connections, httpAsker(bodyBytes))) }
    }
    case 'http-rate': {
      const { bodyBytes, loadPercent } = measurement
      const maximum = maximumPerSecond(bodyBytes)
      if (maximum === undefined) throw new Error('its maximum could not be measured')
      const wantedPerSecond = (maximum * loadPercent) / 100
      return withAskers(connections, httpAsker(bodyBytes), async (askers) => {
        await closedLoop(askers, { warmUpMs: 0, durationMs: warmUpMs })
        const { latencies, lag, ...rest } = await openLoop(askers, {
          perSecond: wantedPerSecond,
          durationMs,
          patienceMs: openLoopPatienceMs,
        })
        return {
          kind,
          bodyBytes,
          connections,
          loadPercent,
          wantedPerSecond,
          ...rest,
          latencies: latencies.summary(),
          generatorLag: lag.summary(),
        }
      })
    }
    case 'throughput':
      return { kind, ...(await receive(address, measurement.streams, durationMs, signal)) }
    case 'blob':
      return withAskers(1, httpAsker(blobBytes, MiB), ([asker]) =>
        withCpu(address, signal, async () => {
          if (asker === undefined) throw new Error('one was opened')
          const startedMs = performance.now()
          await Promise.race([new Promise<void>((resolve) => asker.ask(resolve)), asker.lost])
          return {
            kind,
            bytes: blobBytes,
            duration: nanoseconds(performance.now() - startedMs),
            firstByte: nanoseconds(asker.firstByteMs - startedMs),
          }
        }),
      )
  }
}

async function receive(address: HostPort, streams: number, durationMs: number, signal: AbortSignal) {
  const opened: { close(): void; lost: Promise<never> }[] = []
  let received = 0
  const onBytes = ({ length }: Buffer) => (received += length)
  try {
    return await withCpu(address, signal, async () => {
      for (let index = 0; index < streams; index++) {
        opened.push(await openStream(address, sourcePath, onBytes, signal, MiB))
      }
      const pause = (ms: number) =>
        Promise.race([
          new Promise<void>((resolve) => setTimeout(resolve, ms)),
          ...opened.map((stream) => stream.lost),
        ])
      // Slow start, and the bucket of a shaper.
      await pause(2 * warmUpMs)
      const [startMs, startBytes] = [performance.now(), received]
      await pause(durationMs)
      const bytesPerSecond = ((received - startBytes) * 1000) / (performance.now() - startMs)
      for (const stream of opened) stream.close()
      return { streams, bytesPerSecond, bytes: received }
    })
  } finally {
    for (const stream of opened) stream.close()
  }
}

/** What both processes took meanwhile. */
async function withCpu<T>(address: HostPort, signal: AbortSignal, work: () => Promise<T>) {
  const [serverBefore, clientBefore] = [await readAgent(address, signal), process.cpuUsage()]
  const result = await work()
  const { user, system } = process.cpuUsage(clientBefore)
  const { cpuSeconds } = await readAgent(address, signal)
  const server = Math.max(0, cpuSeconds - serverBefore.cpuSeconds)
  return { ...result, cpu: { client: (user + system) / 1e6, server } }
}

function nanoseconds(ms: number): number {
  return Math.round(ms * 1e6)
}
