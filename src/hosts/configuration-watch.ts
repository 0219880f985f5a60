/**
 * Notices when containerd no longer reaches this mirror: certs.d was rewritten by a distribution, by hand or by a second
 * tool, or another program answers at the mirror's address. Reports it by log, readiness warning and metric. Repairs nothing:
 * the file may be what its author wants.
 *
 * A registry is expected to lead to the mirror if the operator named the mirror's targets for this daemon, if `configuration`
 * has run on the directory, or if the registry led to the mirror before. An operator excludes a registry by
 * `--registry-filters`, or by naming the others in `--mirrored-registries`.
 */
import { isConfigured as isConfiguredIn, isOwnFile, readRegistryHosts, registriesIn } from './registry-hosts.ts'
import type { RegistryHosts } from './registry-hosts.ts'
import type { LoadedHost } from './loaded-hosts.ts'
import { type MirrorAddress, isMirror, isOwnInterface, isOwnSocket } from './mirror-address.ts'
import { probeMirror } from './mirror-probe.ts'
import { wildcardRegistry } from './registry-url.ts'
import type { Clock } from '../lib/clock.ts'
import { errorCode, errorMessage } from '../lib/errors.ts'
import type { Random } from '../lib/random.ts'
import {
  configurationCheckJitterMs,
  configurationCheckMs,
  configurationLogAgainMs,
  configurationWarningsMax,
  mirrorProbesMax,
  registryDirectoriesMax,
} from '../limits.ts'
import type { Logger } from '../logger.ts'

export const problemReasons = [
  'missing',
  'invalid_file',
  'unreadable',
  'mirror_not_first',
  'foreign_listener',
  'no_response',
  'unreachable',
] as const
export type ProblemReason = (typeof problemReasons)[number]

export interface WatchConfig extends MirrorAddress {
  /** certs.d */
  directory: string
  /** Hosts that the daemon mirrors; empty means all. */
  registries: readonly string[]
  /** Whether the operator keeps the mirror away from all of a registry. */
  isExcluded: (registry: string) => boolean
  /** What this process sends as `instanceHeader`. */
  instance: string
}

interface WatchComponents {
  clock: Clock
  random: Random
  logger: Logger
  /** After each check: how many problems of each reason there are. */
  onCount: (counts: Readonly<Record<ProblemReason, number>>) => void
}

interface Problem {
  reason: ProblemReason
  /** A registry, or an address of the mirror. */
  subject: string
  /** One line: where, what is wrong, and what to do. */
  message: string
}

const remedies: Record<ProblemReason, string> = {
  missing: 'run spegel-ts configuration (in Kubernetes: restart this pod, whose init container runs it)',
  mirror_not_first: 'run spegel-ts configuration (in Kubernetes: restart this pod, whose init container runs it)',
  invalid_file: 'correct the file, then run spegel-ts configuration (in Kubernetes: restart this pod)',
  unreadable: "let the daemon's user read it",
  foreign_listener:
    'stop the program that listens there, or choose another --registry-addr and run spegel-ts configuration',
  no_response:
    'stop the program that listens there, or choose another --registry-addr and run spegel-ts configuration',
  unreachable: 'let containerd reach the daemon there, or run spegel-ts configuration with another --mirror-targets',
}

export class ConfigurationWatch {
  readonly #config: WatchConfig
  readonly #components: WatchComponents
  /** Registries that led to the mirror at some check. */
  readonly #ledBefore = new Set<string>()
  /** Addresses at which this process was reached from here. */
  readonly #reachedBefore = new Set<string>()
  /** Found by the last check, by key. Those that the next check finds too are reported. */
  #suspected = new Map<string, Problem>()
  #reported: readonly Problem[] = []
  #loggedMs = 0
  #isUnknownAddressLogged = false

  constructor(config: WatchConfig, components: WatchComponents) {
    this.#config = config
    this.#components = components
  }

