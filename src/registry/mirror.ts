/**
 * One request of our own containerd for content that this node has not: find a peer, pass its answer on, and go on at
 * another peer when it breaks. Nobody in time: false, and the caller answers 404.
 */
import type { FastifyReply } from 'fastify'
import { errorMessage } from '../lib/errors.ts'
import { blobFindBudgetMs, manifestBytesMax, manifestFindBudgetMs } from '../limits.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import { digestOf, digestParts, isDigest } from '../oci/digest.ts'
import { manifestMediaType } from '../oci/manifest.ts'
import { type ByteRange, parseRange, partialBody, planBody, wholeBody } from '../oci/range.ts'
import type { Exchange } from './exchange.ts'
import { PeerFailure, type PeerResponse } from './peer-client.ts'
import { PeerSource, type PeerSourceComponents } from './peer-source.ts'
import { type BodyResult, sendBody, sendHead } from './send-body.ts'
import { sendRangeError } from './send-error.ts'

export interface MirrorComponents extends PeerSourceComponents {
  shutdown: AbortSignal
}

export class Mirror {
  readonly #components: MirrorComponents
  readonly #resolveTimeoutMs: number

  constructor(components: MirrorComponents, config: { resolveTimeoutMs: number }) {
    this.#components = components
    this.#resolveTimeoutMs = config.resolveTimeoutMs
  }

  /** False when no peer gave a good answer in time and nothing was sent. */
  async serve(request: ContentRequest, exchange: Exchange, reply: FastifyReply): Promise<boolean> {
    const { metrics, shutdown } = this.#components
    const method = exchange.isHead ? 'HEAD' : 'GET'
    const source = new PeerSource({ request, method, range: undefined }, this.#resolveTimeoutMs, this.#components)
    const gone = new AbortController()
    const onClose = () => gone.abort(new Error('the client closed the connection'))
    reply.raw.once('close', onClose)
    const signal = AbortSignal.any([gone.signal, shutdown])
    try {
      const served =
        request.kind === 'manifest' && method === 'GET'
          ? await this.#serveManifest(request, source, exchange, reply, signal)
          : await this.#serveStream(request, source, exchange, reply, signal)
      metrics.mirrorRequests.inc({ registry: request.registry ?? '', cache: served ? 'hit' : 'miss' })
      if (served) {
        metrics.mirrorLastSuccess.setToCurrentTime()
      } else {
        metrics.mirrorMisses.inc({ reason: source.missReason })
        this.#log(request, exchange, { outcome: `miss: ${source.missReason}` })
      }
      return served
    } finally {
      reply.raw.off('close', onClose)
      source.close()
    }
  }

  /** Small: read whole and verified before the first header, so that a wrong one costs the next peer and no more. */
  async #serveManifest(
    request: ContentRequest,
    source: PeerSource,
    exchange: Exchange,
    reply: FastifyReply,
    signal: AbortSignal,
  ): Promise<boolean> {
    for (;;) {
      const response = await source.next(undefined, manifestFindBudgetMs, signal)
      if (response === undefined || 'refusedSize' in response) return false
      let bytes: Buffer
      try {
        bytes = await readManifest(response, request)
      } catch (error) {
        source.noteFailure(response.peer, error)
        continue
      }
      const digest = request.digest ?? response.digest ?? digestOf(bytes)
      const plan = planBody(exchange.rangeHeader, bytes.length)
      if (plan === 'unsatisfiable') {
        sendRangeError(reply, bytes.length)
        return true
      }
      const head = { plan, contentType: manifestMediaType(bytes) ?? response.contentType, digest }
      this.#noteFirstByte(exchange)
      const result = await sendBody(
        reply,
        head,
        (write) => write(bytes.subarray(plan.bounds.first, plan.bounds.last + 1)),
        this.#components.clock,
        this.#components.shutdown,
      )
      this.#note(request, exchange, result, [response])
      return true
    }
  }

