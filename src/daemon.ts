/** The `registry` command's program: the one place that names concrete classes and puts them together. */
import { randomUUID } from 'node:crypto'
import { access, constants } from 'node:fs/promises'
import { ConfigurationWatch, type ProblemReason, problemReasons } from './hosts/configuration-watch.ts'
import { refusesConnections } from './hosts/refusal.ts'
import { upstreamOrigin } from './hosts/upstream.ts'
import { type Bootstrapper } from './bootstrap/bootstrapper.ts'
import { dnsBootstrapper } from './bootstrap/dns.ts'
import { type Certificates, httpBootstrapper, serveIdentity } from './bootstrap/http.ts'
import { type KubernetesBootstrapConfig, kubernetesBootstrapper } from './bootstrap/kubernetes.ts'
import { NamedAddresses } from './bootstrap/named-addresses.ts'
import { staticBootstrapper } from './bootstrap/static.ts'
import { ContainerdClient, isContainerdError } from './containerd/client.ts'
import { startMetricsServer } from './http/metrics-server.ts'
import type { HostPort } from './lib/address.ts'
import { inBackground, onInternalError } from './lib/background.ts'
import { type Clock, systemClock } from './lib/clock.ts'
import { Closers } from './lib/closers.ts'
import { UserError, errorMessage, errorStack, expecting, isSystemError } from './lib/errors.ts'
import { finLingerMs } from './limits.ts'
import { ownAddress } from './lib/own-address.ts'
import { type Random, systemRandom } from './lib/random.ts'
import type { Logger } from './logger.ts'
import { OwnNode } from './lib/own-node.ts'
import { type Metrics, collectProcessMetrics, createMetrics, initRegistry } from './metrics.ts'
import { nameFilter } from './oci/filter.ts'
import type { BasicAuth } from './registry/auth.ts'
import { RegistryServer } from './registry/server.ts'
import { SharedPassword } from './registry/shared-password.ts'
import { RenewableRouter } from './router/renewable-router.ts'
import { BlobFolder } from './store/blob-folder.ts'
import { IngestFolder } from './store/ingest-folder.ts'
import { ContainerdStore } from './store/containerd/containerd-store.ts'
import { LayoutStore } from './store/layout/layout-store.ts'
import type { ContentStore } from './store/store.ts'
import { track } from './tracker/tracker.ts'

export interface DaemonConfig {
  version: string
  store:
    | { kind: 'containerd'; socketPath: string; namespace: string; contentPath: string }
    | { kind: 'layout'; path: string }
  bootstrap:
    | { kind: 'dns'; domain: string }
    | { kind: 'http'; url: URL }
    | ({ kind: 'kubernetes' } & KubernetesBootstrapConfig)
    | { kind: 'static'; peers: readonly string[] }
  /** For asking and for serving over HTTPS. */
  bootstrapCertificates: Certificates | undefined
  /** Where to tell others who this node is; undefined: nowhere. */
  identityListen: HostPort | undefined
  registryListen: HostPort
  routerListen: HostPort
  metricsListen: HostPort
  /** Empty: found out. */
  advertisedIps: readonly string[]
  dataDir: string | undefined
  /** Addresses that this node's containerd connects from, beyond those that `OwnNode` finds. */
  nodeIps?: readonly string[]
  /** Hosts; empty means all. */
  mirroredRegistries: readonly string[]
  registryFilters: readonly RegExp[]
  defaultRegistry: string | undefined
  resolveTimeoutMs: number
  /** How long a peer may give next to nothing while bytes are waited for. */
  stallTimeoutMs: number
  /** Peers to look for. */
  providersWanted: number
  auth: BasicAuth | undefined
  /** Share downloads of new content while they run. */
  flights: boolean
  /** containerd's folder of hosts.toml files; undefined: containerd finds its own way upstream. */
  hostsFolder: string | undefined
  /** URLs that hosts.toml should name first. Empty or undefined: the registry port on any address of this machine. */
  mirrorTargets?: readonly string[]
}

export interface Daemon {
  /** This node's id in the swarm. Changes when another node has the same one. */
  readonly id: string
  /** Stops taking requests, lets transfers end within the grace time, leaves the swarm. */
  close(graceMs: number): Promise<void>
}

interface World {
  clock: Clock
  random: Random
  logger: Logger
}

/**
 * Starts everything, or nothing. Throws a UserError for what the operator can fix. `watchClock`: the time by which the node's
 * configuration is checked.
 */
export async function startDaemon(config: DaemonConfig, logger: Logger, watchClock?: Clock): Promise<Daemon> {
  const world: World = { clock: systemClock, random: systemRandom, logger }
  const logError = (error: unknown) => logger.error({ error: errorMessage(error) }, 'shutdown failed')
  const closers = new Closers(world.clock, logError)
  try {
    const router = await startParts(config, { ...world, watchClock }, closers)
    return {
      get id() {
        return router.id
      },
      close: (graceMs) => closers.close(graceMs),
    }
  } catch (error) {
    // Why it did not start is what the operator needs.
    await closers.close(0).catch(logError)
    throw error
  }
}