  /** For /readyz: what the last checks found. */
  warnings(): string[] {
    return messagesOf(this.#reported).map((message) => `configuration: ${message}`)
  }

  /** Checks at once and then again and again, until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random, logger } = this.#components
    while (!signal.aborted) {
      try {
        await this.check(signal)
      } catch (error) {
        const stack = error instanceof Error ? error.stack : undefined
        logger.error({ error: errorMessage(error), stack }, 'the check of the configuration failed')
      }
      const pauseMs = configurationCheckMs + random() * configurationCheckJitterMs
      await clock.sleep(pauseMs, signal).catch((error: unknown) => {
        if (!signal.aborted) throw error
      })
    }
  }

  async check(stop: AbortSignal): Promise<void> {
    const found = await this.#findProblems(stop)
    if (stop.aborted) return
    const keyed = new Map(found.map((problem) => [`${problem.reason} ${problem.subject}`, problem]))
    const confirmed = [...keyed].filter(([key]) => this.#suspected.has(key)).map(([, problem]) => problem)
    this.#suspected = keyed
    this.#report(confirmed)
  }

  async #findProblems(stop: AbortSignal): Promise<Problem[]> {
    const { directory, targets } = this.#config
    const hosts = await this.#readHosts().catch((error: unknown) => {
      if (errorCode(error) === undefined) throw error
      return errorMessage(error)
    })
    const found =
      typeof hosts === 'string'
        ? [problemOf('unreadable', directory, `${directory} cannot be checked: ${hosts}`)]
        : await this.#misled(hosts)
    const leading = typeof hosts === 'string' ? [] : [...hosts.values()].filter((host) => this.#leads(host))
    const addresses = new Set(leading.flatMap((host) => hostsOf(host).slice(0, 1)).map(({ name }) => name))
    const probed = addresses.size > 0 ? [...addresses] : targets.slice(0, 1)
    const listeners = await Promise.all(probed.slice(0, mirrorProbesMax).map((url) => this.#probe(url, stop)))
    return [...found, ...listeners.filter((one) => one !== undefined)]
  }

  /** The first host of each registry in scope. Throws when the directory exists and cannot be read. */
  async #readHosts(): Promise<Map<string, RegistryHosts>> {
    const { directory, registries, isExcluded } = this.#config
    const names = registries.length > 0 ? registries : await registriesIn(directory)
    const hosts = new Map<string, RegistryHosts>()
    for (const name of new Set([...names, ...this.#ledBefore])) {
      if (!isExcluded(name)) hosts.set(name, await readRegistryHosts(directory, name))
    }
    for (const [name, host] of hosts) {
      if (this.#leads(host) && this.#ledBefore.size < registryDirectoriesMax) this.#ledBefore.add(name)
    }
    return hosts
  }

  #leads(host: RegistryHosts): boolean {
    const [first] = hostsOf(host)
    return first !== undefined && isMirror(first.apiUrl, this.#config)
  }

  /** Registries that are expected to lead to the mirror, and do not. */
  async #misled(hosts: ReadonlyMap<string, RegistryHosts>): Promise<Problem[]> {
    const { directory, targets, listen } = this.#config
    const isNamed = targets.length > 0
    const isConfigured = await isConfiguredIn(directory)
    if (!isNamed && !isConfigured && this.#ledBefore.size === 0) return []
    // `configuration` was run with an address that is not recognised as this daemon's.
    if (!isNamed && !this.#isNamedAnywhere(hosts) && (await someAsync(hosts.values(), isOwnFile))) {
      this.#logUnknownAddress(listen.port)
      return []
    }
    return [...hosts]
      .filter(([name, host]) => !this.#leads(host) && this.#isExpected(name))
      .map(([name, host]) => describe(name, host))
  }

  #isNamedAnywhere(hosts: ReadonlyMap<string, RegistryHosts>): boolean {
    const named = [...hosts.values()].flatMap(hostsOf)
    return this.#ledBefore.size > 0 || named.some(({ apiUrl }) => isMirror(apiUrl, this.#config))
  }

  /** Of a directory that leads to the mirror somewhere, did so before, or should by what the operator says. */
  #isExpected(registry: string): boolean {
    const { targets, registries } = this.#config
    if (targets.length > 0 || registries.length > 0 || this.#ledBefore.has(registry)) return true
    // `configuration` may have been run for some registries only: then there never was a _default.
    if (registry === wildcardRegistry) return this.#ledBefore.size === 0
    return this.#ledBefore.has(wildcardRegistry)
  }

  #logUnknownAddress(port: number): void {
    if (this.#isUnknownAddressLogged) return
    this.#isUnknownAddressLogged = true
    this.#components.logger.info(
      { directory: this.#config.directory, port },
      'certs.d is not checked: its first hosts are no addresses of this daemon; name them by --mirror-targets',
    )
  }

  /** A problem only where it is certain: containerd may be in another network namespace than this process. */
  async #probe(url: string, stop: AbortSignal): Promise<Problem | undefined> {
    const { instance, listen } = this.#config
    const { who, detail } = await probeMirror(url, { instance, clock: this.#components.clock, stop })
    const message = `${url}: ${detail}`
    switch (who) {
      case 'this_daemon':
        if (this.#reachedBefore.size < mirrorProbesMax) this.#reachedBefore.add(url)
        return undefined
      case 'other_daemon':
        // A Service may choose the daemon of another node.
        return isOwnSocket(url, listen) ? problemOf('foreign_listener', url, message) : undefined
      case 'foreign':
        return problemOf('foreign_listener', url, `${message}, and is not this mirror`)
      case 'silent':
        return problemOf('no_response', url, message)
      case 'unreachable':
        if (!this.#reachedBefore.has(url) && !isOwnInterface(url)) return undefined
        return problemOf('unreachable', url, message)
    }
  }

  #report(problems: readonly Problem[]): void {
    const { clock, logger, onCount } = this.#components
    const counts = Object.fromEntries(problemReasons.map((reason) => [reason, 0])) as Record<ProblemReason, number>
    for (const { reason } of problems) counts[reason] += 1
    onCount(counts)
    const isChanged = keysOf(problems) !== keysOf(this.#reported)
    this.#reported = problems
    // A directory that the daemon cannot read is reported once, not every hour.
    const isDue = clock.nowMs() - this.#loggedMs >= configurationLogAgainMs
    if (!isChanged && !(isDue && problems.some(({ reason }) => reason !== 'unreadable'))) return
    this.#loggedMs = clock.nowMs()
    const fields = { count: problems.length, problems: messagesOf(problems) }
    if (problems.length > 0) logger.warn(fields, 'containerd does not reach this mirror for all registries')
    else logger.info('containerd reaches this mirror again')
  }
}

function describe(registry: string, host: RegistryHosts): Problem {
  const { reason, detail } =
    'problem' in host
      ? host.problem
      : {
          reason: 'mirror_not_first' as const,
          detail: `the first host is ${hostsOf(host)[0]?.name}, not this mirror`,
        }
  return problemOf(reason, registry, `${registry}: ${host.path}: ${detail}`)
}

function hostsOf(found: RegistryHosts): readonly LoadedHost[] {
  return 'hosts' in found ? found.hosts : []
}

function problemOf(reason: ProblemReason, subject: string, what: string): Problem {
  return { reason, subject, message: `${what}: ${remedies[reason]}` }
}

function keysOf(problems: readonly Problem[]): string {
  return problems
    .map(({ reason, subject }) => `${reason} ${subject}`)
    .toSorted()
    .join('\n')
}

function messagesOf(problems: readonly Problem[]): string[] {
  const messages = problems.slice(0, configurationWarningsMax).map(({ message }) => message)
  const more = problems.length - messages.length
  return more > 0 ? [...messages, `${more} more`] : messages
}

async function someAsync<T>(items: Iterable<T>, test: (item: T) => Promise<boolean>): Promise<boolean> {
  for (const item of items) if (await test(item)) return true
  return false
}