  async #serveStream(
    request: ContentRequest,
    source: PeerSource,
    exchange: Exchange,
    reply: FastifyReply,
    signal: AbortSignal,
  ): Promise<boolean> {
    const short = exchange.isHead || request.kind === 'manifest'
    const findBudgetMs = short ? manifestFindBudgetMs : blobFindBudgetMs
    const first = await source.next(parseRange(exchange.rangeHeader), findBudgetMs, signal)
    if (first === undefined) return false
    if ('refusedSize' in first) {
      sendRangeError(reply, first.refusedSize)
      return true
    }
    if (request.kind === 'manifest' && first.digest === undefined && request.digest === undefined) return false
    const plan = first.range === undefined ? wholeBody(first.size) : partialBody(first.range, first.size)
    const head = { plan, contentType: first.contentType, digest: request.digest ?? first.digest ?? '' }
    this.#noteFirstByte(exchange)
    if (exchange.isHead) {
      sendHead(reply, head)
      this.#log(request, exchange, { outcome: 'hit', source: first.peer.addresses[0] })
      return true
    }
    const body = new ResumableBody(first, plan.bounds, source, this.#components)
    const { clock, shutdown } = this.#components
    const result = await sendBody(reply, head, (write, bodySignal) => body.send(write, bodySignal), clock, shutdown)
    this.#note(request, exchange, result, body.used)
    return true
  }

  #noteFirstByte(exchange: Exchange): void {
    this.#components.metrics.firstByte.observe({ source: 'peer' }, exchange.elapsedMs / 1000)
  }

  #note(request: ContentRequest, exchange: Exchange, result: BodyResult, used: readonly PeerResponse[]): void {
    exchange.sentBytes = result.sentBytes
    this.#components.metrics.sentBytes.inc({ source: 'peer', to: 'containerd' }, result.sentBytes)
    this.#log(request, exchange, {
      outcome: result.outcome === 'complete' ? 'hit' : result.outcome,
      source: used.map(({ peer }) => peer.addresses[0]).join(' '),
      ...(result.error === undefined ? {} : { error: errorMessage(result.error) }),
    })
  }

  #log(
    request: ContentRequest,
    exchange: Exchange,
    found: { outcome: string; source?: string | undefined; error?: string },
  ): void {
    this.#components.logger.info(
      {
        key: request.key,
        registry: request.registry,
        method: exchange.isHead ? 'HEAD' : 'GET',
        bytes: exchange.sentBytes,
        ms: Math.round(exchange.elapsedMs * 10) / 10,
        ...found,
      },
      'mirrored',
    )
  }
}

async function readManifest(response: PeerResponse, request: ContentRequest): Promise<Buffer> {
  if (response.size > manifestBytesMax) {
    response.discard()
    throw new PeerFailure('headers', `a manifest of ${response.size} bytes`)
  }
  const bytes = Buffer.alloc(response.size)
  let filledBytes = 0
  await response.send((chunk) => {
    bytes.set(chunk, filledBytes)
    filledBytes += chunk.byteLength
    return Promise.resolve()
  })
  const expected = request.digest ?? response.digest
  if (expected === undefined || !isDigest(expected)) return bytes
  if (digestOf(bytes, digestParts(expected).algorithm) !== expected) {
    throw new PeerFailure('digest', `the manifest is not ${expected}`)
  }
  return bytes
}

/** A body that continues at the next peer from the byte where the last one broke. */
class ResumableBody {
  /** The answers it was made of, in order. */
  readonly used: PeerResponse[]
  readonly #bounds: ByteRange
  readonly #size: number
  readonly #source: PeerSource
  readonly #components: MirrorComponents

  constructor(first: PeerResponse, bounds: ByteRange, source: PeerSource, components: MirrorComponents) {
    this.used = [first]
    this.#bounds = bounds
    this.#size = first.size
    this.#source = source
    this.#components = components
  }

  async send(write: (chunk: Uint8Array) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { metrics } = this.#components
    let position = this.#bounds.first
    let response: PeerResponse | undefined = this.used[0]
    while (response !== undefined) {
      const { peer } = response
      const startedAt = position
      try {
        await response.send(async (chunk) => {
          signal.throwIfAborted()
          await write(chunk)
          position += chunk.byteLength
        })
        return
      } catch (error) {
        // Not the peer's doing: the client is gone, or we are told to stop.
        if (!(error instanceof PeerFailure)) throw error
        this.#source.noteFailure(peer, error)
        if (position > startedAt) this.#source.noteBytes(peer)
        response = await this.#next(position, signal)
        metrics.resumes.inc({ outcome: response === undefined ? 'given-up' : 'resumed' })
        if (response === undefined) throw error
        this.used.push(response)
      }
    }
  }

  async #next(position: number, signal: AbortSignal): Promise<PeerResponse | undefined> {
    for (;;) {
      const next = await this.#source.next({ first: position, last: this.#bounds.last }, blobFindBudgetMs, signal)
      if (next === undefined || 'refusedSize' in next) return undefined
      if (next.size === this.#size) return next
      next.discard()
      this.#source.noteFailure(next.peer, new PeerFailure('headers', `another size: ${next.size}`))
    }
  }
}
