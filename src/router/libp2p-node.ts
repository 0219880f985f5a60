/**
 * The libp2p node, every option that matters to a cluster set by hand with its reason. Versions of libp2p are pinned
 * exactly in package.json because of the few private parts that `DhtInternals` names.
 */
import { noise } from '@chainsafe/libp2p-noise'
import { identify } from '@libp2p/identify'
import {
  type ComponentLogger,
  type Libp2p,
  type Logger as Libp2pLogger,
  type PeerId,
  type PrivateKey,
} from '@libp2p/interface'
import { type KadDHT, kadDHT } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { oneIp } from '../lib/address.ts'
import { inBackground } from '../lib/background.ts'
import {
  bootstrapRoundTimeoutMs,
  dhtStreamsPerPeerMax,
  handshakeTimeoutMs,
  libp2pConnectionsMax,
  libp2pPendingHandshakesMax,
  replication,
  rpcTimeoutMs,
} from '../limits.ts'
import { ConnectionShares } from './connection-shares.ts'
import { ownAgent } from './kinds.ts'
import type { ProviderStore } from './provider-store.ts'
import { reachable } from './reachable.ts'
import { sendWindowUpdatesRarely } from './window-updates.ts'

/** Spegel's swarm: nodes of both kinds find each other. */
export const dhtProtocol = '/spegel/kad/1.0.0'

export interface SwarmNode {
  libp2p: Libp2p
  dht: DhtInternals
}

/** Parts of kad-dht 16.4 that are public at run time but not in its types. Checked at start. */
export interface DhtInternals {
  routingTable: {
    kb: { toIterable(): Iterable<{ peerId: PeerId; kadId: Uint8Array }> }
    add(peer: PeerId, options: { signal: AbortSignal }): Promise<void>
    remove(peer: PeerId): Promise<void>
    addEventListener(event: 'peer:add' | 'peer:remove', listener: () => void): void
  }
}

export interface SwarmNodeInit {
  privateKey: PrivateKey
  /** Multiaddrs to listen on. */
  listen: string[]
  /** The multiaddrs that others dial. */
  announce: string[]
  datastore: ProviderStore
  version: string
}

/** Creates and starts the node. */
export async function startSwarmNode(init: SwarmNodeInit): Promise<SwarmNode> {
  sendWindowUpdatesRarely()
  const shares = new ConnectionShares()
  const libp2p = await createLibp2p({
    privateKey: init.privateKey,
    nodeInfo: { name: 'spegel-ts', version: init.version, userAgent: `${ownAgent}${init.version}` },
    addresses: {
      listen: init.listen,
      // Exactly the node's address: without it loopback and every bridge of the host are announced too, and a Go node
      // asks itself. A public address would not be announced at all before AutoNAT confirms it.
      announce: init.announce,
    },
    datastore: init.datastore,
    logger: silentLogger,
    transports: [
      tcp({
        // A look-up is a few hundred bytes each way: Nagle would add 40 ms.
        dialOpts: { noDelay: true, ...localAddressOf(init.listen) },
        listenOpts: { noDelay: true },
      }),
    ],
    streamMuxers: [yamux()],
    // Go's nodes offer tls first and take noise; noise dials in half the time of tls in JavaScript (12 against 26 ms).
    connectionEncrypters: [noise()],
    connectionGater: shares.gater,
    connectionManager: {
      // Both are above our own bounds (connection-shares.ts), which close an old connection where these refuse a new one.
      maxConnections: libp2pConnectionsMax,
      maxIncomingPendingConnections: libp2pPendingHandshakesMax,
      // Default 10 s.
      inboundUpgradeTimeout: handshakeTimeoutMs,
      // Default 5 a second and per address: when a cluster boots, everybody dials at once.
      inboundConnectionThreshold: 1_000,
      // Defaults 10 s and 6 s: within a cluster an address that does not answer in 2 s is dead.
      dialTimeout: bootstrapRoundTimeoutMs,
      addressDialTimeout: 2_000,
    },
    // Default every 10 s: 85 % of the idle CPU. A dead peer is found by the first question that it does not answer.
    connectionMonitor: { pingInterval: 300_000 },
    // Defaults 1 h and 6 h. Provider records are dropped after 19 minutes, but a question about a record whose peer
    // the peer store has forgotten fails as a whole; refreshed by every announcement.
    peerStore: { maxAddressAge: 24 * 3_600_000, maxPeerAge: 24 * 3_600_000 },
    services: {
      identify: identify(),
      ping: ping(),
      dht: kadDHT({
        protocol: dhtProtocol,
        // Default client: others would never ask us.
        clientMode: false,
        // Default: drops private addresses, that is all of a cluster.
        peerInfoMapper: ({ id, multiaddrs }) => ({ id, multiaddrs: reachable(multiaddrs) }),
        // Default: keeps public keys that others send, of any size and number. Spegel's swarm has no such records.
        validators: { pk: () => Promise.reject(new Error('only provider records are kept')) },
        kBucketSize: replication,
        // Default 1 s: all queries wait for the first self-query.
        initialQuerySelfInterval: 50,
        // Default 5 s at least: a peer of the cluster answers in milliseconds.
        networkDialTimeout: { minTimeout: rpcTimeoutMs },
        maxInboundStreams: dhtStreamsPerPeerMax,
        maxOutboundStreams: dhtStreamsPerPeerMax,
        // Own records are announced by provide.ts; kad-dht's re-provider finds none (provider-store.ts).
        reprovide: { interval: 24 * 3_600_000 },
      }),
    },
  })
  const dht = internals(libp2p.services.dht)
  // A peer whose connection was closed for others does not keep its place in the routing table either.
  shares.watch(libp2p, (peerId) => void inBackground('dht_stream', () => dht.routingTable.remove(peerId)))
  return { libp2p, dht }
}

function internals(dht: KadDHT): DhtInternals {
  const candidate = dht as unknown as DhtInternals
  if (
    typeof candidate.routingTable?.kb?.toIterable !== 'function' ||
    typeof candidate.routingTable.add !== 'function' ||
    typeof candidate.routingTable.remove !== 'function'
  ) {
    throw new Error('this version of @libp2p/kad-dht is laid out differently: see DhtInternals')
  }
  return candidate
}

/** libp2p logs every step of every dial; what an operator needs to know is logged by the router. */
const silentLogger: ComponentLogger = {
  forComponent() {
    const log: Libp2pLogger = Object.assign(() => undefined, {
      error: () => undefined,
      trace: () => undefined,
      enabled: false,
      newScope: () => log,
    })
    return log
  },
}

/**
 * A node that listens on one address connects from it, too: others see there at once that the node is at the address that it
 * announces, and need no connection of their own for the proof. libp2p passes on all options of net.connect, though its types
 * name a few.
 */
function localAddressOf(listen: readonly string[]): object {
  const localAddress = oneIp(/^\/ip[46]\/([^/]+)\//.exec(listen[0] ?? '')?.[1] ?? '')
  return localAddress === undefined ? {} : { localAddress }
}
