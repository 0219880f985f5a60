/** `benchmark network run`: paths that are given as addresses. */
import { type ChildProcess, spawn } from 'node:child_process'
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { type HostPort, formatHostPort, parseHostPort } from '../../lib/address.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import {
  type LatencySummary,
  type NetworkResult,
  type NetworkTurn,
  networkSchemaName,
} from '../result/network-schema.ts'
import { type AgentFacts, checkAgent } from './agents.ts'
import { type Path, measurePaths } from './measure-paths.ts'
import { type Settings, allMeasurements, instrumentMeasurements, measurementName, timesOf } from './measurements.ts'

const agentReadyTimeoutMs = 20_000
/** Longer than any measurement of the instrument: an agent that is left behind ends by itself. */
const agentLife = '10m'

export interface NetworkInit {
  paths: readonly Path[]
  /** So long agents may not answer yet. */
  agentsTimeoutMs: number
  rounds: number
  settings: Settings
  target: NetworkResult['set']['target']
  facts: Pick<NetworkResult, 'name' | 'tool' | 'machine'>
  /** A command that starts an agent on this machine's loopback address, for the instrument's own latency. */
  agentCommand: readonly string[]
  say: (line: string) => void
  /** Also what was measured until it was broken off. */
  save: (result: NetworkResult) => Promise<void>
  now: () => Date
  signal: AbortSignal
}

/** How long all of it takes. */
export function totalTimes(
  paths: number,
  { rounds, settings }: Pick<NetworkInit, 'rounds' | 'settings'>,
): ReturnType<typeof timesOf> {
  const sum = (measurements: typeof allMeasurements, which: keyof ReturnType<typeof timesOf>) =>
    measurements.reduce((total, measurement) => total + timesOf(measurement, settings)[which], 0)
  const total = (which: keyof ReturnType<typeof timesOf>) =>
    sum(instrumentMeasurements, which) + rounds * paths * sum(allMeasurements, which)
  return { expectedMs: total('expectedMs'), mostMs: total('mostMs') }
}

/** `NAME=ADDR`, ADDR a host with or without a port. Throws a UserError; names are looked up once. */
export async function parsePaths(texts: readonly string[], option: string, defaultPort: number): Promise<Path[]> {
  if (texts.length === 0) {
    throw new UserError(
      `${option} is needed: write such as ${option} host=10.0.0.7, or --kubeconfig FILE for the paths of a cluster`,
    )
  }
  const paths: Path[] = []
  for (const text of texts) {
    const { name, address } = /^(?<name>[\w.-]+)=(?<address>.+)$/.exec(text)?.groups ?? {}
    if (name === undefined || address === undefined) {
      throw new UserError(`${option}: "${text}" is not NAME=ADDRESS: write such as host=10.0.0.7:${defaultPort}`)
    }
    if (paths.some((path) => path.name === name)) throw new UserError(`${option}: two are called "${name}"`)
    const { host, port } = parseAddress(address, option, defaultPort)
    try {
      paths.push({ name, address: { host: (await lookup(host)).address, port } })
    } catch (error) {
      throw new UserError(`${option}: ${name}: cannot find ${host}: ${errorMessage(error)}`)
    }
  }
  return paths
}

function parseAddress(text: string, option: string, defaultPort: number): HostPort {
  if (isIP(text) !== 0) return { host: text, port: defaultPort }
  if (!text.includes(':')) return { host: text, port: defaultPort }
  const address = parseHostPort(text, option)
  if (address.host === '' || address.port === 0) {
    throw new UserError(`${option}: "${text}" names no host or no port: write HOST or HOST:PORT`)
  }
  return address
}

