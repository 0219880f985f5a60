/** The commands `spegel-ts benchmark network …`. */
import type { NetworkResult } from '../benchmark/result/network-schema.ts'
import { type HostPort, formatHostPort, parseHostPort } from '../lib/address.ts'
import { formatDuration } from '../lib/duration.ts'
import { UserError } from '../lib/errors.ts'
import { systemRandom } from '../lib/random.ts'
import { makeDirectory } from '../lib/make-directory.ts'
import { benchmarkFacts } from './benchmark-facts.ts'
import { type CommandSpec, type Surroundings, command, measurementGrace } from './command.ts'
import { type ClusterOptions, clusterOptions } from './benchmark-options.ts'
import { type OptionTable, durationOption, integerOption, listOption, mapOption, textOption } from './option.ts'
import { versionInfo } from './version.ts'

interface ServeOptions {
  listenAddr: HostPort
  life: number
}

const serveOptions: OptionTable<ServeOptions> = {
  listenAddr: mapOption(
    textOption({
      flag: '--listen-addr',
      placeholder: '<addr>',
      default: ':5010',
      help: 'Address of the agent, TCP and UDP on the same port. Without a host: all addresses, IPv6 and IPv4.',
    }),
    parseHostPort,
  ),
  life: durationOption({
    flag: '--life',
    defaultMs: 0,
    help: 'The agent ends by itself after this time. 0s: never.',
  }),
}

export interface RunOptions extends ClusterOptions {
  path: readonly string[]
  resultDir: string
  name: string | undefined
  rounds: number
  duration: number
  connections: number
  agentsTimeout: number
  agentImage: string | undefined
  agentPort: number
  nodes: readonly string[]
}

const longestMeasurementMs = 60_000
const connectionsLimit = 256

const runOptions: OptionTable<RunOptions> = {
  path: listOption({
    flag: '--path',
    placeholder: '<name=addr...>',
    help: 'Paths to measure side by side, such as host=10.0.0.7 pod=10.244.1.3:5010; an agent must run there. The first is what the others are compared with. Without a port: 5010. Without any, and with --kubeconfig: the paths of a cluster, to agents that the tool makes.',
  }),
  resultDir: mapOption(
    textOption({
      flag: '--result-dir',
      placeholder: '<folder>',
      help: 'Where the result goes. -: to standard output with all else that is said, as one line of JSON.',
    }),
    (value, flag) => {
      if (value === undefined || value === '') throw new UserError(`${flag} is needed`)
      return value
    },
  ),
  name: textOption({
    flag: '--name',
    placeholder: '<name>',
    help: 'What the result is called in reports. Without it: network, or the name of the cluster.',
  }),
  rounds: integerOption({
    flag: '--rounds',
    default: 2,
    min: 1,
    max: 100,
    help: 'How often all is measured, at most 100; paths take turns in each.',
  }),
  duration: mapOption(
    durationOption({
      flag: '--duration',
      defaultMs: 2_000,
      help: 'Of one measurement, 100ms to 1m; there are 20 on each path in each round. High percentiles need many samples: 99.99 has 10 above it in 100,000.',
    }),
    (durationMs, flag) => {
      if (durationMs < 100 || durationMs > longestMeasurementMs) {
        throw new UserError(`${flag}: ${formatDuration(durationMs)} is not between 100ms and 1m`)
      }
      return durationMs
    },
  ),
  connections: integerOption({
    flag: '--connections',
    default: 32,
    min: 1,
    max: connectionsLimit,
    help: 'At once, for values and for HTTP, at most 256.',
  }),
  agentsTimeout: durationOption({
    flag: '--agents-timeout',
    defaultMs: 0,
    help: 'So long an agent may not answer yet at the start.',
  }),
  ...clusterOptions,
  nodes: listOption({
    flag: '--nodes',
    placeholder: '<name...>',
    help: 'In a cluster: two nodes, the one that measures and the one that answers. Without it: the first two that take pods.',
  }),
  agentImage: textOption({
    flag: '--agent-image',
    placeholder: '<image>',
    help: "In a cluster: spegel-ts' image, which measures and answers. Without it: the one that is installed, else that of this version.",
  }),
  agentPort: integerOption({
    flag: '--agent-port',
    default: 5010,
    min: 1024,
    max: 65_535,
    help: 'In a cluster: TCP and UDP port of the agents, one of them on the network of its node.',
  }),
}

