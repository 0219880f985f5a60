/** One question to one peer: over our own connection, through a library where the answer is out of the ordinary. */
import { formatHostPort } from '../lib/address.ts'
import { surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { errorMessage } from '../lib/errors.ts'
import { afterAwake } from '../lib/patience.ts'
import { flightMessageBytesMax, peerDoubtMs } from '../limits.ts'
import type { Peer } from '../router/router.ts'
import type { WriteChunk } from '../store/store.ts'
import { type AnswerHead, UnusualAnswer } from './answer-head.ts'
import type { PeerConnection } from './connection.ts'
import { Connections, type ConnectionsConfig } from './connections.ts'
import { LibraryClient } from './library-client.ts'
import {
  PeerFailure,
  type PeerQuestion,
  type PeerResponse,
  type RangeRefused,
  checkAnswer,
  mirroredHeader,
  questionHeaders,
  questionPath,
} from './protocol.ts'

export interface PeerClientConfig extends ConnectionsConfig {
  /** What all nodes send as Authorization. */
  authorization: string | undefined
}

export class PeerClient {
  readonly #config: PeerClientConfig
  readonly #connections: Connections
  readonly #library: LibraryClient
  readonly #running = new Map<string, number>()
  readonly #clock: Clock

  constructor(config: PeerClientConfig, clock: Clock) {
    this.#config = config
    this.#clock = clock
    this.#connections = new Connections(config, clock)
    this.#library = new LibraryClient(config)
  }

  /** Transfers from this peer to here that are running now. */
  load(peer: Peer): number {
    return this.#running.get(peer.id) ?? 0
  }

  /**
   * Rejects with PeerFailure, PeerBusy, or with the signal's reason. `onConnected` is given the address that is asked: the
   * peer is alive at least.
   */
  async open(
    peer: Peer,
    question: PeerQuestion,
    signal: AbortSignal,
    onConnected: (address: string) => void,
  ): Promise<PeerResponse | RangeRefused> {
    let address = peer.addresses[0] ?? ''
    const noteConnected = (connectedTo: string) => {
      address = connectedTo
      onConnected(connectedTo)
    }
    const { connection, head } = await this.#ask(peer, question, signal, noteConnected).catch((error: unknown) => {
      if (error instanceof UnusualAnswer) return { connection: undefined, head: undefined }
      throw error
    })
    if (connection === undefined) {
      const answer = await this.#library.open(peer, address, question, signal)
      if ('refusedSize' in answer) return answer
      return { ...answer, send: (write) => this.#counted(peer, () => answer.send(write)) }
    }
    try {
      const checked = checkAnswer(head.status, head.headers, question)
      if ('refusedSize' in checked || head.bodyBytes === 0) {
        this.#connections.giveBack(peer, connection)
        return 'refusedSize' in checked
          ? { ...checked, peer }
          : { ...checked, peer, send: nothing, discard: () => undefined }
      }
      return {
        ...checked,
        peer,
        latestWaitMs: () => connection.latestWaitMs,
        send: (write) => this.#send(peer, connection, write, checked.isArriving),
        discard: () => connection.destroy(),
      }
    } catch (error) {
      // Kept if there is no body: "not found" is a good answer.
      this.#connections.giveBack(peer, connection)
      throw error
    }
  }

  /**
   * A short message of our own protocol; resolves with the text of the answer. Rejects with PeerFailure, or with the
   * signal's reason.
   */
  async post(peer: Peer, path: string, signal: AbortSignal): Promise<string> {
    const { connection, head } = await this.#request(peer, 'GET', this.#postText(peer, path), signal, () => {})
    const leave = () => connection.destroy()
    signal.addEventListener('abort', leave, { once: true })
    try {
      signal.throwIfAborted()
      if (head.status === 404 || head.status === 405)
        throw new PeerFailure('not-found', 'the peer does not know that')
      if (head.status !== 200) throw new PeerFailure('status', `the peer answered ${head.status}`)
      if (head.bodyBytes > flightMessageBytesMax)
        throw new PeerFailure('body', `${head.bodyBytes} bytes are too many`)
      let text = ''
      if (head.bodyBytes > 0) {
        await connection.send((chunk) => {
          text += Buffer.from(chunk).toString('utf8')
          return Promise.resolve()
        }, false)
      }
      this.#connections.giveBack(peer, connection)
      return text
    } catch (error) {
      connection.destroy()
      signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener('abort', leave)
    }
  }

  async close(): Promise<void> {
    this.#connections.close()
    await this.#library.close()
  }

  async #ask(
    peer: Peer,
    question: PeerQuestion,
    signal: AbortSignal,
    onConnected: (address: string) => void,
  ): Promise<{ connection: PeerConnection; head: AnswerHead }> {
    return this.#request(peer, question.method, this.#text(peer, question), signal, onConnected)
  }

  async #request(
    peer: Peer,
    method: 'GET' | 'HEAD',
    text: string,
    signal: AbortSignal,
    onConnected: (address: string) => void,
  ): Promise<{ connection: PeerConnection; head: AnswerHead }> {
    const idle = this.#connections.takeIdle(peer)
    if (idle !== undefined) {
      try {
        onConnected(idle.ip)
        return { connection: idle, head: await this.#askIdle(peer, idle, method, text, signal) }
      } catch (error) {
        // The peer may have closed it in the same moment: that is no answer yet.
        if (!(error instanceof PeerFailure && error.retryable)) throw error
      }
    }
    const connection = await this.#connections.open(peer, signal)
    onConnected(connection.ip)
    return { connection, head: await connection.ask(method, text, signal) }
  }

  /**
   * The peer may have lost its power meanwhile, or its address: then it stays silent, and a connection from before looks
   * as good as ever. Rejects with PeerFailure when it does not even take a new one.
   */
  async #askIdle(
    peer: Peer,
    idle: PeerConnection,
    method: 'GET' | 'HEAD',
    text: string,
    signal: AbortSignal,
  ): Promise<AnswerHead> {
    const over = new AbortController()
    const untilOver = AbortSignal.any([signal, over.signal])
    const gone = Promise.withResolvers<never>()
    const cancel = afterAwake(this.#clock, peerDoubtMs, () => {
      this.#connections.probe(peer, idle, untilOver).catch((error: unknown) => {
        surface('peer_request', error)
        if (untilOver.aborted) return
        // Perhaps it is at another of its addresses by now.
        gone.reject(new PeerFailure('connect', errorMessage(error), { retryable: peer.addresses.length > 1 }))
      })
    })
    try {
      return await Promise.race([idle.ask(method, text, untilOver), gone.promise])
    } finally {
      cancel()
      over.abort(new Error('it is answered, or there is nobody'))
    }
  }

  #text(peer: Peer, question: PeerQuestion): string {
    const host = formatHostPort(peer.addresses[0] ?? '', this.#config.registryPort)
    const headers = Object.entries({ host, ...questionHeaders(question, this.#config.authorization) })
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`)
    return `${question.method} ${questionPath(question)} HTTP/1.1\r\n${lines.join('')}\r\n`
  }

  #postText(peer: Peer, path: string): string {
    const { registryPort, authorization } = this.#config
    const auth = authorization === undefined ? '' : `authorization: ${authorization}\r\n`
    const host = formatHostPort(peer.addresses[0] ?? '', registryPort)
    return `POST ${path} HTTP/1.1\r\nhost: ${host}\r\n${mirroredHeader}: true\r\ncontent-length: 0\r\n${auth}\r\n`
  }

  async #send(peer: Peer, connection: PeerConnection, write: WriteChunk, isArriving: boolean): Promise<void> {
    await this.#counted(peer, () => connection.send(write, isArriving))
    this.#connections.giveBack(peer, connection)
  }

  async #counted(peer: Peer, transfer: () => Promise<void>): Promise<void> {
    this.#running.set(peer.id, this.load(peer) + 1)
    try {
      await transfer()
    } finally {
      const left = this.load(peer) - 1
      if (left === 0) this.#running.delete(peer.id)
      else this.#running.set(peer.id, left)
    }
  }
}

/** The body of HEAD, and of an empty blob. */
function nothing(): Promise<void> {
  return Promise.resolve()
}