/** Returns the complete result. When it is broken off, what was measured is saved. */
export async function runNetwork(init: NetworkInit): Promise<NetworkResult> {
  const { paths, agentsTimeoutMs, rounds, settings, target, facts, say, now, signal } = init
  const agents: AgentFacts[] = []
  for (const { name, address } of paths) agents.push(await checkAgent(name, address, agentsTimeoutMs, signal))
  const stamp = () => now().toISOString()
  const result: NetworkResult = {
    schema: networkSchemaName,
    ...facts,
    started: stamp(),
    updated: stamp(),
    complete: false,
    set: {
      target,
      rounds,
      duration: Math.round(settings.durationMs * 1e6),
      connections: settings.connections,
    },
    paths: paths.map(({ name, address }, index) => ({
      name,
      address: formatHostPort(address.host, address.port),
      agent: agents[index]?.version ?? '',
    })),
    loopback: [],
    turns: [],
  }
  try {
    result.loopback = await measureInstrument(init)
    await measurePaths({
      paths,
      measurements: allMeasurements,
      rounds,
      settings,
      now,
      onTurn: (turn, done, all) => {
        result.turns.push(turn)
        say(`${done} of ${all}  ${describeTurn(turn)}`)
      },
      signal,
    })
    result.complete = true
  } finally {
    await init.save(Object.assign(result, { updated: stamp() }))
  }
  return result
}

async function measureInstrument({ agentCommand, settings, say, now, signal }: NetworkInit): Promise<NetworkTurn[]> {
  const agent = await startLoopbackAgent(agentCommand, signal)
  try {
    return await measurePaths({
      paths: [{ name: 'loopback', address: agent.address }],
      measurements: instrumentMeasurements,
      rounds: 1,
      settings,
      now,
      onTurn: (turn) => say(`the instrument itself: ${describeTurn(turn)}`),
      signal,
    })
  } finally {
    await agent.end()
  }
}

/** A process of its own, as on another node. It tells its address in its first line. */
async function startLoopbackAgent(
  [command = '', ...args]: readonly string[],
  signal: AbortSignal,
): Promise<{ address: HostPort; end(): Promise<void> }> {
  const more = ['--listen-addr', '127.0.0.1:0', '--life', agentLife]
  const child = spawn(command, [...args, ...more], { stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const end = async () => {
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 5_000)
    await ended
    clearTimeout(timer)
  }
  try {
    return {
      address: await addressOf(child, AbortSignal.any([signal, AbortSignal.timeout(agentReadyTimeoutMs)])),
      end,
    }
  } catch (error) {
    if (child.pid !== undefined) await end()
    signal.throwIfAborted()
    throw new Error('the agent on this machine did not start', { cause: error })
  }
}

function addressOf(child: ChildProcess, signal: AbortSignal): Promise<HostPort> {
  return new Promise((resolve, reject) => {
    let [printed, errors] = ['', '']
    child.stdout?.on('data', (data: Buffer) => {
      printed += data.toString()
      const address = /^listening on (\S+)\n/m.exec(printed)?.[1]
      if (address !== undefined) resolve(parseHostPort(address, 'the agent'))
    })
    child.stderr?.on('data', (data: Buffer) => (errors = (errors + data.toString()).slice(-1000)))
    child.once('error', reject)
    child.once('close', (code) => reject(new Error(`it ended with ${code}: ${errors}`)))
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
  })
}

function describeTurn(turn: NetworkTurn): string {
  const name = turn.kind === 'failed' ? turn.measurement : measurementName(turn)
  return `${turn.path}: ${name}: ${valueOf(turn)}`
}

function valueOf(turn: NetworkTurn): string {
  switch (turn.kind) {
    case 'failed':
      return `FAILED: ${turn.error}`
    case 'ping-pong':
      return middle(turn.latencies)
    case 'throughput':
      return `${((turn.bytesPerSecond * 8) / 1e6).toFixed(0)} Mbit/s`
    case 'blob':
      return `${(turn.duration / 1e9).toFixed(2)} s`
    case 'http-rate':
      return `${middle(turn.latencies)}${turn.reached ? '' : ', rate not reached'}`
    case 'request-response':
    case 'values':
    case 'http-maximum':
      return `${turn.perSecond.toFixed(0)} per second`
  }
}

function middle({ percentiles }: LatencySummary): string {
  const value = percentiles.find(({ percentile }) => percentile === 50)?.value
  return value === undefined ? 'too few samples' : `p50 ${(value / 1000).toFixed(1)} µs`
}