async function startParts(
  config: DaemonConfig,
  world: World & { watchClock: Clock | undefined },
  closers: Closers,
): Promise<RenewableRouter> {
  const { clock, random, logger } = world
  const metrics = createMetrics()
  collectProcessMetrics(metrics)
  for (const registry of config.mirroredRegistries) initRegistry(metrics, registry)
  const stopReporting = onInternalError(({ task, error, fields }) => {
    metrics.internalErrors.inc({ task })
    logger.error({ ...fields, task, error: errorMessage(error), stack: errorStack(error) }, 'internal error')
  })
  closers.add({ name: 'error reports', close: () => Promise.resolve(stopReporting()) })
  const filter = nameFilter(config.mirroredRegistries, config.registryFilters)

  const { store, transfers } = await openStore(config, world)
  closers.add({ name: 'store', close: () => store.close() })

  const bootstrapper = createBootstrapper(config)
  const router = await startRouter(config, bootstrapper, world, metrics)
  closers.add({ name: 'router', close: () => router.close() })

  let inventoryComplete = false
  let trackerEnded = false
  const notReady = () => [
    ...(trackerEnded ? ['tracker: ended by an error, see the log: restart the daemon'] : []),
    ...(inventoryComplete ? [] : ['tracker: the first inventory is not advertised yet']),
    ...[store.problem(), router.problem()].filter((reason) => reason !== undefined),
  ]
  if (transfers !== undefined) {
    closers.add({ name: 'transfers', close: () => Promise.resolve(transfers.stop()) })
    transfers.start()
    await router.announceFlights()
  }
  const flight =
    transfers === undefined
      ? undefined
      : {
          transfers,
          self: {
            get id() {
              return router.id
            },
            addresses: router.ips,
          },
          upstreamOrigin: (registry: string) =>
            config.hostsFolder === undefined
              ? Promise.resolve(undefined)
              : upstreamOrigin(config.hostsFolder, registry),
          upstreamRefuses: refusesConnections,
        }
  const ownNode = new OwnNode(config.nodeIps ?? [])
  const isOwnNode = (remoteAddress: string | undefined) => ownNode.has(remoteAddress)
  const auth = await sharedPassword(config, bootstrapper, router, world)
  const instance = randomUUID()
  const watch = watchConfiguration(config, instance, { ...world, clock: world.watchClock ?? clock }, metrics)
  const warnings = () => [...router.warnings(), ...(watch?.warnings() ?? [])]
  const registry = new RegistryServer(
    { listen: config.registryListen, ...config },
    {
      store,
      router,
      filter,
      auth,
      notReady,
      warnings,
      instance,
      isOwnNode,
      flight,
      clock,
      random,
      metrics,
      logger,
    },
  )
  await registry.start()
  closers.add({ name: 'registry', close: (graceMs) => registry.close(graceMs), lingerMs: finLingerMs })

  const metricsServer = await startMetricsServer(config.metricsListen, {
    metrics,
    notReady,
    warnings,
    isOwnNode,
    beforeScrape: () => {
      const { peers, keys, records } = router.stats()
      metrics.dhtPeers.set(peers)
      metrics.flightsCoordinated.set(registry.flightsCoordinated)
      metrics.providedKeys.set(keys)
      metrics.providerRecords.set(records)
    },
  })
  closers.add({ name: 'metrics server', close: () => metricsServer.close() })

  if (config.identityListen !== undefined) {
    const identity = () => ({ id: router.id, addresses: [...router.addresses] })
    const server = await serveIdentity(config.identityListen, identity, config.bootstrapCertificates)
    closers.add({
      name: 'identity server',
      close: () =>
        new Promise((resolve) => {
          server.close(resolve)
          server.closeAllConnections()
        }),
    })
  }

  const tracking = new AbortController()
  const tracked = inBackground('tracker', () =>
    track({ store, router, filter, metrics }, () => (inventoryComplete = true), tracking.signal).finally(
      () => (trackerEnded = true),
    ),
  )
  closers.add({
    name: 'tracker',
    close: () => {
      tracking.abort()
      return tracked
    },
  })
  if (watch !== undefined) {
    const watching = new AbortController()
    const watched = watch.run(watching.signal)
    closers.add({
      name: 'configuration watch',
      close: () => {
        watching.abort()
        return watched
      },
    })
  }
  // First of all when the daemon stops: transfers may end meanwhile, and the next process may start.
  closers.add({ name: 'identity', close: () => Promise.resolve(router.retire()) })
  logger.info({ id: router.id, addresses: router.addresses, store: config.store.kind }, 'started')
  return router
}

