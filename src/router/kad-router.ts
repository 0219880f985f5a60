/** Router over the DHT: puts the parts of this folder together. */
import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { type Bootstrapper, toMultiaddr } from '../bootstrap/bootstrapper.ts'
import { type HostPort, formatHostPort } from '../lib/address.ts'
import { UserError } from '../lib/errors.ts'
import type { Clock } from '../lib/clock.ts'
import { parsed } from '../lib/foreign.ts'
import type { Random } from '../lib/random.ts'
import type { Logger } from '../logger.ts'
import type { Metrics } from '../metrics.ts'
import { AddressBook, ipOf } from './address-book.ts'
import { AddressProofs } from './address-proofs.ts'
import { Answerer } from './answer.ts'
import { BootstrapLoop } from './bootstrap-loop.ts'
import { CloneWatch } from './clone-watch.ts'
import { dhtKey, kadId } from './content-cid.ts'
import { findProviders } from './find.ts'
import { loadIdentity } from './identity.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import { lookupCacheEntriesMax, replication } from '../limits.ts'
import { compareDistance } from './distance.ts'
import { NodeKinds, flightsProtocol } from './kinds.ts'
import { type SwarmNode, startSwarmNode } from './libp2p-node.ts'
import { LookupCache } from './lookup-cache.ts'
import { Membership } from './membership.ts'
import { Provider } from './provide.ts'
import { ProviderStore } from './provider-store.ts'
import type { LookupDepth, Peer, Router } from './router.ts'
import { RoutingTable, type TablePeer } from './routing-table.ts'
import { DhtRpc } from './rpc.ts'

export interface KadRouterConfig {
  listen: HostPort
  /** IP addresses that other nodes reach this one at. */
  advertisedIps: readonly string[]
  dataDir: string | undefined
  version: string
  /** A look-up ends when this many were found. */
  providersWanted: number
}

export interface KadRouterComponents {
  bootstrapper: Bootstrapper
  clock: Clock
  random: Random
  logger: Logger
  metrics: Metrics
  /** It is proven that another running process has this node's identity. */
  onClone?: () => void
}

export class KadRouter implements Router {
  /** This node's id in the swarm. */
  readonly id: string
  /** What others dial: `/ip4/10.0.0.1/tcp/5001`. */
  readonly addresses: readonly string[]
  /** Where others reach this node. */
  readonly ips: readonly string[]
  readonly #node: SwarmNode
  readonly #store: ProviderStore
  readonly #table: RoutingTable
  readonly #rpc: DhtRpc
  readonly #answerer: Answerer
  readonly #membership: Membership
  readonly #provider: Provider
  readonly #bootstrap: BootstrapLoop
  readonly #clones: CloneWatch
  readonly #lookups: LookupCache
  readonly #kinds: NodeKinds
  readonly #addressBook: AddressBook
  readonly #proofs: AddressProofs
  readonly #selfKadId: Uint8Array
  /** The closest nodes that look-ups of a key have met: in a large swarm the own table does not know them all. */
  readonly #closest = new BoundedMap<string, readonly TablePeer[]>(lookupCacheEntriesMax)
  readonly #stop = new AbortController()

