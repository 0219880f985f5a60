/** Answers from this node's own store, for containerd and for peers alike. */
import type { FastifyReply } from 'fastify'
import type { Clock } from '../lib/clock.ts'
import type { Metrics } from '../metrics.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import type { Digest } from '../oci/digest.ts'
import { planBody } from '../oci/range.ts'
import { blobContentType, loadHeader } from '../peers/protocol.ts'
import { type Content, ContentNotFound, type ContentStore } from '../store/store.ts'
import type { Transfers } from '../store/transfers.ts'
import type { Exchange } from './exchange.ts'
import { ManifestTypes } from './manifest-types.ts'
import type { NameCheck } from './name-check.ts'
import { type SendChunks, sendBody, sendHead } from './send-body.ts'
import { sendRangeError } from './send-error.ts'

export interface ServeLocalComponents {
  store: ContentStore
  clock: Clock
  metrics: Metrics
  shutdown: AbortSignal
  /** What peers may be fed from while it arrives; undefined: nothing. */
  transfers: Transfers | undefined
  names: NameCheck
}

export class ServeLocal {
  readonly #components: ServeLocalComponents
  readonly #manifestTypes: ManifestTypes

  /** Of blobs that are here. */
  #transfersToPeers = 0
  /** Of blobs that are arriving. */
  #arrivingToPeers = 0

  constructor(components: ServeLocalComponents) {
    this.#components = components
    this.#manifestTypes = new ManifestTypes(components.store, components.clock)
  }

  /** Bodies of blobs that are being sent to peers. */
  get feeds(): number {
    return this.#transfersToPeers + this.#arrivingToPeers
  }

  /** False when the content is not here and nothing was sent. */
  async serve(request: ContentRequest, exchange: Exchange, reply: FastifyReply): Promise<boolean> {
    const { store } = this.#components
    let content: Content
    let digest: Digest
    let contentType: string
    try {
      digest = request.digest ?? (await store.resolve(request.key))
      contentType = request.kind === 'blob' ? blobContentType : await this.#manifestTypes.get(digest)
      if (!(await this.#components.names.allowsStored(digest))) return false
      content = await store.open(digest)
    } catch (error) {
      if (error instanceof ContentNotFound) return this.#serveTransfer(request, exchange, reply)
      throw error
    }
    const counted = exchange.fromPeer && request.kind === 'blob' && !exchange.isHead
    try {
      if (counted && this.#refuses(exchange, reply)) return true
      if (counted) this.#transfersToPeers += 1
      await this.#send(content, digest, contentType, exchange, reply).finally(() => {
        if (counted) this.#transfersToPeers -= 1
      })
    } finally {
      await content.close()
    }
    return true
  }

  /** A blob that is still arriving, for a peer that has less of it than we. */
  async #serveTransfer(request: ContentRequest, exchange: Exchange, reply: FastifyReply): Promise<boolean> {
    const { transfers, metrics, clock, shutdown } = this.#components
    const { digest, kind } = request
    if (!exchange.fromPeer || exchange.isHead || kind !== 'blob' || digest === undefined) return false
    if (!this.#components.names.allowsArriving(digest)) return false
    const transfer = transfers?.find(digest)
    if (transfer === undefined || transfer.state === 'failed') return false
    const plan = planBody(exchange.rangeHeader, transfer.size)
    if (plan === 'unsatisfiable' || !transfer.hasPast(plan.bounds.first)) return false
    if (this.#refuses(exchange, reply)) return true
    let content: Content
    try {
      content = await transfer.open()
    } catch (error) {
      if (error instanceof ContentNotFound) return false
      throw error
    }
    try {
      const arrived = transfer.state === 'running' ? { arrivedBytes: transfer.readableBytes } : {}
      const head = { plan, contentType: blobContentType, digest, ...arrived }
      const send: SendChunks = (write, signal) => content.send(plan.bounds, write, signal)
      this.#arrivingToPeers += 1
      metrics.flightFollowers.set(this.#arrivingToPeers)
      const { sentBytes } = await sendBody(reply, head, send, clock, shutdown).finally(() => {
        this.#arrivingToPeers -= 1
        metrics.flightFollowers.set(this.#arrivingToPeers)
      })
      exchange.sentBytes = sentBytes
      metrics.sentBytes.inc({ source: 'transfer', to: 'peer' }, sentBytes)
      return true
    } finally {
      await content.close()
    }
  }

  /** A peer looks for an idle one, and is told how much is being sent. */
  #refuses({ loadMax }: Exchange, reply: FastifyReply): boolean {
    if (this.feeds <= (loadMax ?? Infinity)) return false
    this.#components.metrics.refusals.inc({ reason: 'load' })
    void reply.code(503).header(loadHeader, this.feeds).send()
    return true
  }

  async #send(
    content: Content,
    digest: Digest,
    contentType: string,
    exchange: Exchange,
    reply: FastifyReply,
  ): Promise<void> {
    const { clock, metrics, shutdown } = this.#components
    const plan = planBody(exchange.rangeHeader, content.size)
    if (plan === 'unsatisfiable') {
      sendRangeError(reply, content.size)
      return
    }
    const head = { plan, contentType, digest }
    metrics.firstByte.observe({ source: 'store' }, exchange.elapsedMs / 1000)
    if (exchange.isHead) {
      sendHead(reply, head)
      return
    }
    const { sentBytes } = await sendBody(
      reply,
      head,
      (write, signal) => (plan.contentLength === 0 ? Promise.resolve() : content.send(plan.bounds, write, signal)),
      clock,
      shutdown,
    )
    exchange.sentBytes = sentBytes
    metrics.sentBytes.inc({ source: 'store', to: exchange.fromPeer ? 'peer' : 'containerd' }, sentBytes)
  }
}
