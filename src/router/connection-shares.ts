/**
 * Connections and pending handshakes of the swarm, divided among remote addresses and peers. libp2p refuses new connections
 * when it is full, whoever holds the others: 200 silent TCP connections of one address kept all others out. Here the oldest
 * connection of the largest holder is closed instead.
 */
import type { Connection, ConnectionGater, Libp2p, MultiaddrConnection, PeerId } from '@libp2p/interface'
import { pendingHandshakeShares, swarmConnectionShares } from '../limits.ts'
import { ipOf } from './address-book.ts'
import { FairShare, type SharedItem } from './fair-share.ts'

interface PendingHandshake extends SharedItem<PendingHandshake> {
  readonly connection: MultiaddrConnection
}

interface OpenConnection extends SharedItem<OpenConnection> {
  readonly connection: Connection
}

export class ConnectionShares {
  /** For libp2p: it reports inbound connections before and after the handshake. None is denied. */
  readonly gater = {
    denyInboundConnection: (connection: MultiaddrConnection) => this.#addPending(connection),
    denyInboundUpgradedConnection: (_peerId: PeerId, connection: MultiaddrConnection) =>
      this.#removePending(connection),
  } satisfies ConnectionGater
  readonly #pending = new Map<MultiaddrConnection, PendingHandshake>()
  readonly #pendingShares = new FairShare<PendingHandshake>(pendingHandshakeShares, ({ connection }) => {
    this.#pending.delete(connection)
    connection.abort(new Error('closed for other connections: too many pending handshakes'))
  })
  readonly #open = new Map<Connection, OpenConnection>()
  readonly #openShares: FairShare<OpenConnection>
  #onEvict: (peerId: PeerId) => void = () => {}

  constructor() {
    this.#openShares = new FairShare<OpenConnection>(swarmConnectionShares, ({ connection }) => {
      this.#open.delete(connection)
      connection.abort(new Error('closed for other connections: the share of the peer or its address is full'))
      const isLast = ![...this.#open.keys()].some(({ remotePeer }) => remotePeer.equals(connection.remotePeer))
      if (isLast) this.#onEvict(connection.remotePeer)
    })
  }

  /** Counts the connections of a node. `onEvict` is called for each peer whose last connection was closed for others. */
  watch(libp2p: Pick<Libp2p, 'addEventListener' | 'getConnections'>, onEvict: (peerId: PeerId) => void): void {
    this.#onEvict = onEvict
    libp2p.addEventListener('connection:open', ({ detail }) => this.#addOpen(detail))
    libp2p.addEventListener('connection:close', ({ detail }) => {
      const item = this.#open.get(detail)
      if (item !== undefined) this.#openShares.remove(item)
      this.#open.delete(detail)
    })
    // The node listens before it can be watched.
    for (const connection of libp2p.getConnections()) this.#addOpen(connection)
  }

  get pendingCount(): number {
    return this.#pendingShares.count
  }

  get openCount(): number {
    return this.#openShares.count
  }

  #addPending(connection: MultiaddrConnection): false {
    const item: PendingHandshake = { connection, size: 1, share: undefined, node: undefined }
    this.#pending.set(connection, item)
    connection.addEventListener('close', () => this.#removePending(connection))
    this.#pendingShares.add(item, ipOf(connection.remoteAddr) ?? '', '')
    return false
  }

  #removePending(connection: MultiaddrConnection): false {
    const item = this.#pending.get(connection)
    if (item !== undefined) this.#pendingShares.remove(item)
    this.#pending.delete(connection)
    return false
  }

  #addOpen(connection: Connection): void {
    const item: OpenConnection = { connection, size: 1, share: undefined, node: undefined }
    this.#open.set(connection, item)
    this.#openShares.add(item, ipOf(connection.remoteAddr) ?? '', connection.remotePeer.toString())
  }
}
