/**
 * Our end of the DHT protocol: questions and announcements to one peer. Questions share one long-lived stream per
 * peer and are answered in order; the stock client opens a stream for each (1.5–3 ms instead of 0.6–0.9, and three
 * times the CPU). A few announcements, such as the layers of an image just pulled, go the same way; many at once over
 * a stream of their own, so that questions do not wait behind them. The protocol does not acknowledge them.
 */
import type { Connection, Libp2p, PeerId, Stream } from '@libp2p/interface'
import { CODE_P2P as codeP2p, type Multiaddr } from '@multiformats/multiaddr'
import { LengthPrefixedDecoder } from './length-prefixed.ts'
import { inBackground } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { isOperationalError } from '../lib/errors.ts'
import { parsed } from '../lib/foreign.ts'
import { afterAwake, awakeTimeout } from '../lib/patience.ts'
import { raceAbort } from '../lib/race-abort.ts'
import {
  dhtMessageBytesMax,
  dhtStreamIdleMs,
  provideBatchMessages,
  rpcPerStreamMax,
  rpcTimeoutMs,
} from '../limits.ts'
import { drained } from './drained.ts'
import { Message } from './generated/kad-dht.ts'
import { lengthPrefixed } from './length-prefixed.ts'
import { dhtProtocol } from './libp2p-node.ts'

export const messageType = { getValue: 1, addProvider: 2, getProviders: 3, findNode: 4, ping: 5 } as const

export class DhtRpc {
  readonly #libp2p: Libp2p
  readonly #clock: Clock
  readonly #channels = new Map<string, { opening: Promise<Channel>; connection: Connection | undefined }>()

  constructor(libp2p: Libp2p, clock: Clock) {
    this.#libp2p = libp2p
    this.#clock = clock
  }

  /** Asks one peer; rejects when it does not answer in time. Without a connection, these addresses or known ones are dialled. */
  async ask(
    peerId: PeerId,
    message: Message,
    signal: AbortSignal,
    addresses?: readonly Multiaddr[],
  ): Promise<Message> {
    // Opening the channel and waiting for the answer are bounded each by itself.
    const channel = await raceAbort(this.#channel(peerId, addresses), signal)
    return raceAbort(channel.ask(lengthPrefixed(Message.encode(message).finish())), signal)
  }

  /** Sends messages that need no answer, as fast as the peer takes them. */
  async tell(peerId: PeerId, messages: readonly Uint8Array[], signal: AbortSignal): Promise<void> {
    if (messages.length <= provideBatchMessages) {
      const channel = await raceAbort(this.#channel(peerId), signal)
      await channel.tell(Buffer.concat(messages), signal)
      return
    }
    const stream = await this.#open(peerId, signal)
    try {
      for (let at = 0; at < messages.length; at += provideBatchMessages) {
        const batch = Buffer.concat(messages.slice(at, at + provideBatchMessages))
        if (!stream.send(batch)) await drained(stream, signal)
      }
      await stream.close({ signal })
    } catch (error) {
      stream.abort(error as Error)
      throw error
    }
  }

  close(): void {
    for (const { opening } of this.#channels.values()) {
      void inBackground('dht_stream', async () => (await opening).close(), { expected: isOperationalError })
    }
    this.#channels.clear()
  }

  #channel(peerId: PeerId, addresses?: readonly Multiaddr[]): Promise<Channel> {
    const id = peerId.toString()
    const connection = this.#newestConnection(peerId)
    const existing = this.#channels.get(id)
    // On another connection it may lead to where the peer was before it was started anew, and be silent for minutes.
    // What is under way there ends by itself.
    if (existing !== undefined && (existing.connection ?? connection) === connection) return existing.opening
    const forget = () => {
      if (this.#channels.get(id) === entry) this.#channels.delete(id)
    }
    const opening = this.#open(peerId, undefined, addresses).then((stream) => {
      entry.connection = this.#newestConnection(peerId)
      return new Channel(stream, this.#clock, forget)
    })
    const entry = { opening, connection }
    this.#channels.set(id, entry)
    opening.catch(forget)
    return opening
  }

  async #open(peerId: PeerId, caller?: AbortSignal, addresses: readonly Multiaddr[] = []): Promise<Stream> {
    using patience = awakeTimeout(this.#clock, rpcTimeoutMs)
    const signal = caller === undefined ? patience.signal : AbortSignal.any([caller, patience.signal])
    const connection = this.#newestConnection(peerId)
    // With the id that has to respond there.
    const named = addresses.map((address) =>
      address.decapsulateCode(codeP2p).encapsulate(`/p2p/${peerId.toString()}`),
    )
    return await (connection?.newStream(dhtProtocol, { signal }) ??
      this.#libp2p.dialProtocol(named.length > 0 ? named : peerId, dhtProtocol, { signal }))
  }

  #newestConnection(peerId: PeerId): Connection | undefined {
    return this.#libp2p.getConnections(peerId).findLast(({ status }) => status === 'open')
  }
}

/** One stream: questions out, answers back in the same order. */
class Channel {
  readonly #stream: Stream
  readonly #clock: Clock
  readonly #onClosed: () => void
  readonly #waiting: { resolve: (answer: Message) => void; reject: (error: Error) => void }[] = []
  readonly #decoder = new LengthPrefixedDecoder(dhtMessageBytesMax)
  #cancelIdle: (() => void) | undefined

