/**
 * One question to one peer over HTTP, on the registry port that all nodes share. A peer's answer is only believed
 * when it is exactly what was asked for: right status, a length, the right digest, the right range.
 */
import { Agent } from 'undici'
import { formatHostPort } from '../lib/address.ts'
import { errorCode } from '../lib/errors.ts'
import {
  peerConnectTimeoutMs,
  peerConnectionsMax,
  peerHeaderBytesMax,
  peerIdleConnectionMs,
  peerStallTimeoutMs,
} from '../limits.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import { isDigest } from '../oci/digest.ts'
import { manifestMediaTypes } from '../oci/manifest.ts'
import { type ByteRange, type RangeSpec, formatRange, parseContentRange } from '../oci/range.ts'
import type { Peer } from '../router/router.ts'
import type { WriteChunk } from '../store/store.ts'

/** Marks a question between mirrors: answer from your own store, do not ask on (as Spegel). */
export const mirroredHeader = 'x-spegel-mirrored'

export type PeerFailureReason = 'connect' | 'status' | 'headers' | 'body' | 'stall' | 'digest'

export class PeerFailure extends Error {
  override readonly name = 'PeerFailure'
  readonly reason: PeerFailureReason

  constructor(reason: PeerFailureReason, message: string, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
  }
}

/** A good answer whose body has not been read yet. */
export interface PeerResponse {
  readonly peer: Peer
  /** The whole content's size; for a range too. */
  readonly size: number
  /** Undefined: everything. */
  readonly range: ByteRange | undefined
  readonly contentType: string
  readonly digest: string | undefined
  /** Passes the body on. Rejects with PeerFailure when it breaks, stalls or is too short; else as `write` does. */
  send(write: WriteChunk): Promise<void>
  /** The body is not wanted. */
  discard(): void
}

/** The peer has the content but not the range. */
export interface RangeRefused {
  readonly refusedSize: number
}

export interface PeerQuestion {
  request: ContentRequest
  method: 'GET' | 'HEAD'
  range: RangeSpec | undefined
}

export class PeerClient {
  readonly #agent: Agent
  readonly #registryPort: number
  readonly #authorization: string | undefined
  readonly #running = new Map<string, number>()

