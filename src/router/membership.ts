/**
 * Gets to know the swarm and keeps knowing it. kad-dht looks around once when it starts and then each five minutes, and
 * a peer that does not answer its ping in time is not tried again while it stays connected: when many nodes boot
 * together on busy machines, some know one or two others for minutes. It keeps a peer whose connection has ended, too, until
 * somebody asks it in vain. So: ask around soon and often at first, seldom later; dial those who are named; try connected
 * peers again that are not in the table, and those in the table that are not connected.
 */
import { randomBytes } from 'node:crypto'
import type { Libp2p } from '@libp2p/interface'
import { peerIdFromMultihash } from '@libp2p/peer-id'
import { CODE_P2P as codeP2p, type Multiaddr } from '@multiformats/multiaddr'
import * as digest from 'multiformats/hashes/digest'
import { inBackground, surface } from '../lib/background.ts'
import { Backoff } from '../lib/backoff.ts'
import { type Clock, pause } from '../lib/clock.ts'
import { isOperationalError } from '../lib/errors.ts'
import { parsed } from '../lib/foreign.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { type Random, shuffled } from '../lib/random.ts'
import {
  membershipDialsMax,
  membershipFirstMs,
  membershipLastMs,
  membershipRoundTimeoutMs,
  replication,
  swarmConnectionsMax,
} from '../limits.ts'
import type { Peer as PeerMessage } from './generated/kad-dht.ts'
import { dhtProtocol } from './libp2p-node.ts'
import { readReachable } from './reachable.ts'
import type { RoutingTable } from './routing-table.ts'
import { type DhtRpc, messageType } from './rpc.ts'

/** Different peers asked in a round. */
const asked = 3

export interface MembershipComponents {
  libp2p: Libp2p
  table: RoutingTable
  rpc: DhtRpc
  clock: Clock
  random: Random
}

export class Membership {
  readonly #components: MembershipComponents
  readonly #stop = new AbortController()
  readonly #backoff: Backoff
  #running: Promise<void> | undefined
  /** Ends the wait for the next round. */
  #nap = new AbortController()

  constructor(components: MembershipComponents) {
    this.#components = components
    this.#backoff = new Backoff(membershipFirstMs, membershipLastMs, components.random)
  }

  /** From now on; call it when the first peer is found. Further calls make the next rounds come soon again. */
  start(): void {
    this.#backoff.reset()
    this.#nap.abort()
    this.#running ??= inBackground('membership', () => this.#run())
  }

  /** Somebody's connection has ended. When connections are many, libp2p itself ends some of them all the time. */
  noteDisconnection(): void {
    if (this.#running !== undefined && this.#components.libp2p.getPeers().length < swarmConnectionsMax / 2)
      this.start()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      this.#nap = new AbortController()
      const awake = AbortSignal.any([signal, this.#nap.signal])
      await pause(this.#components.clock, this.#backoff.nextDelayMs(), awake)
      if (signal.aborted) return
      const sizeBefore = this.#components.table.size
      using patience = awakeTimeout(this.#components.clock, membershipRoundTimeoutMs)
      const inTime = AbortSignal.any([signal, patience.signal])
      await inBackground('membership', () => this.#round(inTime), { signal })
      // As long as there are new faces, there may be more.
      if (this.#components.table.size > sizeBefore) this.#backoff.reset()
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { table, libp2p, rpc, random } = this.#components
    const self = libp2p.peerId.toMultihash().bytes
    const named = new Map<string, Multiaddr[]>()
    // Around this node, and around a random place: those who are asked name the 20 closest that they know.
    const questions = shuffled(table.peers, random)
      .slice(0, asked)
      .map(({ peerId }, index) =>
        tried(async () => {
          const key = index === 0 ? self : randomBytes(32)
          const message = { type: messageType.findNode, key, closer: [], providers: [] }
          const answer = await rpc.ask(peerId, message, signal)
          for (const peer of answer.closer.slice(0, replication)) this.#learn(peer, named)
        }),
      )
    await Promise.all(questions)
    const strangers = shuffled([...named.values()], random).slice(0, membershipDialsMax)
    await Promise.all(strangers.map((addresses) => tried(() => libp2p.dial(addresses, { signal }))))
    await Promise.all([this.#addConnected(signal), this.#dialLost(signal)])
  }

  /** Who is gone holds no records, and coordinates nothing. */
  async #dialLost(signal: AbortSignal): Promise<void> {
    const { table, libp2p, random } = this.#components
    const lost = table.peers.filter(({ peerId }) => libp2p.getConnections(peerId).length === 0)
    await Promise.all(
      shuffled(lost, random)
        .slice(0, membershipDialsMax)
        .map(async (peer) => {
          try {
            await libp2p.dial(peer.peerId, { signal })
          } catch (error) {
            surface('membership', error)
            if (!this.#stop.signal.aborted) await table.noteFailure(peer)
          }
        }),
    )
  }

  /**
   * The addresses are for the dial only, with the id that has to answer there: nothing is kept of a peer that may not
   * exist. What others say may be nonsense: then it is as if they had not said it.
   */
  #learn({ id: multihash, multiaddrs }: PeerMessage, named: Map<string, Multiaddr[]>): void {
    const { libp2p, table } = this.#components
    const peerId = parsed(() => peerIdFromMultihash(digest.decode(multihash)))
    if (peerId === undefined) return
    const id = peerId.toString()
    const known = peerId.equals(libp2p.peerId) || table.isDead(id) || libp2p.getConnections(peerId).length > 0
    if (known || named.has(id)) return
    const addresses = readReachable(multiaddrs).flatMap(
      (address) => parsed(() => address.decapsulateCode(codeP2p).encapsulate(`/p2p/${id}`)) ?? [],
    )
    if (addresses.length > 0) named.set(id, addresses)
  }

  async #addConnected(signal: AbortSignal): Promise<void> {
    const { libp2p, table } = this.#components
    const inTable = new Set(table.peers.map(({ id }) => id))
    const missing = libp2p.getPeers().filter((peerId) => !inTable.has(peerId.toString()))
    await Promise.all(
      missing.slice(0, membershipDialsMax).map((peerId) =>
        tried(async () => {
          const { protocols } = await libp2p.peerStore.get(peerId)
          if (protocols.includes(dhtProtocol)) await table.add(peerId, signal)
        }),
      ),
    )
  }
}

/** Peers may be gone, or slow: there are others. */
function tried(work: () => Promise<unknown>): Promise<void> {
  return inBackground('membership', work, { expected: isOperationalError })
}