  private constructor(
    node: SwarmNode,
    privateKey: PrivateKey,
    store: ProviderStore,
    addresses: readonly string[],
    {
      advertisedIps,
      providersWanted,
      dataDir,
    }: Pick<KadRouterConfig, 'advertisedIps' | 'providersWanted' | 'dataDir'>,
    components: KadRouterComponents,
  ) {
    const { libp2p, dht } = node
    const { clock, random, metrics, logger, bootstrapper } = components
    this.#node = node
    this.#store = store
    this.addresses = addresses
    this.ips = advertisedIps
    this.id = libp2p.peerId.toString()
    store.setSelf(this.id)
    const table = new RoutingTable(
      dht.routingTable,
      kadId(libp2p.peerId.toMultihash().bytes),
      (peerId) => libp2p.getConnections(peerId).length > 0,
      clock,
    )
    libp2p.addEventListener('connection:open', ({ detail }) => table.noteConnection(detail.remotePeer.toString()))
    const kinds = new NodeKinds(libp2p)
    const rpc = new DhtRpc(libp2p, clock)
    const addressBook = new AddressBook(libp2p, clock)
    const self = {
      id: libp2p.peerId.toMultihash().bytes,
      multiaddrs: addresses.map((address) => multiaddr(address).bytes),
    }
    this.#kinds = kinds
    this.#addressBook = addressBook
    const proofs = new AddressProofs(libp2p, clock)
    this.#proofs = proofs
    store.setPeerAddresses((id) => proofs.latestIp(id) ?? '')
    this.#selfKadId = kadId(libp2p.peerId.toMultihash().bytes)
    this.#answerer = new Answerer({ libp2p, table, store, addresses: addressBook, clock }, self)
    this.#table = table
    this.#rpc = rpc
    this.#membership = new Membership({ libp2p, table, rpc, clock, random })
    libp2p.addEventListener('peer:disconnect', () => this.#membership.noteDisconnection())
    this.#provider = new Provider({ table, store, rpc, clock, random, metrics }, self)
    this.#bootstrap = new BootstrapLoop(
      {
        bootstrapper,
        libp2p,
        peerCount: () => table.size,
        onConnected: () => this.#membership.start(),
        clock,
        random,
        logger,
      },
      addresses,
    )
    const { onClone = () => {} } = components
    this.#clones = new CloneWatch({ libp2p, privateKey, clock, logger, dataDir, onClone })
    this.#lookups = new LookupCache(async (key, depth, onPeer) => {
      const startedMs = clock.nowMs()
      let first = true
      const onProvider = (peer: Peer) => {
        if (first) metrics.resolveDuration.observe({ router: 'libp2p' }, (clock.nowMs() - startedMs) / 1000)
        first = false
        onPeer(peer)
      }
      await findProviders(
        dhtKey(key),
        { providersWanted, depth },
        { libp2p, table, store, rpc, kinds, clock, addresses: addressBook, proofs },
        onProvider,
        this.#stop.signal,
        (peers) => this.#closest.set(key, peers),
      )
    }, clock)
  }

  /** From now on other nodes may ask this one to coordinate flights. */
  async announceFlights(): Promise<void> {
    this.#provider.gatherBlobs()
    // Nothing is said over libp2p: that it is there says it all.
    await this.#node.libp2p.handle(flightsProtocol, (stream) => stream.abort(new Error('over HTTP')))
  }

  /** Joins the swarm; finding the first peer goes on in the background. */
  static async start(config: KadRouterConfig, components: KadRouterComponents): Promise<KadRouter> {
    const store = new ProviderStore(components.clock, () => components.metrics.recordDrops.inc())
    const addresses = config.advertisedIps.map((ip) => toMultiaddr(ip, config.listen.port))
    const privateKey = await loadIdentity(config.dataDir)
    const node = await startSwarmNode({
      privateKey,
      listen: listenAddresses(config.listen),
      announce: addresses,
      datastore: store,
      version: config.version,
    }).catch((error: unknown) => {
      throw explain(error, config.listen)
    })
    const router = new KadRouter(node, privateKey, store, addresses, config, components)
    await router.#answerer.start()
    await router.#clones.start()
    router.#bootstrap.start()
    return router
  }

  /** For metrics: peers in the routing table, keys kept announced, records kept for others. */
  stats(): { peers: number; keys: number; records: number } {
    return { peers: this.#table.size, keys: this.#provider.keyCount, records: this.#store.recordCount }
  }

  get advertisedKeys(): string[] {
    return this.#provider.keys
  }

  lookup(key: string, signal: AbortSignal, depth: LookupDepth = 'usual'): AsyncIterable<Peer> {
    return this.#lookups.lookup(key, signal, depth)
  }

  /** True when the peer identified itself as a node of ours, which is its own word. */
  isOurs(peerId: string): boolean {
    return this.#kinds.isOurs(peerId)
  }

  async flightNodes(key: string, count: number): Promise<Peer[]> {
    const { kadId: target } = dhtKey(key)
    const known = [...this.#table.closest(target, replication), ...(this.#closest.get(key) ?? [])]
    const others = new Map(known.filter(({ id }) => this.#kinds.speaksFlights(id)).map((peer) => [peer.id, peer]))
    const nearest = [...others.values(), { id: this.id, kadId: this.#selfKadId }]
      .sort((a, b) => compareDistance(target, a, b))
      .slice(0, count)
    const peers = await Promise.all(
      nearest.map(async ({ id }) => ({
        id,
        addresses: id === this.id ? this.ips : await this.#provenIps(id),
      })),
    )
    return peers.filter(({ addresses }) => addresses.length > 0)
  }

  async #provenIps(id: string): Promise<readonly string[]> {
    const { multiaddrs } = await this.#addressBook.get(id)
    const proven = this.#proofs.proven(id, multiaddrs)
    return proven.length > 0 ? proven : this.#proofs.prove(id, multiaddrs, this.#stop.signal)
  }

  async isPeerAt(id: string, ip: string): Promise<boolean> {
    if (id === this.id) return this.ips.includes(ip)
    if (this.#proofs.has(id, ip)) return true
    // A stranger sends any text as an id.
    if (parsed(() => peerIdFromString(id)) === undefined) return false
    const { multiaddrs } = await this.#addressBook.get(id)
    const proven = await this.#proofs.prove(
      id,
      multiaddrs.filter((address) => ipOf(address) === ip),
      this.#stop.signal,
    )
    return proven.includes(ip)
  }

  advertise(keys: readonly string[]): void {
    this.#provider.add(keys)
  }

  withdraw(keys: readonly string[]): void {
    this.#provider.remove(keys)
  }

  problem(): string | undefined {
    return this.#bootstrap.problem()
  }

  /** From now on this process does not count as a running one with its identity. */
  retire(): void {
    this.#clones.close()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#clones.close()
    try {
      await Promise.all([this.#bootstrap.close(), this.#membership.close(), this.#provider.close()])
    } finally {
      this.#rpc.close()
      await this.#node.libp2p.stop()
    }
  }
}

function listenAddresses({ host, port }: HostPort): string[] {
  if (host !== '') return [toMultiaddr(host, port)]
  return [toMultiaddr('0.0.0.0', port), toMultiaddr('::', port)]
}

/** libp2p tells of each address, in several lines; the system's own words are what helps. */
function explain(error: unknown, { host, port }: HostPort): unknown {
  if (!(error instanceof Error) || error.name !== 'UnsupportedListenAddressesError') return error
  const reason = /\b(?:listen|bind) E[A-Z]+.*/.exec(error.message)?.[0] ?? 'not an address of this machine'
  const advice = reason.includes('EADDRINUSE')
    ? 'stop what listens there, or choose another address'
    : 'choose another address'
  return new UserError(`--router-addr: cannot listen on ${formatHostPort(host, port)}: ${reason}: ${advice}`)
}