  constructor(registryPort: number, authorization: string | undefined) {
    this.#registryPort = registryPort
    this.#authorization = authorization
    this.#agent = new Agent({
      connections: peerConnectionsMax,
      pipelining: 1,
      connect: { timeout: peerConnectTimeoutMs },
      keepAliveTimeout: peerIdleConnectionMs,
      keepAliveMaxTimeout: peerIdleConnectionMs,
      maxHeaderSize: peerHeaderBytesMax,
      headersTimeout: peerStallTimeoutMs,
      bodyTimeout: peerStallTimeoutMs,
    })
  }

  /** Transfers from this peer that are running now. */
  load(peer: Peer): number {
    return this.#running.get(peer.id) ?? 0
  }

  /** Asks the peer's addresses in turn. Rejects with PeerFailure, or with the signal's reason. */
  async open(peer: Peer, question: PeerQuestion, signal: AbortSignal): Promise<PeerResponse | RangeRefused> {
    let failure = new PeerFailure('connect', 'the peer has no address')
    for (const address of peer.addresses) {
      try {
        return await this.#openAt(peer, address, question, signal)
      } catch (error) {
        signal.throwIfAborted()
        // Another address of the same node would answer the same, unless this one was not reached at all.
        if (!(error instanceof PeerFailure && error.reason === 'connect')) throw error
        failure = error
      }
    }
    throw failure
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }

  async #openAt(
    peer: Peer,
    address: string,
    { request, method, range }: PeerQuestion,
    signal: AbortSignal,
  ): Promise<PeerResponse | RangeRefused> {
    const path = contentPath(request)
    const answer = await this.#agent
      .request({
        origin: `http://${formatHostPort(address, this.#registryPort)}`,
        path,
        method,
        signal,
        headers: {
          [mirroredHeader]: 'true',
          'user-agent': 'spegel-ts',
          accept: request.kind === 'manifest' ? manifestMediaTypes.join(', ') : '*/*',
          ...(range === undefined ? {} : { range: formatRange(range) }),
          ...(this.#authorization === undefined ? {} : { authorization: this.#authorization }),
        },
      })
      .catch((error: unknown) => {
        throw toFailure(error, 'headers')
      })
    const headers = new Headers(answer)
    if (answer.statusCode === 416 && range !== undefined) {
      await answer.body.dump().catch(() => undefined)
      const size = /^bytes \*\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1]
      if (size !== undefined) return { refusedSize: Number(size) }
    }
    const checked = checkAnswer(answer.statusCode, headers, request, range)
    if (checked instanceof PeerFailure) {
      answer.body.on('error', () => undefined).destroy()
      throw checked
    }
    if (method === 'HEAD') await answer.body.dump().catch(() => undefined)
    return {
      ...checked,
      peer,
      send: (write) => this.#counted(peer, () => sendAnswer(answer.body, checked.bodyBytes, write)),
      discard: () => answer.body.on('error', () => undefined).destroy(),
    }
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

/** Header look-up that takes the first of repeated headers. */
class Headers {
  readonly #headers: Record<string, string | string[] | undefined>

  constructor(answer: { headers: Record<string, string | string[] | undefined> }) {
    this.#headers = answer.headers
  }

  get(name: string): string | undefined {
    const value = this.#headers[name]
    return Array.isArray(value) ? value[0] : value
  }
}

function contentPath(request: ContentRequest): string {
  const section = request.kind === 'manifest' ? 'manifests' : 'blobs'
  const ns = request.registry === undefined ? '' : `?ns=${encodeURIComponent(request.registry)}`
  return `/v2/${request.repository}/${section}/${request.digest ?? request.tag}${ns}`
}

function checkAnswer(
  status: number,
  headers: Headers,
  request: ContentRequest,
  asked: RangeSpec | undefined,
): (Pick<PeerResponse, 'size' | 'range' | 'contentType' | 'digest'> & { bodyBytes: number }) | PeerFailure {
  if (status !== 200 && status !== 206) return new PeerFailure('status', `the peer answered ${status}`)
  const bodyBytes = Number(headers.get('content-length') ?? Number.NaN)
  if (!Number.isSafeInteger(bodyBytes) || bodyBytes < 0) return new PeerFailure('headers', 'no Content-Length')
  const digest = headers.get('docker-content-digest')
  if (digest !== undefined && !isDigest(digest)) return new PeerFailure('headers', `"${digest}" is not a digest`)
  if (digest !== undefined && request.digest !== undefined && digest !== request.digest) {
    return new PeerFailure('headers', `the peer answered with ${digest}`)
  }
  const contentType = headers.get('content-type') ?? 'application/octet-stream'
  if (status === 200) {
    // The whole body in place of a range: only right where everything was wanted anyway.
    const everything = asked === undefined || ('first' in asked && asked.first === 0 && asked.last === undefined)
    if (!everything) return new PeerFailure('headers', 'the peer ignored the range')
    return { size: bodyBytes, range: undefined, contentType, digest, bodyBytes }
  }
  const range = parseContentRange(headers.get('content-range'))
  if (asked === undefined || range === undefined) return new PeerFailure('headers', 'a 206 without its range')
  const length = range.last - range.first + 1
  if (length !== bodyBytes || !answersRange(asked, range))
    return new PeerFailure('headers', 'another range than asked')
  const { first, last, size } = range
  return { size, range: { first, last }, contentType, digest, bodyBytes }
}

function answersRange(asked: RangeSpec, given: ByteRange & { size: number }): boolean {
  if ('suffix' in asked)
    return given.last === given.size - 1 && given.first === Math.max(0, given.size - asked.suffix)
  return given.first === asked.first && given.last === Math.min(asked.last ?? given.size - 1, given.size - 1)
}

async function sendAnswer(body: AsyncIterable<Uint8Array>, bodyBytes: number, write: WriteChunk): Promise<void> {
  let leftBytes = bodyBytes
  const chunks = body[Symbol.asyncIterator]()
  try {
    for (;;) {
      const chunk = await chunks.next().catch((error: unknown) => {
        throw toFailure(error, 'body')
      })
      if (chunk.done === true) break
      leftBytes -= chunk.value.byteLength
      if (leftBytes < 0) throw new PeerFailure('body', 'the peer sent more than it announced')
      await write(chunk.value)
    }
  } finally {
    await chunks.return?.()
  }
  if (leftBytes > 0) throw new PeerFailure('body', `the peer sent ${leftBytes} bytes too few`)
}

function toFailure(error: unknown, phase: 'headers' | 'body'): PeerFailure {
  const code = errorCode(error) ?? ''
  const reason =
    code === 'UND_ERR_BODY_TIMEOUT'
      ? 'stall'
      : ['UND_ERR_CONNECT_TIMEOUT', 'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT'].includes(code)
        ? 'connect'
        : phase
  return new PeerFailure(reason, error instanceof Error ? error.message : String(error), error)
}
