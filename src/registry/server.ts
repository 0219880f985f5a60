/**
 * The registry port: what containerd and peers ask under /v2/, and the health of the daemon. Requests are parsed,
 * answered from the store, else from peers, else refused; nothing is ever stored.
 */
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify'
import { type HealthExtras, addHealthRoutes } from '../http/health.ts'
import { createHttpServer, leaveClientError } from '../http/http-server.ts'
import { listen } from '../http/listen.ts'
import { type HostPort, canonicalIp } from '../lib/address.ts'
import { noteSmallRequest } from '../lib/chunk-buffers.ts'
import { reportInternalError } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { errorMessage, errorStack } from '../lib/errors.ts'
import { IdleMemory } from '../lib/idle-memory.ts'
import type { Random } from '../lib/random.ts'
import {
  finLingerMs,
  registryConnectionsMax,
  registryConnectionsPerAddressMax,
  registryConnectionsReserved,
  requestHeaderBytesMax,
} from '../limits.ts'
import type { Logger } from '../logger.ts'
import type { Metrics, metricSpecs } from '../metrics.ts'
import { parseContentRequest } from '../oci/content-request.ts'
import type { Digest } from '../oci/digest.ts'
import type { NameFilter } from '../oci/filter.ts'
import { Flights } from '../flights/flights.ts'
import { type FlightNode, flightsRoute } from '../flights/protocol.ts'
import { PeerClient } from '../peers/client.ts'
import { nonceHeader } from '../peers/proof.ts'
import { loadHeader } from '../peers/protocol.ts'
import type { Router } from '../router/router.ts'
import type { ContentStore } from '../store/store.ts'
import type { Transfers } from '../store/transfers.ts'
import { BodyShares } from './body-shares.ts'
import { Callers } from './callers.ts'
import { Exchange } from './exchange.ts'
import type { FlightParts } from './flight-request.ts'
import { Mirror } from './mirror.ts'
import { sendError, sendNotFound } from './send-error.ts'
import { NameCheck } from './name-check.ts'
import { ServeLocal } from './serve-local.ts'
import type { SharedPassword } from './shared-password.ts'

export interface RegistryConfig {
  listen: HostPort
  /** Stands in where a request names no registry. */
  defaultRegistry: string | undefined
  /** How long to wait for a further peer while none is being asked. */
  resolveTimeoutMs: number
  /** How long a peer may give next to nothing while bytes are waited for. */
  stallTimeoutMs: number
}

export interface RegistryComponents extends HealthExtras {
  store: ContentStore
  /** Undefined: a plain registry that answers from its store only. */
  router: Router | undefined
  filter: NameFilter
  auth: SharedPassword | undefined
  /** Why the daemon is not ready; empty when it is. */
  notReady: () => string[]
  /** Whether a connection from this address comes from the node itself: see `lib/own-node.ts`. */
  isOwnNode: (remoteAddress: string | undefined) => boolean
  /** Undefined: no flights. */
  flight: ({ transfers: Transfers; self: FlightNode } & Omit<FlightParts, 'flights'>) | undefined
  clock: Clock
  random: Random
  metrics: Metrics
  logger: Logger
}

const connectionLimits = {
  connectionsMax: registryConnectionsMax,
  perAddressMax: registryConnectionsPerAddressMax,
  reserved: registryConnectionsReserved,
}

declare module 'fastify' {
  interface FastifyRequest {
    exchange: Exchange | undefined
  }
}

export class RegistryServer {
  readonly #app: FastifyInstance
  readonly #config: RegistryConfig
  readonly #components: RegistryComponents
  readonly #local: ServeLocal
  readonly #names: NameCheck
  readonly #mirror: Mirror | undefined
  readonly #client: PeerClient
  readonly #flight: FlightParts | undefined
  readonly #shutdown = new AbortController()
  readonly #idleMemory: IdleMemory
  readonly #callers: Callers
  /** Requests for content that are being answered. */
  readonly #bodies: BodyShares
  #stopping = false