export const networkCommands: readonly CommandSpec[] = [
  command('benchmark network serve', 'Answer to those who measure the network.', serveOptions, runServe),
  command('benchmark network run', 'Measure paths to agents on other nodes.', runOptions, runRun, measurementGrace),
]

async function runServe({ listenAddr, life }: ServeOptions, { write, stop }: Surroundings): Promise<void> {
  const { startAgent } = await import('../benchmark/network/agent.ts')
  const agent = await startAgent(listenAddr, versionInfo().version)
  const { host, port } = agent.address
  write(`listening on ${formatHostPort(host === '' ? '::' : host, port)}\n`)
  const over = life === 0 ? stop : AbortSignal.any([stop, AbortSignal.timeout(life)])
  if (!over.aborted) await new Promise((resolve) => over.addEventListener('abort', resolve, { once: true }))
  await agent.close()
}

async function runRun(options: RunOptions, surroundings: Surroundings): Promise<void> {
  // A kubeconfig that only lies in its usual place does not count: nobody's cluster shall be measured by accident.
  if (options.path.length === 0 && options.kubeconfig !== undefined) {
    const { runInCluster } = await import('./benchmark-network-cluster.ts')
    await runInCluster(options, surroundings)
    return
  }
  const { writeError, write, stop, commandLine } = surroundings
  const [{ parsePaths, runNetwork, totalTimes }, { describeMachine }, { defaultPort }] = await Promise.all([
    import('../benchmark/network/run.ts'),
    import('../testbed/machine.ts'),
    import('../benchmark/network/protocol.ts'),
  ])
  const { rounds, resultDir, connections, agentsTimeout: agentsTimeoutMs } = options
  const paths = await parsePaths(options.path, '--path', defaultPort)
  const settings = { durationMs: options.duration, connections, random: systemRandom }
  const machine = describeMachine()
  const isPiped = resultDir === '-'
  // Two streams that are joined again, as a log of a container, may be cut into each other.
  const say = (line: string) => (isPiped ? write : writeError)(`${line}\n`)
  const names = paths.map(({ name }) => name)
  say(announcement(names, rounds, totalTimes(names.length, { rounds, settings }).expectedMs))
  const result = await runNetwork({
    paths,
    agentsTimeoutMs,
    rounds,
    settings,
    target: 'addresses',
    facts: benchmarkFacts(options.name ?? 'network', machine, commandLine),
    agentCommand: [process.execPath, commandLine[0] ?? '', 'benchmark', 'network', 'serve'],
    say,
    save: (all) => (isPiped ? Promise.resolve(write(`${JSON.stringify(all)}\n`)) : saveResult(resultDir, all)),
    now: () => new Date(),
    signal: stop,
  }).catch((error: unknown) => {
    if (!stop.aborted) throw error
    // The result says so; a line on the other stream would be cut into it.
    if (isPiped) return undefined
    throw new UserError(brokenOff(resultDir))
  })
  if (result !== undefined && !isPiped) conclude(result, resultDir, write)
}

export function announcement(paths: readonly string[], rounds: number, expectedMs: number): string {
  const about = formatDuration(Math.ceil(expectedMs / 1000) * 1000)
  return `${rounds} rounds of ${paths.join(', ')}: about ${about}`
}

export async function saveResult(folder: string, result: NetworkResult): Promise<void> {
  const { writeResult } = await import('../benchmark/result/result-file.ts')
  await makeDirectory(folder)
  await writeResult(folder, result)
}

export function brokenOff(folder: string): string {
  return `broken off: what was measured until then is in ${folder === '-' ? 'the result' : `${folder}/result.json`}`
}

/** Says where it is. Throws a UserError when not all could be measured. */
export function conclude({ loopback, turns }: NetworkResult, folder: string, write: Surroundings['write']): void {
  write(`${folder}/result.json: see it with spegel-ts benchmark analyze --path ${folder}\n`)
  const failures = [...loopback, ...turns].filter((turn) => turn.kind === 'failed')
  const [first] = failures
  if (first === undefined) return
  throw new UserError(
    `${failures.length} measurements failed, the first on ${first.path}: ${first.measurement}: ${first.error}`,
  )
}
