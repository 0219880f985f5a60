/**
 * Divides a server's connections among its clients by address, so that no client keeps the others out. A client over its share
 * loses its oldest idle connection, or the new one if none is idle. On a full server, the client with the most connections loses
 * its oldest idle one. This node itself has a reserve instead of a share.
 */
import type { Socket } from 'node:net'
import { canonicalIp } from '../lib/address.ts'

export interface ConnectionLimits {
  connectionsMax: number
  /** Connections from one address other than this node's. */
  perAddressMax: number
  /** The part of `connectionsMax` that only this node may use. */
  reserved: number
  isOwnNode: (remoteAddress: string | undefined) => boolean
}

type Client = Map<Socket, () => void>

export class ConnectionShares {
  readonly #limits: ConnectionLimits
  readonly #isIdle: (socket: Socket) => boolean
  /** By address, the oldest connection first; each with what ends its counting. */
  readonly #clients = new Map<string, Client>()
  #connections = 0
  /** From this node. */
  #ownConnections = 0

  constructor(limits: ConnectionLimits, isIdle: (socket: Socket) => boolean) {
    this.#limits = limits
    this.#isIdle = isIdle
  }

  /** False: the connection is refused, and closed. */
  admit(socket: Socket): boolean {
    const isOwn = this.#limits.isOwnNode(socket.remoteAddress)
    const address = canonicalIp(socket.remoteAddress ?? '')
    if (!(isOwn ? this.#makeRoomForOwn() : this.#makeRoomFor(address))) {
      socket.destroy()
      return false
    }
    this.#add(socket, address, isOwn)
    return true
  }

  #add(socket: Socket, address: string, isOwn: boolean): void {
    const client: Client = this.#clients.get(address) ?? new Map()
    this.#clients.set(address, client)
    this.#connections += 1
    if (isOwn) this.#ownConnections += 1
    const release = () => {
      if (!client.delete(socket)) return
      this.#connections -= 1
      if (isOwn) this.#ownConnections -= 1
      if (client.size === 0 && this.#clients.get(address) === client) this.#clients.delete(address)
    }
    client.set(socket, release)
    socket.once('close', release)
  }

  #makeRoomFor(address: string): boolean {
    const { connectionsMax, perAddressMax, reserved } = this.#limits
    const client = this.#clients.get(address)
    if (client !== undefined && client.size >= perAddressMax && !this.#closeOldest(client, this.#isIdle)) return false
    if (this.#connections - this.#ownConnections < connectionsMax - reserved) return true
    return this.#closeOldest(this.#largestClient(), this.#isIdle)
  }

  #makeRoomForOwn(): boolean {
    if (this.#connections < this.#limits.connectionsMax) return true
    const largest = this.#largestClient()
    return this.#closeOldest(largest, this.#isIdle) || this.#closeOldest(largest, () => true)
  }

  /** The client with the most connections, other than this node. */
  #largestClient(): Client | undefined {
    let largest: Client | undefined
    for (const [address, client] of this.#clients) {
      if (!this.#limits.isOwnNode(address) && client.size > (largest?.size ?? 0)) largest = client
    }
    return largest
  }

  #closeOldest(client: Client | undefined, mayClose: (socket: Socket) => boolean): boolean {
    for (const [socket, release] of client ?? []) {
      if (!mayClose(socket)) continue
      // Before the event of its close, so that the next connection finds room.
      release()
      socket.destroy()
      return true
    }
    return false
  }
}
