/**
 * One request of our own containerd for content that this node has not: find a peer, pass its answer on, and go on at
 * another peer when it breaks. Nobody in time: false, and the caller answers 404.
 */
import type { FastifyReply } from 'fastify'
import { BoundedMap } from '../lib/bounded-map.ts'
import {
  blobFindBudgetMs,
  flightBodyPatienceMs,
  flightHeadersMs,
  flightHoldersMs,
  flightSmallBytes,
  flightSmallWaitMs,
  givenUpMs,
  givenUpRememberedMax,
  manifestFindBudgetMs,
} from '../limits.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import type { Digest } from '../oci/digest.ts'
import {
  type BodyPlan,
  type RangeSpec,
  formatRange,
  parseRange,
  partialBody,
  planBody,
  wholeBody,
} from '../oci/range.ts'
import type { FlightSource } from '../flights/flight-source.ts'
import type { Flights } from '../flights/flights.ts'
import { AnswerTimes } from '../peers/answer-times.ts'
import type { BodySource } from '../peers/body-source.ts'
import type { PeerClient } from '../peers/client.ts'
import { type Deliverer, Deliveries } from '../peers/deliveries.ts'
import { PeerFailure, type PeerResponse, type RangeRefused, blobContentType } from '../peers/protocol.ts'
import { type Looking, PeerSource, type PeerSourceComponents } from '../peers/source.ts'
import { PeerStanding } from '../peers/standing.ts'
import type { Peer } from '../router/router.ts'
import type { ContentStore, WriteChunk } from '../store/store.ts'
import type { Exchange } from './exchange.ts'
import {
  type FlightParts,
  type FlightRequest,
  type RangeFrom,
  isFromStart,
  isWholeLargeBlob,
  restMs,
} from './flight-request.ts'
import { MirrorNotes } from './mirror-notes.ts'
import { type Manifest, ManifestReader } from './read-manifest.ts'
import { ResumableBody } from './resumable-body.ts'
import { type BodyResult, type SendChunks, sendBody, sendHead } from './send-body.ts'
import { sendRangeError } from './send-error.ts'
import { sendUpstream } from './send-upstream.ts'

export interface MirrorComponents extends Omit<PeerSourceComponents, 'standing' | 'answerTimes'> {
  client: PeerClient
  store: ContentStore
  shutdown: AbortSignal
  /** Undefined: flights are off. */
  flight: FlightParts | undefined
}

/** Where a body comes from, and how long for each step. */
interface StreamPlan {
  source: BodySource
  spec: RangeSpec | undefined
  /** For the first answer. */
  budgetMs: number
  /** For a further one, after a break. */
  bodyBudgetMs: number
  /** When nobody has answered in time: the size, if headers may go out and the body wait. */
  sizeToWaitWith: () => number | undefined
  /** The rest of a body that nobody could finish is not looked for again for a while. */
  remembersBreaks: boolean
}

export class Mirror {
  readonly #components: MirrorComponents & PeerSourceComponents
  readonly #resolveTimeoutMs: number
  readonly #deliveries: Deliveries
  readonly #notes: MirrorNotes
  readonly #manifests: ManifestReader
  /** Until when: blobs whose body no peer could finish, each with the byte that was missing first. */
  readonly #givenUpUntilMs = new BoundedMap<string, number>(givenUpRememberedMax)