  constructor(config: RegistryConfig, components: RegistryComponents) {
    const { store, router, clock, random, metrics, logger, auth } = components
    const shutdown = this.#shutdown.signal
    this.#config = config
    this.#callers = new Callers(components.isOwnNode, components.logger)
    this.#bodies = new BodyShares(components.isOwnNode)
    this.#components = components
    this.#names = new NameCheck(components.filter, store)
    const { transfers: arriving } = components.flight ?? {}
    this.#local = new ServeLocal({ store, clock, metrics, shutdown, transfers: arriving, names: this.#names })
    this.#client = new PeerClient(
      {
        registryPort: config.listen.port,
        listenHost: config.listen.host,
        stallTimeoutMs: config.stallTimeoutMs,
        credentials: auth?.credentials,
      },
      clock,
    )
    const client = this.#client
    if (router !== undefined && components.flight !== undefined) {
      const { transfers, self, ...upstream } = components.flight
      const isStored = (digest: Digest) => store.isStored(digest)
      const feeds = () => this.#local.feeds
      const flights = new Flights({ router, client, transfers, isStored, feeds, self, clock, metrics, logger })
      this.#flight = { flights, ...upstream }
    }
    this.#mirror =
      router === undefined
        ? undefined
        : new Mirror(
            { router, client, store, clock, random, metrics, logger, shutdown, flight: this.#flight },
            config,
          )
    this.#idleMemory = new IdleMemory(clock, () => this.#bodies.total > 0)
    this.#app = this.#createApp()
  }

