/** All commands, and what those of the daemon do. */
import { once } from 'node:events'
import { readCertificates } from '../bootstrap/http.ts'
import type { Daemon, DaemonConfig } from '../daemon.ts'
import { configureHosts, restoreHosts } from '../hosts/apply.ts'
import { waitForRollout } from '../hosts/cleanup-rollout.ts'
import { waitForCleanup } from '../hosts/cleanup-wait.ts'
import { wildcardRegistry } from '../hosts/registry-url.ts'
import { answerReady } from '../lib/answer-ready.ts'
import { systemClock } from '../lib/clock.ts'
import { giveFolder } from '../lib/owner.ts'
import { UserError, errorMessage } from '../lib/errors.ts'
import { raceAbort } from '../lib/race-abort.ts'
import { KubernetesApi, type KubernetesApiConfig } from '../kubernetes/api.ts'
import { daemonCloseGraceMs } from '../limits.ts'
import { type Logger, createLogger } from '../logger.ts'
import { readBasicAuth } from '../registry/auth.ts'
import { benchmarkCommands } from './benchmark.ts'
import { type CommandSpec, type Surroundings, command } from './command.ts'
import { UsageError } from './option.ts'
import {
  type ApiServerOptions,
  type CleanupOptions,
  type CleanupWaitOptions,
  type ConfigurationOptions,
  type PrepareOptions,
  type RegistryOptions,
  type VersionOptions,
  cleanupOptions,
  cleanupWaitOptions,
  configurationOptions,
  prepareOptions,
  registryOptions,
  versionOptions,
} from './options.ts'
import { versionInfo } from './version.ts'

export const commands: readonly CommandSpec[] = [
  command(
    'registry',
    "Run the mirror: serve this node's images, and find those of others.",
    registryOptions,
    runRegistry,
    ({ shutdownGrace }) => shutdownGrace + daemonCloseGraceMs,
  ),
  command('configuration', 'Point containerd at the mirror (hosts.toml).', configurationOptions, runConfiguration),
  command(
    'prepare',
    "Make the daemon's folder and give it to the user that the daemon runs as.",
    prepareOptions,
    runPrepare,
  ),
  command(
    'cleanup',
    "Restore containerd's configuration, then answer /readyz until stopped.",
    cleanupOptions,
    runCleanup,
  ),
  command('cleanup-wait', 'Wait until the cleanup on every node is done.', cleanupWaitOptions, runCleanupWait),
  command('version', 'Print the version.', versionOptions, runVersion),
  ...benchmarkCommands,
]

async function runRegistry(options: RegistryOptions, { stop, writeError }: Surroundings): Promise<void> {
  const logger = createLogger(options.logLevel, { write: writeError })
  // Nothing is served before the start is complete: there is no reason to wait for it.
  const daemon = await raceAbort(startRegistry(options, logger), stop)
  if (!stop.aborted) await once(stop, 'abort')
  logger.info({ graceMs: options.shutdownGrace }, 'stopping: running transfers may end')
  await daemon.close(options.shutdownGrace)
  logger.info('stopped')
}

async function startRegistry(options: RegistryOptions, logger: Logger): Promise<Daemon> {
  const config: DaemonConfig = {
    version: versionInfo().version,
    store:
      options.ociLayout === undefined
        ? {
            kind: 'containerd',
            socketPath: options.containerdSock,
            namespace: options.containerdNamespace,
            contentPath: options.containerdContentPath,
          }
        : { kind: 'layout', path: options.ociLayout },
    bootstrap: chooseBootstrap(options),
    bootstrapCertificates:
      options.httpBootstrapCertDir === undefined ? undefined : await readCertificates(options.httpBootstrapCertDir),
    identityListen: options.httpBootstrapAddr,
    registryListen: options.registryAddr,
    routerListen: options.routerAddr,
    metricsListen: options.metricsAddr,
    advertisedIps: options.advertiseAddr,
    nodeIps: options.nodeIp,
    dataDir: options.dataDir,
    mirroredRegistries: options.mirroredRegistries.some(({ host }) => host === wildcardRegistry)
      ? []
      : options.mirroredRegistries.map(({ host }) => host),
    registryFilters: options.registryFilters,
    defaultRegistry: options.defaultRegistry,
    resolveTimeoutMs: options.mirrorResolveTimeout,
    stallTimeoutMs: options.mirrorStallTimeout,
    providersWanted: options.mirrorResolveRetries,
    auth: await readBasicAuth(options.basicAuthDir),
    flights: options.flights,
    hostsFolder: options.containerdRegistryConfigPath,
    mirrorTargets: options.mirrorTargets,
  }
  // Loaded when needed: libp2p and gRPC take most of a second, which the other commands and errors need not wait for.
  const { startDaemon } = await import('../daemon.ts')
  return startDaemon(config, logger)
}