  constructor(components: MirrorComponents, config: { resolveTimeoutMs: number }) {
    const { clock } = components
    this.#components = { ...components, standing: new PeerStanding(clock), answerTimes: new AnswerTimes() }
    this.#resolveTimeoutMs = config.resolveTimeoutMs
    this.#notes = new MirrorNotes(components)
    this.#manifests = new ManifestReader(clock)
    this.#deliveries = new Deliveries({
      clock,
      store: components.store,
      isDownloading: (digest) => components.flight?.flights.isDownloading(digest) === true,
      onWrong: (digest, deliverers) => this.#onWrongBlob(digest, deliverers),
    })
  }

  /** False when no peer gave a good answer in time and nothing was sent. */
  async serve(request: ContentRequest, exchange: Exchange, reply: FastifyReply): Promise<boolean> {
    const { shutdown } = this.#components
    if (this.#isSpoiled(request, exchange)) {
      this.#notes.miss(request, exchange, 'wrong-bytes', 'nothing')
      return false
    }
    const givenUp = this.#isGivenUp(request, exchange)
    const flight = this.#flightFor(request, exchange)
    if (givenUp && flight === undefined) {
      this.#notes.miss(request, exchange, 'given-up', 'nothing')
      return false
    }
    // The head of a manifest is believed as little as its body: it is read whole for HEAD too.
    const isHead = exchange.isHead && request.kind === 'blob'
    const gone = new AbortController()
    const onClose = () => gone.abort(new Error('the client closed the connection'))
    reply.raw.once('close', onClose)
    // It may have left while the store was asked.
    if (reply.raw.destroyed) onClose()
    const signal = AbortSignal.any([gone.signal, shutdown])
    const looking: Looking = {
      method: isHead ? 'HEAD' : 'GET',
      resolveTimeoutMs: this.#resolveTimeoutMs,
      depth: flight === undefined ? 'usual' : 'quick',
      idleOnly: flight !== undefined && isWholeLargeBlob(request, exchange, flight),
      isPatient: flight === undefined,
    }
    // Who takes it from an idle one feeds others with it.
    if (looking.idleOnly) flight?.flights.takePart(flight.digest, 'following')
    const source = givenUp ? undefined : new PeerSource(request, looking, this.#components)
    const budgetMs = flight === undefined ? blobFindBudgetMs : flightHoldersMs
    try {
      if (
        source !== undefined &&
        (await this.#serveFromHolders(request, source, budgetMs, exchange, reply, signal))
      ) {
        this.#notes.hit(request)
        return true
      }
      const outcome =
        flight === undefined
          ? 'nothing'
          : await this.#serveFlight(request, { ...flight, holders: source }, exchange, reply, signal)
      if (outcome === 'served') this.#notes.hit(request)
      else this.#notes.miss(request, exchange, source?.missReason ?? 'given-up', outcome)
      return outcome !== 'nothing'
    } finally {
      reply.raw.off('close', onClose)
      source?.close()
    }
  }

  #serveFromHolders(
    request: ContentRequest,
    source: PeerSource,
    budgetMs: number,
    exchange: Exchange,
    reply: FastifyReply,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (request.kind === 'manifest') return this.#serveManifest(request, source, exchange, reply, signal)
    return this.#serveStream(
      request,
      {
        source,
        spec: parseRange(exchange.rangeHeader),
        budgetMs: exchange.isHead ? manifestFindBudgetMs : budgetMs,
        bodyBudgetMs: blobFindBudgetMs,
        sizeToWaitWith: () => undefined,
        remembersBreaks: true,
      },
      exchange,
      reply,
      signal,
    )
  }

  /** Busy and slow ones were left for the flight, which knows nobody: better than upstream. */
  async #serveFromThoseLeft(
    request: ContentRequest,
    exchange: Exchange,
    reply: FastifyReply,
    signal: AbortSignal,
  ): Promise<boolean> {
    const looking = { method: 'GET', depth: 'quick', idleOnly: false, isPatient: true } as const
    const resolveTimeoutMs = this.#resolveTimeoutMs
    const source = new PeerSource(request, { ...looking, resolveTimeoutMs }, this.#components)
    const budgetMs = restMs(exchange, flightHeadersMs - flightHoldersMs)
    return this.#serveFromHolders(request, source, budgetMs, exchange, reply, signal).finally(() => source.close())
  }

  /**
   * Tags never: what they stand for may change. Only for our own containerd, which begins its download before it asks: that
   * is what others are fed from. Without one the request is another node's, sent here by a Service while the mirror there
   * starts anew, or of another namespace: nobody would see how far it is.
   */
  #flightFor({ digest, registry }: ContentRequest, exchange: Exchange): FlightRequest | undefined {
    const { flight } = this.#components
    if (flight === undefined || digest === undefined || registry === undefined) return undefined
    if (!exchange.fromContainerd || exchange.isHead) return undefined
    return flight.flights.isDownloading(digest) ? { ...flight, digest, registry } : undefined
  }

  /** Nobody has it whole: perhaps somebody is fetching it, or we are to. */
  async #serveFlight(
    request: ContentRequest,
    flight: FlightRequest & { holders: PeerSource | undefined },
    exchange: Exchange,
    reply: FastifyReply,
    signal: AbortSignal,
  ): Promise<'served' | 'redirected' | 'nothing'> {
    const asked = parseRange(exchange.rangeHeader)
    if (asked !== undefined && !('first' in asked)) return 'nothing'
    const { flights, digest, holders } = flight
    const { standing } = this.#components
    const origin = await flight.upstreamOrigin(flight.registry)
    const isWrong = (peer: Peer) => standing.isWrong(peer, digest)
    const source = flights.follow(request, digest, origin === undefined, isWrong, holders?.busyPeer)
    const plan = flightPlan(source, asked, flights, digest, restMs(exchange, flightHeadersMs - flightHoldersMs))
    const isFed =
      request.kind === 'manifest'
        ? await this.#serveManifest(request, source, exchange, reply, signal)
        : await this.#serveStream(request, plan, exchange, reply, signal)
    const served =
      isFed ||
      (source.outcome !== 'timeout' &&
        holders?.hasLeftSomebody === true &&
        (await this.#serveFromThoseLeft(request, exchange, reply, signal)))
    this.#components.metrics.flightWaits.inc({ outcome: served ? 'source' : source.outcome })
    if (source.outcome === 'lease' && !served) {
      const { isAfterFailure } = source
      const { clock, shutdown } = this.#components
      return sendUpstream(request, flight, { asked, origin, isAfterFailure }, exchange, reply, {
        clock,
        shutdown,
        signal,
      })
    }
    if (source.outcome !== 'lease' && (!served || signal.aborted)) flights.leave(digest)
    return served ? 'served' : 'nothing'
  }

  /** Small: read whole and verified before the first header, so that a wrong one costs the next peer and no more. */
  async #serveManifest(
    request: ContentRequest,
    source: BodySource,
    exchange: Exchange,
    reply: FastifyReply,
    signal: AbortSignal,
  ): Promise<boolean> {
    for (;;) {
      const response = await source.next(undefined, manifestFindBudgetMs, signal)
      if (response === undefined || 'refusedSize' in response) return false
      let manifest: Manifest
      try {
        manifest = await this.#manifests.read(response, request)
      } catch (error) {
        source.noteFailure(response.peer, error)
        continue
      }
      const { bytes, digest, contentType } = manifest
      const plan = planBody(exchange.rangeHeader, bytes.length)
      if (plan === 'unsatisfiable') {
        sendRangeError(reply, bytes.length)
        return true
      }
      const head = { plan, contentType, digest }
      this.#notes.firstByte(exchange)
      if (exchange.isHead) {
        sendHead(reply, head)
        this.#notes.head(request, exchange, response)
        return true
      }
      const result = await sendBody(
        reply,
        head,
        (write) => write(bytes.subarray(plan.bounds.first, plan.bounds.last + 1)),
        this.#components.clock,
        this.#components.shutdown,
      )
      this.#notes.body(request, exchange, result, [response])
      return true
    }
  }

  async #serveStream(
    request: ContentRequest,
    { source, spec, budgetMs, bodyBudgetMs, sizeToWaitWith, remembersBreaks }: StreamPlan,
    exchange: Exchange,
    reply: FastifyReply,
    signal: AbortSignal,
  ): Promise<boolean> {
    const isOurs = this.#isForOurStore(request, exchange)
    const first = await this.#firstAnswer(request, { source, spec, budgetMs }, isOurs, signal)
    if (first !== undefined && 'refusedSize' in first) {
      sendRangeError(reply, first.refusedSize)
      return true
    }
    // Nothing moves yet, but the size is known: headers now, or containerd gives up after 30 s.
    const size = first?.size ?? (signal.aborted ? undefined : sizeToWaitWith())
    const digest = request.digest ?? first?.digest
    if (size === undefined || digest === undefined) {
      first?.discard()
      return false
    }
    const plan = planFor(first, spec, size)
    if (plan === undefined) return false
    const head = { plan, contentType: first?.contentType ?? blobContentType, digest }
    this.#notes.firstByte(exchange)
    if (exchange.isHead && first !== undefined) {
      sendHead(reply, head)
      this.#notes.head(request, exchange, first)
      return true
    }
    const { clock, shutdown, metrics, flight } = this.#components
    const body = new ResumableBody({ first, size, budgetMs: bodyBudgetMs }, plan.bounds, source, metrics)
    // Of what goes elsewhere we do not see whether it was liked.
    const onEnd = isOurs ? this.#deliveries.begin(digest as Digest, size) : () => {}
    const passOn = (write: WriteChunk) =>
      isOurs ? (flight?.flights.passOn(digest as Digest, plan.bounds.first, write) ?? write) : write
    const send: SendChunks = (write, bodySignal) => body.send(passOn(write), bodySignal)
    let result: BodyResult
    try {
      result = await sendBody(reply, head, send, clock, shutdown)
    } finally {
      const given = body.parts.filter((part) => part.last >= part.first)
      onEnd(
        given.map(({ response: { peer, isArriving }, first: from, last }) => {
          return { peer, isRelay: isArriving, first: from, last }
        }),
      )
    }
    if (result.outcome === 'client-gone' && isOurs) flight?.flights.noteClientGone(digest as Digest)
    // So that containerd, which comes back for the rest, finds upstream and not the same peers.
    if (result.outcome === 'broken' && remembersBreaks) {
      this.#giveUp(request.key, plan.bounds.first + result.sentBytes)
    }
    this.#notes.body(
      request,
      exchange,
      result,
      body.parts.map(({ response }) => response),
    )
    return true
  }

  /** Who has another size than our containerd expects has another blob. What that is shows while it downloads. */
  async #firstAnswer(
    { digest }: ContentRequest,
    { source, spec, budgetMs }: Pick<StreamPlan, 'source' | 'spec' | 'budgetMs'>,
    isOurs: boolean,
    signal: AbortSignal,
  ): Promise<PeerResponse | RangeRefused | undefined> {
    const { clock, flight } = this.#components
    const expected = isOurs && digest !== undefined ? flight?.flights.sizeOf(digest) : undefined
    const untilMs = clock.nowMs() + budgetMs
    for (;;) {
      const first = await source.next(spec, Math.max(0, untilMs - clock.nowMs()), signal)
      if (first === undefined) return undefined
      const size = 'refusedSize' in first ? first.refusedSize : first.size
      if (expected === undefined || size === expected) return first
      if (!('refusedSize' in first)) first.discard()
      source.noteFailure(first.peer, new PeerFailure('headers', `another size: ${size}`))
    }
  }

  /**
   * A Service sends requests of another node's containerd here, while the mirror there starts anew. What they are given is
   * never seen in our store, which says nothing against those who gave it.
   */
  #isForOurStore({ digest }: ContentRequest, { fromContainerd }: Exchange): boolean {
    const flights = this.#components.flight?.flights
    return fromContainerd && (digest === undefined || flights === undefined || flights.isDownloading(digest))
  }

  #giveUp(key: string, firstMissing: number): void {
    this.#givenUpUntilMs.set(`${key} ${firstMissing}`, this.#components.clock.nowMs() + givenUpMs)
  }

  #isGivenUp({ kind, key }: ContentRequest, exchange: Exchange): boolean {
    if (kind !== 'blob' || exchange.isHead) return false
    return (this.#givenUpUntilMs.get(`${key} ${exchange.firstAskedByte}`) ?? 0) > this.#components.clock.nowMs()
  }

  /** Whether wrong bytes were delivered for the blob. This request may be the sign of it: it starts at the first byte again. */
  #isSpoiled(request: ContentRequest, exchange: Exchange): boolean {
    const { kind, digest } = request
    if (kind !== 'blob' || digest === undefined) return false
    if (!exchange.isHead && this.#isForOurStore(request, exchange)) {
      this.#deliveries.noteRequest(digest, exchange.firstAskedByte)
    }
    return this.#components.standing.isSpoiled(digest)
  }

  #onWrongBlob(digest: Digest, deliverers: readonly Deliverer[]): void {
    const { standing, metrics, logger } = this.#components
    standing.noteSpoiled(digest)
    for (const { peer, isRelay } of deliverers) {
      if (isRelay) standing.noteWrongRelay(peer, digest)
      else standing.noteWrongHolder(peer, digest)
    }
    metrics.wrongBlobs.inc()
    const peers = deliverers.map(({ peer, isRelay }) => ({ id: peer.id, addresses: peer.addresses, isRelay }))
    logger.warn({ key: digest, peers }, 'containerd discarded a blob from peers: it is not mirrored for 10 minutes')
  }
}

function flightPlan(
  source: FlightSource,
  asked: RangeFrom | undefined,
  flights: Flights,
  digest: Digest,
  headersMs: number,
): StreamPlan {
  const isSmall = (flights.sizeOf(digest) ?? 0) < flightSmallBytes
  return {
    source,
    // Without Content-Range: containerd's parallel fetch then falls to one plain stream, which can be tailed.
    spec: isFromStart(asked) ? undefined : asked,
    budgetMs: isSmall ? Math.min(flightSmallWaitMs, headersMs) : headersMs,
    bodyBudgetMs: flightBodyPatienceMs,
    sizeToWaitWith: () => (source.outcome === 'timeout' && !isSmall ? flights.sizeOf(digest) : undefined),
    remembersBreaks: false,
  }
}

/** Undefined: the range lies outside. */
function planFor(first: PeerResponse | undefined, spec: RangeSpec | undefined, size: number): BodyPlan | undefined {
  if (first !== undefined) return first.range === undefined ? wholeBody(size) : partialBody(first.range, size)
  const plan = planBody(spec === undefined ? undefined : formatRange(spec), size)
  return plan === 'unsatisfiable' ? undefined : plan
}