  /** Throws a UserError when the address cannot be had. */
  async start(): Promise<void> {
    this.#idleMemory.noteWork()
    await listen(this.#app, this.#config.listen, '--registry-addr')
  }

  /** For metrics. */
  get flightsCoordinated(): number {
    return this.#flight?.flights.stats().coordinated ?? 0
  }

  /** Takes no new requests, lets bodies end within the grace time, then ends them by FIN. */
  async close(graceMs: number): Promise<void> {
    const { clock } = this.#components
    this.#stopping = true
    const closed = this.#app.close()
    const cancelGrace = clock.after(graceMs, () => this.#shutdown.abort(new Error('the daemon is stopping')))
    const cancelAll = clock.after(graceMs + finLingerMs, () => this.#app.server.closeAllConnections())
    try {
      await closed
    } finally {
      this.#flight?.flights.close()
      this.#idleMemory.close()
      cancelGrace()
      cancelAll()
      await this.#client.close()
    }
  }

  #createApp(): FastifyInstance {
    const { metrics, clock, isOwnNode } = this.#components
    const app = fastify({
      logger: false,
      exposeHeadRoutes: false,
      forceCloseConnections: 'idle',
      serverFactory: (listener) => createHttpServer(listener, { ...connectionLimits, isOwnNode }),
      clientErrorHandler: leaveClientError,
      // Paths are parsed once, by parseContentRequest.
      routerOptions: { maxParamLength: requestHeaderBytesMax },
    })
    app.decorateRequest('exchange', undefined)
    app.addHook('onRequest', (request, reply, done) => {
      metrics.httpInflight.inc({ handler: handlerOf(request) })
      // 'close' comes once for every response, hijacked or not, finished or not.
      reply.raw.once('close', () => metrics.httpInflight.dec({ handler: handlerOf(request) }))
      request.exchange = new Exchange(clock, request, this.#callers.judge(request))
      // Here, before fastify reads the body, of which it would complain instead.
      if (request.method === 'GET' || request.method === 'HEAD' || this.#isMessage(request)) done()
      else sendError(reply, 405, 'UNSUPPORTED', 'this registry only answers GET and HEAD')
    })
    app.addHook('onResponse', (request, reply, done) => {
      const labels = { handler: handlerOf(request), method: methodOf(request), code: String(reply.raw.statusCode) }
      metrics.httpDuration.observe(labels, (request.exchange?.elapsedMs ?? 0) / 1000)
      metrics.httpResponseSize.observe(labels, request.exchange?.sentBytes ?? 0)
      // Stopping: a connection whose transfer has just ended would otherwise stay until its client leaves.
      if (this.#stopping) setImmediate(() => this.#app.server.closeIdleConnections())
      done()
    })
    addHealthRoutes(app, this.#components.notReady, this.#components)
    for (const url of ['/v2', '/v2/*']) {
      app.route({ method: ['GET', 'HEAD'], url, handler: (request, reply) => this.#onContent(request, reply) })
    }
    if (this.#flight !== undefined) {
      app.route({ method: 'POST', url: flightsRoute, handler: (request, reply) => this.#onMessage(request, reply) })
    }
    app.setNotFoundHandler((_request, reply) => {
      sendNotFound(reply, undefined, 'only /v2/, /livez and /readyz are here')
    })
    app.setErrorHandler((error, request, reply) => this.#onError(error, request, reply))
    return app
  }

  async #onContent(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const exchange = request.exchange
    if (exchange === undefined) throw new Error('a request without an exchange')
    this.#idleMemory.noteWork()
    if (this.#isRefused(request, reply)) return
    const parsed = parseContentRequest(request.url, this.#config.defaultRegistry)
    if (parsed.outcome === 'base') {
      void reply.header('docker-distribution-api-version', 'registry/2.0').code(200).send()
      return
    }
    if (parsed.outcome === 'invalid') {
      sendNotFound(reply, parsed.kind, parsed.reason)
      return
    }
    const content = parsed.request
    if (exchange.isHead || content.kind === 'manifest') noteSmallRequest()
    if (!this.#names.allowsRequest(content)) {
      sendNotFound(reply, content.kind, `${content.repository} is not mirrored here`, exchange.fromPeer)
      return
    }
    if (exchange.fromContainerd) this.#names.noteOwnRequest(content)
    const release = this.#bodies.take(request.socket.remoteAddress)
    if (release === undefined) {
      this.#components.metrics.refusals.inc({ reason: 'streams' })
      void reply.header(loadHeader, this.#bodies.total)
      // Without a body for peers, so that the connection is kept.
      if (exchange.fromPeer) void reply.code(503).send()
      else sendError(reply, 503, 'UNAVAILABLE', `${this.#bodies.total} requests are under way`)
      return
    }
    try {
      if (await this.#local.serve(content, exchange, reply)) return
      const mirrored = !exchange.fromPeer && (await this.#mirror?.serve(content, exchange, reply)) === true
      if (!mirrored) sendNotFound(reply, content.kind, `no peer has ${content.key}`, exchange.fromPeer)
    } finally {
      release()
      this.#idleMemory.noteWork()
    }
  }

  /** True when it was answered already. */
  #isRefused({ raw, exchange }: FastifyRequest, reply: FastifyReply): boolean {
    const { auth } = this.#components
    if (auth === undefined || auth.accepts(raw)) return false
    // Without a body for peers, so that the connection is kept.
    if (exchange?.fromPeer === true) void reply.code(401).header(nonceHeader, auth.nonceOf(raw.socket)).send()
    else sendError(reply, 401, 'UNAUTHORIZED', 'the shared user name and password are needed')
    return true
  }

  #isMessage({ method, url }: FastifyRequest): boolean {
    return this.#flight !== undefined && method === 'POST' && url.startsWith(flightsRoute.slice(0, -1))
  }

  /** Of another node, about a flight that this one coordinates. */
  async #onMessage(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    if (this.#isRefused(request, reply)) return
    const gone = new AbortController()
    reply.raw.once('close', () => gone.abort(new Error('the node has left')))
    const answer = await this.#flight?.flights.answer(request.url, canonicalIp(request.ip), gone.signal)
    if (answer === undefined) void reply.code(400).send()
    else void reply.type('application/json').send(answer)
  }

  /** A bug of ours, or a request that Node refused. Before headers containerd must be able to go on: 404. */
  #onError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const status = (error as { statusCode?: unknown }).statusCode
    if (typeof status === 'number' && status >= 400 && status < 500) {
      sendNotFound(reply, undefined, errorMessage(error))
      return
    }
    if (!reportInternalError('http_request', error, { url: request.url })) {
      this.#components.logger.error(
        { url: request.url, error: errorMessage(error), stack: errorStack(error) },
        'internal error',
      )
    }
    if (reply.raw.headersSent) reply.raw.socket?.end()
    else sendNotFound(reply, undefined, 'the mirror failed')
  }
}

type HttpLabels = typeof metricSpecs.httpDuration.labels

function handlerOf(request: FastifyRequest): HttpLabels['handler'][number] {
  const path = request.url.split('?', 1)[0] ?? ''
  if (path === '/readyz' || path === '/livez') return path
  if (path.startsWith('/v2')) return '/v2/*'
  return path.startsWith(flightsRoute.slice(0, -1)) ? flightsRoute : 'other'
}

/** Clients may send any of the 35 methods that Node knows. */
function methodOf({ method }: FastifyRequest): HttpLabels['method'][number] {
  return method === 'GET' || method === 'HEAD' || method === 'POST' ? method : 'other'
}
