/** The commands `spegel-ts benchmark network …`. */
import { type HostPort, formatHostPort, parseHostPort } from '../lib/address.ts'
import { formatDuration } from '../lib/duration.ts'
import { UserError } from '../lib/errors.ts'
import { systemRandom } from '../lib/random.ts'
import { benchmarkFacts } from './benchmark-facts.ts'
import { type CommandSpec, type Surroundings, command } from './command.ts'
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

interface RunOptions {
  path: readonly string[]
  resultDir: string
  name: string
  rounds: number
  duration: number
  connections: number
}

const longestMeasurementMs = 60_000
const connectionsLimit = 256

const runOptions: OptionTable<RunOptions> = {
  path: listOption({
    flag: '--path',
    placeholder: '<name=addr...>',
    help: 'Paths to measure side by side, such as host=10.0.0.7 pod=10.244.1.3:5010; an agent must run there. The first is what the others are compared with. Without a port: 5010.',
  }),
  resultDir: mapOption(
    textOption({ flag: '--result-dir', placeholder: '<folder>', help: 'Where the result goes.' }),
    (value, flag) => {
      if (value === undefined || value === '') throw new UserError(`${flag} is needed`)
      return value
    },
  ),
  name: textOption({ flag: '--name', default: 'network', help: 'What the result is called in reports.' }),
  rounds: mapOption(
    integerOption({
      flag: '--rounds',
      default: 2,
      min: 1,
      help: 'How often all is measured, at most 100; paths take turns in each.',
    }),
    atMost(100),
  ),
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
  connections: mapOption(
    integerOption({
      flag: '--connections',
      default: 32,
      min: 1,
      help: 'At once, for values and for HTTP, at most 256.',
    }),
    atMost(connectionsLimit),
  ),
}

function atMost(limit: number): (value: number, flag: string) => number {
  return (value, flag) => {
    if (value > limit) throw new UserError(`${flag}: ${value} is more than ${limit}`)
    return value
  }
}

export const networkCommands: readonly CommandSpec[] = [
  command('benchmark network serve', 'Answer to those who measure the network.', serveOptions, runServe),
  command('benchmark network run', 'Measure paths to agents on other nodes.', runOptions, runRun),
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
  const { writeError, write, stop, commandLine } = surroundings
  const [{ expectedMs, parsePaths, runNetwork }, { describeMachine }, { defaultPort }] = await Promise.all([
    import('../benchmark/network/run.ts'),
    import('../testbed/machine.ts'),
    import('../benchmark/network/protocol.ts'),
  ])
  const { rounds, resultDir, connections } = options
  const paths = await parsePaths(options.path, '--path', defaultPort)
  const settings = { durationMs: options.duration, connections, random: systemRandom }
  const machine = describeMachine()
  const say = (line: string) => writeError(`${line}\n`)
  const minutes = formatDuration(Math.ceil(expectedMs({ paths, rounds, settings }) / 1000) * 1000)
  say(`${rounds} rounds of ${paths.map(({ name }) => name).join(', ')}: about ${minutes}`)
  const result = await runNetwork({
    folder: resultDir,
    paths,
    rounds,
    settings,
    target: 'addresses',
    facts: benchmarkFacts(options.name, machine, commandLine),
    agentCommand: [process.execPath, commandLine[0] ?? '', 'benchmark', 'network', 'serve'],
    say,
    now: () => new Date(),
    signal: stop,
  }).catch((error: unknown) => {
    if (!stop.aborted) throw error
    throw new UserError(`broken off: what was measured until then is in ${resultDir}/result.json`)
  })
  write(`${resultDir}/result.json: see it with spegel-ts benchmark analyze --path ${resultDir}\n`)
  const failures = [...result.loopback, ...result.turns].filter((turn) => turn.kind === 'failed')
  const [first] = failures
  if (first === undefined) return
  throw new UserError(
    `${failures.length} measurements failed, the first on ${first.path}: ${first.measurement}: ${first.error}`,
  )
}
