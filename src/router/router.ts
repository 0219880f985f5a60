/** PORT Router: who in the swarm has a content key? */

/** A node that has something. */
export interface Peer {
  /** Its identity in the swarm. */
  readonly id: string
  /** Its IP addresses, the registry port being the same on all nodes. At least one. */
  readonly addresses: readonly string[]
}

/**
 * How far a look-up goes. quick: no further than this node's own records, where they are complete and all nodes are of
 * our kind, since the coordinator of the flight is asked next. fresh: what was found a moment ago did not help, look again.
 */
export type LookupDepth = 'quick' | 'usual' | 'fresh'

export interface Router {
  /**
   * Nodes that have the key, as they are found, never this node itself. A node comes again when other addresses of it are
   * learned, with those. Ends when nobody else is known, or when the signal aborts. Never rejects for a reason of the network: not found is not found.
   */
  lookup(key: string, signal: AbortSignal, depth?: LookupDepth): AsyncIterable<Peer>
  /**
   * The nodes closest to a key that speak the protocol of flights, closest first, this node among them if it is one of
   * those. All nodes see nearly the same.
   */
  flightNodes(key: string, count: number): Promise<Peer[]>
  /**
   * Whether an authenticated connection has shown the peer at this IP address, lately. Dials the peer there if none has; resolves
   * within a few seconds.
   */
  isPeerAt(id: string, ip: string): Promise<boolean>
  /** From now on this node offers these keys. Returns at once; announcing goes on in the background. */
  advertise(keys: readonly string[]): void
  /** No longer. Other nodes may believe otherwise until their record expires. */
  withdraw(keys: readonly string[]): void
  /** Undefined when all is well, else why not, for the readiness page. */
  problem(): string | undefined
  close(): Promise<void>
}
