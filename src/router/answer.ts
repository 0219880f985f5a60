/**
 * The other end of the DHT protocol: what peers ask this node, answered from memory. It stands in for the handler of
 * kad-dht, which costs 4 CPU ms for "who has this?" in a swarm of 8 and as much for each key that a peer announces: it
 * takes locks and promises for every peer that it names, and a timer and an abort signal for every message.
 */
import type { Connection, Libp2p, PeerId, Stream } from '@libp2p/interface'
import { surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { parsed } from '../lib/foreign.ts'
import {
  dhtMessageBytesMax,
  dhtServerStreamIdleMs,
  dhtStreamsPerPeerMax,
  recordKeyBytesMax,
  replication,
} from '../limits.ts'
import { type AddressBook, ipOf } from './address-book.ts'
import { kadId } from './content-cid.ts'
import { drained } from './drained.ts'
import { Message, type Peer as PeerMessage } from './generated/kad-dht.ts'
import { LengthPrefixedDecoder, lengthPrefixed } from './length-prefixed.ts'
import { dhtProtocol } from './libp2p-node.ts'
import type { ProviderStore } from './provider-store.ts'
import type { RoutingTable } from './routing-table.ts'
import { messageType } from './rpc.ts'

export interface AnswerComponents {
  libp2p: Libp2p
  table: RoutingTable
  store: ProviderStore
  addresses: AddressBook
  clock: Clock
}

export class Answerer {
  readonly #components: AnswerComponents
  readonly #self: PeerMessage
  readonly #selfId: string

  constructor(components: AnswerComponents, self: PeerMessage) {
    this.#components = components
    this.#self = self
    this.#selfId = components.libp2p.peerId.toString()
  }

  /** From now on, new streams are ours. */
  async start(): Promise<void> {
    const limits = { maxInboundStreams: dhtStreamsPerPeerMax, maxOutboundStreams: dhtStreamsPerPeerMax }
    await this.#components.libp2p.handle(dhtProtocol, (stream, connection) => this.#serve(stream, connection), {
      force: true,
      ...limits,
    })
  }

  #serve(stream: Stream, { remotePeer, remoteAddr }: Connection): void {
    const { clock, table } = this.#components
    const peer = remotePeer.toString()
    const address = ipOf(remoteAddr) ?? ''
    const decoder = new LengthPrefixedDecoder(dhtMessageBytesMax)
    const fail = (error: unknown) => {
      surface('dht_stream', error)
      stream.abort(error as Error)
    }
    let cancelIdle = () => {}
    const restartIdle = () => {
      cancelIdle()
      cancelIdle = clock.after(dhtServerStreamIdleMs, () => fail(new Error('idle')))
    }
    // One after the other: answers have the order of the questions.
    let last: Promise<void> = Promise.resolve()
    const receive = async (data: Uint8Array) => {
      for (const bytes of decoder.decode(data)) {
        const question = parsed(() => Message.decode(bytes))
        if (question === undefined) throw new Error('a message that cannot be read')
        const answer = this.#answer(remotePeer, address, question)
        const message = answer instanceof Promise ? await answer : answer
        if (message === undefined) continue
        if (!stream.send(lengthPrefixed(Message.encode(message).finish()))) await drained(stream)
      }
    }
    let waitingBytes = 0
    let ended = false
    const afterAnswers = async () => {
      if (waitingBytes > 0) return
      // May bring what came meanwhile, at once.
      if (stream.readStatus === 'paused') stream.resume()
      if (ended && waitingBytes === 0) await stream.close()
    }
    stream.addEventListener('message', ({ data }) => {
      restartIdle()
      table.noteAnswer(peer)
      waitingBytes += data.byteLength
      // Asked faster than the answers are taken: the peer has to wait.
      if (waitingBytes > dhtMessageBytesMax && stream.readStatus === 'readable') stream.pause()
      last = last
        .then(() => receive(data.subarray()))
        .then(() => {
          waitingBytes -= data.byteLength
        })
        .then(afterAnswers)
        .catch(fail)
    })
    stream.addEventListener('remoteCloseWrite', () => {
      ended = true
      last = last.then(afterAnswers).catch(fail)
    })
    stream.addEventListener('close', () => cancelIdle())
    restartIdle()
  }

  #answer(from: PeerId, address: string, message: Message): Message | undefined | Promise<Message | undefined> {
    const { type, key } = message
    if (key.length > recordKeyBytesMax) throw new Error(`a key of ${key.length} bytes`)
    switch (type) {
      case messageType.addProvider:
        return this.#addProvider(from, address, message)
      case messageType.getProviders:
        return this.#describe(message, this.#components.store.providers(key), from)
      case messageType.findNode:
      case messageType.getValue:
        // Values are not a thing of this swarm: only who might know.
        return this.#describe(message, [], from)
      case messageType.ping:
        return { ...message, closer: [], providers: [] }
      default:
        throw new Error(`a message of type ${type}`)
    }
  }

  /** Peers speak for themselves only. */
  #addProvider(from: PeerId, address: string, { key, providers }: Message): undefined | Promise<undefined> {
    const { store, addresses } = this.#components
    const id = from.toString()
    const idBytes = from.toMultihash().bytes
    const self = providers.find((provider) => {
      if (provider.multiaddrs.length === 0) return false
      // The lookup of a name leaves garbage, which a flood turns into hundreds of MiB.
      if (Buffer.compare(provider.id, idBytes) === 0) return true
      const name = parsed(() => addresses.nameOf(provider.id))
      if (name === undefined) throw new Error('a provider without a peer id')
      return name === id
    })
    if (self === undefined || key.length === 0) return undefined
    store.addProvider(key, id, address)
    return addresses.learn(from, id, self.multiaddrs).then(() => undefined)
  }

  /** These providers, this node if it is one, and the peers closest to the key, as far as their addresses are known. */
  async #describe({ type, key }: Message, providerIds: readonly string[], from: PeerId): Promise<Message> {
    const { table, store } = this.#components
    const position = kadId(key)
    const asker = from.toString()
    const closer = table.closest(position, replication + 1).filter(({ id }) => id !== asker)
    const providers = await this.#addressesOf(providerIds)
    const isProvider = type === messageType.getProviders && store.isOwn(key)
    const named = this.#nodeWithId(type, key, asker)
    return {
      type,
      key,
      closer: [
        ...(named === this.#selfId ? [this.#self] : []),
        ...(await this.#addressesOf([
          ...(named === undefined || named === this.#selfId || closer.some(({ id }) => id === named) ? [] : [named]),
          ...closer.slice(0, replication).map(({ id }) => id),
        ])),
      ],
      providers: isProvider ? [...providers, this.#self] : providers,
    }
  }

  /** FIND_NODE may ask for one node by its id, which need not be in the table. */
  #nodeWithId(type: number, key: Uint8Array, asker: string): string | undefined {
    if (type !== messageType.findNode) return undefined
    const id = parsed(() => this.#components.addresses.nameOf(key))
    return id === asker ? undefined : id
  }

  async #addressesOf(ids: readonly string[]): Promise<PeerMessage[]> {
    const found: PeerMessage[] = []
    for (const id of ids) {
      const known = this.#components.addresses.get(id)
      const { message } = known instanceof Promise ? await known : known
      if (message.multiaddrs.length > 0) found.push(message)
    }
    return found
  }
}