  constructor(stream: Stream, clock: Clock, onClosed: () => void) {
    this.#stream = stream
    this.#clock = clock
    this.#onClosed = onClosed
    stream.addEventListener('message', ({ data }) => this.#receive(data.subarray()))
    stream.addEventListener('remoteCloseWrite', () => this.#fail(new Error('the peer closed the stream')))
    stream.addEventListener('close', () => this.#fail(new Error('the stream was closed')))
    this.#restartIdle()
  }

  ask(request: Uint8Array): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length >= rpcPerStreamMax) {
        reject(new Error('too many questions under way to this peer'))
        return
      }
      const timeout = afterAwake(this.#clock, rpcTimeoutMs, () => {
        // Answers come in order: behind one that does not come, none does.
        this.#fail(new Error(`no answer within ${rpcTimeoutMs} ms`))
      })
      this.#waiting.push({
        resolve: (answer) => {
          timeout()
          resolve(answer)
        },
        reject: (error) => {
          timeout()
          reject(error)
        },
      })
      this.#restartIdle()
      try {
        this.#stream.send(request)
      } catch (error) {
        this.#fail(error as Error)
      }
    })
  }

  async tell(messages: Uint8Array, signal: AbortSignal): Promise<void> {
    this.#restartIdle()
    if (!this.#stream.send(messages)) await drained(this.#stream, signal)
  }

  close(): void {
    this.#fail(new Error('closed'))
  }

  #receive(data: Uint8Array): void {
    try {
      for (const bytes of this.#decoder.decode(data)) {
        const [waiting] = this.#waiting
        if (waiting === undefined) throw new Error('an answer to no question')
        // Before it leaves the queue: a question whose answer cannot be read fails with the others.
        const answer = parsed(() => Message.decode(bytes))
        if (answer === undefined) throw new Error('an answer that cannot be read')
        this.#waiting.shift()
        waiting.resolve(answer)
      }
    } catch (error) {
      this.#fail(error as Error)
    }
  }

  #restartIdle(): void {
    this.#cancelIdle?.()
    this.#cancelIdle = this.#clock.after(dhtStreamIdleMs, () => this.#fail(new Error('idle')))
  }

  #fail(error: Error): void {
    this.#onClosed()
    this.#cancelIdle?.()
    const orderly = this.#waiting.length === 0
    for (const { reject } of this.#waiting.splice(0)) reject(error)
    if (this.#stream.status !== 'open') return
    if (!orderly) this.#stream.abort(error)
    else void inBackground('dht_stream', () => this.#stream.close(), { expected: isOperationalError })
  }
}