/** Undefined: containerd is not configured by a directory of hosts.toml files. */
function watchConfiguration(
  config: DaemonConfig,
  instance: string,
  { clock, random, logger }: World,
  metrics: Metrics,
): ConfigurationWatch | undefined {
  const onCount = (counts: Readonly<Record<ProblemReason, number>>) => {
    for (const reason of problemReasons) metrics.configurationProblems.set({ reason }, counts[reason])
  }
  if (config.hostsFolder === undefined || config.hostsFolder === '') return undefined
  return new ConfigurationWatch(
    {
      directory: config.hostsFolder,
      registries: config.mirroredRegistries,
      // A filter that matches the registry alone matches each of its repositories.
      isExcluded: (registry) => config.registryFilters.some((filter) => filter.test(`${registry}/`)),
      targets: config.mirrorTargets ?? [],
      listen: config.registryListen,
      instance,
    },
    { clock, random, logger, onCount },
  )
}

interface Opened {
  store: ContentStore
  /** Undefined: flights are off, or there is no folder to see downloads in. */
  transfers: IngestFolder | undefined
}

async function openStore(
  { store: wanted, flights }: DaemonConfig,
  { clock, random, logger }: World,
): Promise<Opened> {
  if (wanted.kind === 'layout')
    return { store: await LayoutStore.open(wanted.path, clock, logger), transfers: undefined }
  const { socketPath, namespace } = wanted
  const client = new ContainerdClient(socketPath, namespace)
  try {
    await access(socketPath)
    logger.info({ version: await client.version(), socket: socketPath }, 'containerd')
  } catch (error) {
    client.close()
    const message = errorMessage(error)
    const advice = message.includes('EACCES')
      ? 'run as its user or group'
      : 'start containerd, mount its socket, or name another'
    throw new UserError(`--containerd-sock: ${socketPath}: ${message}: ${advice}`)
  }
  const path = await contentFolder(wanted.contentPath, client, logger)
  const folder = path === undefined ? undefined : new BlobFolder(path, clock)
  const transfers = flights && path !== undefined ? new IngestFolder(path, namespace, clock) : undefined
  const onContainerd = (isThere: boolean) => transfers?.noteContainerd(isThere)
  const store = new ContainerdStore({ client, folder, clock, random, logger, onContainerd }, namespace)
  await store.start()
  if (flights && path === undefined) logger.warn('flights are off: they need the content folder')
  return { store, transfers }
}

/** The configured folder, else the one that containerd names, else none: then bytes come over gRPC. */
async function contentFolder(
  configured: string,
  client: ContainerdClient,
  logger: Logger,
): Promise<string | undefined> {
  const readable = async (path: string | undefined) =>
    path !== undefined &&
    path !== '' &&
    (await access(path, constants.R_OK | constants.X_OK).then(() => true, expecting(isSystemError, false)))
  if (await readable(configured)) return configured
  const root = await client.contentRoot().catch(expecting(isContainerdError, undefined))
  if (root !== undefined && (await readable(root))) return root
  logger.warn(
    { configured, containerd: root },
    'the content folder cannot be read: content is read through containerd, which costs several times the CPU; mount the folder or set --containerd-content-path',
  )
  return undefined
}

async function startRouter(
  config: DaemonConfig,
  bootstrapper: Bootstrapper,
  { clock, random, logger }: World,
  metrics: Metrics,
): Promise<RenewableRouter> {
  const { host } = config.routerListen
  const wildcard = host === '' || host === '0.0.0.0' || host === '::'
  const found = wildcard ? await ownAddress() : host
  const advertisedIps = config.advertisedIps.length > 0 ? config.advertisedIps : found === undefined ? [] : [found]
  if (advertisedIps.length === 0) {
    throw new UserError('--advertise-addr: this machine has only loopback addresses: name the one that peers reach')
  }
  return RenewableRouter.start(
    {
      listen: config.routerListen,
      advertisedIps,
      dataDir: config.dataDir,
      version: config.version,
      providersWanted: config.providersWanted,
    },
    { bootstrapper, clock, random, logger, metrics },
  )
}

function sharedPassword(
  { auth }: DaemonConfig,
  bootstrapper: Bootstrapper,
  router: RenewableRouter,
  world: World,
): Promise<SharedPassword> | undefined {
  if (auth === undefined) return undefined
  const named = new NamedAddresses(bootstrapper, world.clock)
  const config = {
    bootstrap: bootstrapper.name,
    isOurs: (peerId: string) => router.isOurs(peerId),
    isNamed: (ip: string) => named.has(ip),
    ownIps: () => router.ips,
  }
  return SharedPassword.derive(auth, config, world)
}

function createBootstrapper({ bootstrap, bootstrapCertificates, routerListen }: DaemonConfig): Bootstrapper {
  switch (bootstrap.kind) {
    case 'dns':
      return dnsBootstrapper(bootstrap.domain, routerListen.port)
    case 'http':
      return httpBootstrapper(bootstrap.url, bootstrapCertificates)
    case 'kubernetes':
      return kubernetesBootstrapper(bootstrap, routerListen.port)
    case 'static':
      return staticBootstrapper(bootstrap.peers)
  }
}
