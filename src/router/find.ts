/**
 * Who has a key? The nodes closest to a key hold its records (Kademlia). This node's own records answer at once, and
 * alone when it is one of those nodes; otherwise, or when it knows nobody, the closest others are asked, and those
 * closer still that they name, until the three closest have answered: two, where it holds the key's records itself. If
 * they know nobody either, and there are nodes
 * of Spegel in the swarm, the rest of the closest are asked, as Go does: our nodes hand their records to a node that
 * joins, Spegel's do so only at their next round, up to 15 minutes later, so the closest may be newer than the record.
 *
 * Providers are reported at addresses that they have proven (address-proofs.ts); others are dialled for a proof first.
 */
import type { Libp2p } from '@libp2p/interface'
import { peerIdFromMultihash } from '@libp2p/peer-id'
import * as digest from 'multiformats/hashes/digest'
import type { Multiaddr } from '@multiformats/multiaddr'
import { inBackground, surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { expecting } from '../lib/errors.ts'
import { parsed } from '../lib/foreign.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { raceAbort } from '../lib/race-abort.ts'
import {
  addressProofPatienceMs,
  addressesPerPeerMax,
  lookupTimeoutMs,
  replication,
  rpcConcurrency,
} from '../limits.ts'
import type { AddressBook } from './address-book.ts'
import type { AddressProofs } from './address-proofs.ts'
import { type DhtKey, kadId } from './content-cid.ts'
import { compareDistance } from './distance.ts'
import type { Message, Peer as PeerMessage } from './generated/kad-dht.ts'
import type { NodeKinds } from './kinds.ts'
import type { ProviderStore } from './provider-store.ts'
import { readReachable } from './reachable.ts'
import type { LookupDepth, Peer } from './router.ts'
import { type RoutingTable, type TablePeer } from './routing-table.ts'
import { type DhtRpc, messageType } from './rpc.ts'

/** How many of the closest must have answered before what they know is enough; Go's resiliency is 3 as well. */
const answersNeeded = 3

export interface FindComponents {
  libp2p: Libp2p
  table: RoutingTable
  store: ProviderStore
  rpc: DhtRpc
  clock: Clock
  kinds: Pick<NodeKinds, 'mixed'>
  addresses: AddressBook
  proofs: Pick<AddressProofs, 'proven' | 'prove'>
}

/**
 * Calls back with each provider once, and again for further addresses of it, never with this node. Resolves when the search is over. After those whom this
 * node's own records name did not help (`fresh`) they are not enough: they may all be of the past, and the announcement
 * of another one be lost.
 */
export async function findProviders(
  key: DhtKey,
  { providersWanted, depth }: { providersWanted: number; depth: LookupDepth },
  components: FindComponents,
  onProvider: (peer: Peer) => void,
  signal: AbortSignal,
  onClosest: (peers: readonly TablePeer[]) => void = () => {},
): Promise<void> {
  // What this node holds itself is as good as another's answer.
  const isOwnAnswer = depth !== 'fresh' && components.table.hasRecordsOf(key.kadId)
  using patience = awakeTimeout(components.clock, lookupTimeoutMs)
  const inTime = AbortSignal.any([signal, patience.signal])
  const search = new Search(key, providersWanted, isOwnAnswer, components, onProvider, inTime)
  await search.readOwnRecords()
  const isEnough = search.foundCount > 0 || (depth === 'quick' && !components.kinds.mixed)
  if (!isOwnAnswer || !isEnough) await search.askOthers()
  await search.proofsEnded()
  onClosest(search.closest)
}

interface Candidate extends TablePeer {
  state: 'new' | 'asked' | 'answered' | 'failed'
  /** As another peer named them. Undefined: those of the peer store. */
  readonly addresses?: readonly Multiaddr[]
}

class Search {
  readonly #key: DhtKey
  readonly #providersWanted: number
  readonly #components: FindComponents
  readonly #onProvider: (peer: Peer) => void
  readonly #signal: AbortSignal
  readonly #selfId: string
  /** Of others. */
  readonly #answersNeeded: number
  /** Addresses of each provider that were reported. */
  readonly #found = new Map<string, Set<string>>()
  /** Everybody we heard of, by id. */
  readonly #candidates = new Map<string, Candidate>()

  /** Dials that prove addresses of providers. */
  readonly #proofs = new Set<Promise<void>>()

  constructor(
    key: DhtKey,
    providersWanted: number,
    isOwnAnswer: boolean,
    components: FindComponents,
    onProvider: (peer: Peer) => void,
    signal: AbortSignal,
  ) {
    this.#key = key
    this.#providersWanted = providersWanted
    this.#components = components
    this.#onProvider = onProvider
    this.#signal = signal
    this.#selfId = components.libp2p.peerId.toString()
    this.#answersNeeded = answersNeeded - (isOwnAnswer ? 1 : 0)
  }

  get foundCount(): number {
    return this.#found.size
  }

  /** Of those that answered. */
  get closest(): TablePeer[] {
    const answered = [...this.#candidates.values()].filter(({ state }) => state === 'answered')
    return answered.sort((a, b) => compareDistance(this.#key.kadId, a, b)).slice(0, answersNeeded)
  }

  async readOwnRecords(): Promise<void> {
    const { store, addresses, clock } = this.#components
    const ids = store.providers(this.#key.multihash)
    const entries = await Promise.all(ids.map(async (id) => addresses.get(id)))
    // All in one turn, so that whoever chooses among them sees them all.
    for (const [index, id] of ids.entries()) this.#claim(id, entries[index]?.multiaddrs ?? [])
    if (this.#found.size > 0 || this.#proofs.size === 0) return
    using patience = awakeTimeout(clock, addressProofPatienceMs)
    const inTime = AbortSignal.any([this.#signal, patience.signal])
    while (this.#found.size === 0 && this.#proofs.size > 0 && !inTime.aborted) {
      await raceAbort(Promise.race(this.#proofs), inTime).catch(expecting(() => inTime.aborted, undefined))
    }
  }

  /** Resolves when no dial can bring a further provider. */
  async proofsEnded(): Promise<void> {
    await Promise.all(this.#proofs)
  }

  async askOthers(): Promise<void> {
    for (const peer of this.#components.table.closestToAsk(this.#key.kadId)) {
      this.#candidates.set(peer.id, { ...peer, state: 'new' })
    }
    const running = new Set<Promise<void>>()
    const known = this.#found.size
    while (!this.#signal.aborted && this.#found.size - known < this.#providersWanted) {
      const next = this.#next()
      if (next !== undefined && running.size < rpcConcurrency) {
        const asking: Promise<void> = this.#ask(next).finally(() => running.delete(asking))
        running.add(asking)
      } else if (running.size > 0) {
        await Promise.race([...running, ...this.#proofs])
      } else {
        return
      }
    }
  }

  /** The closest that was not asked yet, unless the closest ones have all answered and know somebody. */
  #next(): Candidate | undefined {
    const alive = [...this.#candidates.values()]
      .filter(({ state }) => state !== 'failed')
      .sort((a, b) => compareDistance(this.#key.kadId, a, b))
    const closest = alive.slice(0, this.#answersNeeded)
    const { mixed } = this.#components.kinds
    const enough = !mixed || this.#found.size > 0 || closest.some(({ state }) => state !== 'answered')
    return (enough ? closest : alive.slice(0, replication)).find(({ state }) => state === 'new')
  }

  async #ask(peer: Candidate): Promise<void> {
    peer.state = 'asked'
    try {
      const answer = await this.#components.rpc.ask(peer.peerId, this.#question(), this.#signal, peer.addresses)
      peer.state = 'answered'
      this.#components.table.noteAnswer(peer.id)
      for (const provider of answer.providers) this.#hearOfProvider(provider)
      for (const closer of answer.closer.slice(0, replication)) this.#consider(closer)
    } catch (error) {
      surface('lookup', error)
      peer.state = 'failed'
      if (!this.#signal.aborted) await this.#components.table.noteFailure(peer)
    }
  }

  #question(): Message {
    return { type: messageType.getProviders, key: this.#key.multihash, closer: [], providers: [] }
  }

  // What others say may be nonsense: then it is as if they had not said it.

  #hearOfProvider(message: PeerMessage): void {
    const id = parsed(() => this.#components.addresses.nameOf(message.id))
    if (id !== undefined) this.#claim(id, readReachable(message.multiaddrs))
  }

  #consider(message: PeerMessage): void {
    const { addresses, table } = this.#components
    const id = parsed(() => addresses.nameOf(message.id))
    if (id === undefined || id === this.#selfId || this.#candidates.has(id) || table.isDead(id)) return
    const multiaddrs = readReachable(message.multiaddrs)
    const peerId = parsed(() => peerIdFromMultihash(digest.decode(message.id)))
    if (multiaddrs.length === 0 || peerId === undefined) return
    // The addresses are for this lookup only: nothing is kept of a peer that may not exist.
    this.#candidates.set(id, { peerId, id, kadId: kadId(message.id), state: 'new', addresses: multiaddrs })
  }

  /** Reports the proven ones of the addresses that a provider claims, or that others claim for it; all are dialled if none is. */
  #claim(id: string, claimed: readonly Multiaddr[]): void {
    if (id === this.#selfId || claimed.length === 0) return
    const { proofs } = this.#components
    const proven = proofs.proven(id, claimed)
    if (proven.length > 0) {
      this.#report(id, proven)
      return
    }
    const proof = inBackground('lookup', async () => this.#report(id, await proofs.prove(id, claimed, this.#signal)))
    const ended: Promise<void> = proof.finally(() => this.#proofs.delete(ended))
    this.#proofs.add(ended)
  }

  /** A provider may have moved: nodes that know it at another address may be right. */
  #report(id: string, ips: readonly string[]): void {
    const known = this.#found.get(id) ?? new Set<string>()
    const addresses = ips.filter((ip) => !known.has(ip))
    if (addresses.length === 0 || known.size >= addressesPerPeerMax) return
    for (const ip of addresses) known.add(ip)
    this.#found.set(id, known)
    this.#onProvider({ id, addresses })
  }
}
