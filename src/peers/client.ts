/**
 * One request to one peer: over our own connection, through a library where the response is out of the ordinary. The first
 * request on a connection carries no credentials. A peer that refuses it receives those that are meant for it, once for each
 * connection; later requests on the connection carry them at once.
 */
import { formatHostPort } from '../lib/address.ts'
import { surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { errorMessage } from '../lib/errors.ts'
import { afterAwake } from '../lib/patience.ts'
import { raceAbort } from '../lib/race-abort.ts'
import { flightMessageBytesMax, peerDoubtMs, refusalBytesMax } from '../limits.ts'
import type { Peer } from '../router/router.ts'
import type { WriteChunk } from '../store/store.ts'
import { type AnswerHead, UnusualAnswer } from './answer-head.ts'
import type { PeerConnection } from './connection.ts'
import { Connections, type ConnectionsConfig } from './connections.ts'
import type { PeerCredentials } from './credentials.ts'
import { LibraryClient } from './library-client.ts'
import { nonceHeader } from './proof.ts'
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
  /** Undefined: there is no shared password. */
  credentials: PeerCredentials | undefined
}

/** A request before it has a connection, and credentials for it. */
interface Outgoing {
  method: 'GET' | 'HEAD' | 'POST'
  /** Path and query. */
  target: string
  headers: Record<string, string>
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

  /** True while the peer is not used as a holder: it accepts only the password, which it must not receive. */
  isLeftOut(peer: Peer): boolean {
    return this.#config.credentials?.isLeftOut(peer) === true
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
    let connected: PeerConnection | undefined
    const noteConnected = (to: PeerConnection) => {
      connected = to
      onConnected(to.ip)
    }
    const outgoing = { method: question.method, target: questionPath(question), headers: questionHeaders(question) }
    const { connection, head } = await this.#request(peer, outgoing, signal, noteConnected).catch(
      (error: unknown) => {
        if (error instanceof UnusualAnswer) return { connection: undefined, head: undefined }
        throw error
      },
    )
    if (connection === undefined) {
      const address = connected?.ip ?? peer.addresses[0] ?? ''
      const answer = await this.#library.open(peer, address, connected?.authorizer?.basicHeader, question, signal)
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
    const headers = { [mirroredHeader]: 'true', 'content-length': '0' }
    const outgoing = { method: 'POST' as const, target: path, headers }
    const { connection, head } = await this.#request(peer, outgoing, signal, () => {})
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

  async #request(
    peer: Peer,
    outgoing: Outgoing,
    signal: AbortSignal,
    onConnected: (connection: PeerConnection) => void,
  ): Promise<{ connection: PeerConnection; head: AnswerHead }> {
    const method = outgoing.method === 'HEAD' ? 'HEAD' : 'GET'
    const idle = this.#connections.takeIdle(peer)
    if (idle !== undefined) {
      try {
        onConnected(idle)
        const send = (text: string) => this.#askIdle(peer, idle, method, text, signal)
        return { connection: idle, head: await this.#exchange(peer, idle, outgoing, send, signal) }
      } catch (error) {
        // The peer may have closed it in the same moment: that is no answer yet.
        if (!(error instanceof PeerFailure && error.retryable)) throw error
      }
    }
    const connection = await this.#connections.open(peer, signal)
    onConnected(connection)
    const send = (text: string) => connection.ask(method, text, signal)
    return { connection, head: await this.#exchange(peer, connection, outgoing, send, signal) }
  }

  /** Sends the request, and once more with credentials when the peer refuses it. */
  async #exchange(
    peer: Peer,
    connection: PeerConnection,
    outgoing: Outgoing,
    send: (text: string) => Promise<AnswerHead>,
    signal: AbortSignal,
  ): Promise<AnswerHead> {
    const { credentials } = this.#config
    const head = await send(this.#text(connection, outgoing))
    if (head.status !== 401 || credentials === undefined) return head
    const leave = () => connection.destroy()
    signal.addEventListener('abort', leave, { once: true })
    try {
      signal.throwIfAborted()
      if (connection.authorizer !== undefined) throw refused('the peer does not accept the shared password')
      if (head.bodyBytes > refusalBytesMax) throw refused(`the peer refuses with ${head.bodyBytes} bytes`)
      if (head.bodyBytes > 0) await connection.send(nothing, false)
      const nonce = head.headers.get(nonceHeader)
      connection.authorizer = await raceAbort(credentials.authorizer(peer, connection.ip, nonce), signal)
      if (connection.authorizer === undefined) throw refused('the peer must not receive the shared password')
    } catch (error) {
      connection.destroy()
      signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener('abort', leave)
    }
    const answer = await send(this.#text(connection, outgoing))
    if (answer.status !== 401) return answer
    connection.destroy()
    throw refused('the peer does not accept the shared password')
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

  #text({ ip, authorizer }: PeerConnection, { method, target, headers }: Outgoing): string {
    const host = formatHostPort(ip, this.#config.registryPort)
    const authorization = authorizer?.header({ method, target, host, range: headers['range'] })
    const all = { host, ...headers, ...(authorization === undefined ? {} : { authorization }) }
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
    return `${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`
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

function refused(message: string): PeerFailure {
  return new PeerFailure('status', message)
}

/** Writes nothing: for the body of HEAD, of an empty blob, and of a refusal. */
function nothing(): Promise<void> {
  return Promise.resolve()
}