function chooseBootstrap(options: RegistryOptions): DaemonConfig['bootstrap'] {
  const { dnsBootstrapDomain: domain, httpBootstrapUrl: url, staticBootstrapPeers: peers } = options
  const { kubernetesBootstrapService: service } = options
  const given = [
    ...(domain === undefined ? [] : [{ kind: 'dns' as const, domain }]),
    ...(url === undefined ? [] : [{ kind: 'http' as const, url }]),
    ...(service === undefined
      ? []
      : [
          {
            kind: 'kubernetes' as const,
            service,
            ...apiConfig(options, 'registry: --kubernetes-bootstrap-service'),
          },
        ]),
    ...(peers.length === 0 ? [] : [{ kind: 'static' as const, peers }]),
  ]
  const kind = options.bootstrapKind ?? (given.length === 1 ? given[0]?.kind : undefined)
  const chosen = given.find((candidate) => candidate.kind === kind)
  if (chosen !== undefined) return chosen
  // The first node of a swarm knows nobody: others come to it.
  if (kind === 'static') return { kind, peers: [] }
  if (kind === undefined && given.length > 1) {
    throw new UsageError('registry: several bootstraps are given: choose one with --bootstrap-kind')
  }
  const needed = {
    dns: '--dns-bootstrap-domain',
    http: '--http-bootstrap-url',
    kubernetes: '--kubernetes-bootstrap-service',
  }
  throw new UsageError(
    kind === undefined
      ? 'registry: how to find a first peer? Give --dns-bootstrap-domain, --http-bootstrap-url, --kubernetes-bootstrap-service or --static-bootstrap-peers'
      : `registry: --bootstrap-kind ${kind} needs ${needed[kind]}`,
  )
}

/** `user` is what needs it, for the error. */
function apiConfig(options: ApiServerOptions, user: string): KubernetesApiConfig {
  const { kubernetesServiceHost: host, kubernetesServicePort: port, kubernetesCredentialsDir } = options
  if (host === undefined) throw new UsageError(`${user} needs --kubernetes-service-host outside of a pod`)
  return { apiServer: { host, port }, credentialsFolder: kubernetesCredentialsDir }
}

async function runConfiguration(options: ConfigurationOptions, { writeError }: Surroundings): Promise<void> {
  const logger = createLogger(options.logLevel, { write: writeError })
  const auth = await readBasicAuth(options.basicAuthDir)
  const config = {
    directory: options.containerdRegistryConfigPath,
    registries: options.mirroredRegistries,
    targets: options.mirrorTargets,
    resolveTags: options.resolveTags,
    prependExisting: options.prependExisting,
    authorization: auth?.header,
    containerdVersion: await runningContainerd(options.containerdSock),
  }
  await configureHosts(config, logger)
  logger.info(
    { directory: config.directory, registries: config.registries.map(({ host }) => host) },
    'hosts.toml written',
  )
}

/** Without the version, every supported one must understand what is written. */
async function runningContainerd(socketPath: string): Promise<string | undefined> {
  if (socketPath === '') return undefined
  const { containerdVersion } = await import('../containerd/version.ts')
  return containerdVersion(socketPath)
}

async function runPrepare({ dataDir, owner }: PrepareOptions): Promise<void> {
  try {
    await giveFolder(dataDir, owner)
  } catch (error) {
    throw new UserError(`--data-dir: ${dataDir}: ${errorMessage(error)}: run as root, and mount it writable`)
  }
}

async function runCleanup(options: CleanupOptions, { stop, writeError }: Surroundings): Promise<void> {
  const logger = createLogger(options.logLevel, { write: writeError })
  const { containerdRegistryConfigPath: folder, dataDir, keepFolder } = options
  const outcome = folder === '' ? undefined : await restoreHosts(folder, { keepDirectory: keepFolder })
  if (dataDir !== undefined) {
    const { removeIdentity } = await import('../router/identity.ts')
    await removeIdentity(dataDir)
  }
  logger.info({ folder, outcome, dataDir }, 'cleanup')
  await answerReady(options.addr, '--addr', stop)
}

async function runCleanupWait(options: CleanupWaitOptions, { stop, writeError }: Surroundings): Promise<void> {
  const logger = createLogger(options.logLevel, { write: writeError })
  const { probeEndpoint: endpoint, daemonset, threshold, period: periodMs, timeout: timeoutMs } = options
  if (endpoint !== undefined && daemonset === undefined) {
    await waitForCleanup({ endpoint, threshold, periodMs }, systemClock, logger, stop)
  } else if (endpoint === undefined && daemonset !== undefined) {
    const api = new KubernetesApi(apiConfig(options, 'cleanup-wait: --daemonset'))
    await waitForRollout({ ...daemonset, timeoutMs, periodMs }, api, systemClock, logger, stop)
  } else {
    throw new UsageError('cleanup-wait: give either --probe-endpoint or --daemonset')
  }
}

function runVersion({ format }: VersionOptions, { write }: Surroundings): Promise<void> {
  const info = versionInfo()
  const text = Object.entries(info).map(([name, value]) => `${name}: ${value}\n`)
  write(format === 'json' ? `${JSON.stringify(info)}\n` : text.join(''))
  return Promise.resolve()
}
