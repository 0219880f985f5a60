/**
 * Stands before the real registry and misbehaves as it is told. Bodies pass in pieces as they come: of each answer no
 * more than one piece is held.
 */
import {
  Agent,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  createServer,
  request as askRegistry,
} from 'node:http'
import type { Socket } from 'node:net'
import type { AccessLogEntry } from '../../testbed/registry-process.ts'
import { systemClock } from '../../lib/clock.ts'
import { Pace } from './pace.ts'
import { RegistryBody } from './registry-body.ts'
import type { UpstreamEntry } from './scene.ts'

/** At a limited rate, pieces of so much time: coarse ones would come in bursts. */
const paceMs = 20

const hopByHop = new Set(['connection', 'keep-alive', 'transfer-encoding'])

export interface UpstreamProxyInit {
  ip: string
  port: number
  registryUrl: string
  /** Called when an answer has ended. Status 0: there was none. */
  onAnswered: (entry: AccessLogEntry) => void
}

/** A behaviour in force, with what it has counted. */
interface Active {
  entry: UpstreamEntry
  answered: number
  windows: Map<string, { endsMs: number; requests: number }>
  total: Pace | undefined
  perConnection: Map<Socket, Pace>
}

export class UpstreamProxy {
  readonly #init: UpstreamProxyInit
  readonly #agent = new Agent({ keepAlive: true })
  readonly #active = new Map<number, Active>()
  /** Connections, each with how many answers it is waiting for. */
  readonly #sockets = new Map<Socket, number>()
  #server: Server | undefined

  private constructor(init: UpstreamProxyInit) {
    this.#init = init
  }

  static async start(init: UpstreamProxyInit): Promise<UpstreamProxy> {
    const proxy = new UpstreamProxy(init)
    await proxy.#listenAsWanted()
    return proxy
  }

  /** From now on, until `end` is called with the same key. */
  async begin(key: number, entry: UpstreamEntry): Promise<void> {
    const total = entry.behaviour === 'rate' && entry.total !== undefined ? new Pace(entry.total) : undefined
    this.#active.set(key, { entry, answered: 0, windows: new Map(), total, perConnection: new Map() })
    await this.#listenAsWanted()
    if (entry.behaviour !== 'cut') return
    for (const socket of this.#sockets.keys()) {
      if (entry.by === 'RST') socket.resetAndDestroy()
      else socket.destroySoon()
    }
  }

  async end(key: number): Promise<void> {
    this.#active.delete(key)
    await this.#listenAsWanted()
  }

  /** Everything down. */
  close(): void {
    this.#server?.close()
    for (const socket of this.#sockets.keys()) socket.destroy()
    this.#agent.destroy()
  }

  async #listenAsWanted(): Promise<void> {
    const refuses = this.#refusesConnections()
    if (refuses && this.#server !== undefined) {
      this.#server.close()
      this.#server = undefined
      for (const [socket, answers] of this.#sockets) if (answers === 0) socket.destroySoon()
    }
    if (refuses || this.#server !== undefined) return
    const server = createServer((request, response) => void this.#answer(request, response))
    this.#server = server
    // As the registry, which waits for its clients for ever.
    server.keepAliveTimeout = 0
    server.on('connection', (socket: Socket) => {
      this.#sockets.set(socket, 0)
      socket.once('close', () => this.#forget(socket))
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#init.port, this.#init.ip, resolve)
    })
  }

  #refusesConnections(): boolean {
    return this.#entries().some(
      (entry) => entry.behaviour === 'cut' || (entry.behaviour === 'refuse' && entry.by === 'connection'),
    )
  }

  #forget(socket: Socket): void {
    this.#sockets.delete(socket)
    for (const { perConnection } of this.#active.values()) perConnection.delete(socket)
  }

  // --- One request ---

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket, method = '', url: path = '' } = request
    const client = socket.remoteAddress ?? ''
    const gone = new AbortController()
    const body = new CountedBody(response)
    this.#sockets.set(socket, (this.#sockets.get(socket) ?? 0) + 1)
    response.once('close', () => {
      gone.abort()
      const status = response.headersSent ? response.statusCode : 0
      this.#init.onAnswered({ client, method, path, status, bytes: body.sentBytes })
      const left = (this.#sockets.get(socket) ?? 1) - 1
      if (this.#sockets.has(socket)) this.#sockets.set(socket, left)
      if (left === 0 && this.#refusesConnections()) socket.destroySoon()
    })
    try {
      await this.#passThrough(request, response, body, gone.signal)
    } catch {
      // The client left, or the registry broke off. An answer that was begun must not look whole.
      if (gone.signal.aborted) return
      if (response.headersSent) socket.destroySoon()
      else response.writeHead(502).end()
    }
  }

  async #passThrough(
    request: IncomingMessage,
    response: ServerResponse,
    body: CountedBody,
    gone: AbortSignal,
  ): Promise<void> {
    for (const entry of this.#entries()) if (entry.behaviour === 'delay') await passed(entry.time, gone)
    if (this.#entries().some((entry) => entry.behaviour === 'refuse' && entry.by === 'status')) {
      await body.end(503, { 'content-type': 'application/json' }, errorBody('UNAVAILABLE', 'service unavailable'))
      return
    }
    const retryAfterSeconds = this.#retryAfterSeconds(request)
    if (retryAfterSeconds !== undefined) {
      const headers = { 'content-type': 'application/json', 'retry-after': String(retryAfterSeconds) }
      await body.end(429, headers, errorBody('TOOMANYREQUESTS', 'too many requests'))
      return
    }
    if (request.method === 'GET' && /\/blobs\//.test(request.url ?? '')) {
      await this.#passBlob(request, response, body, gone)
    } else {
      const answer = await this.#ask(request, gone)
      this.#writeHead(response, answer.statusCode ?? 502, answer.statusMessage ?? '', answer.rawHeaders)
      for await (const chunk of answer) await this.#send(chunk as Buffer, request.socket, body, gone)
    }
    response.end()
  }

  async #passBlob(
    request: IncomingMessage,
    response: ServerResponse,
    body: CountedBody,
    gone: AbortSignal,
  ): Promise<void> {
    const { hostname: ip, port } = new URL(this.#init.registryUrl)
    const get = { ip, port: Number(port), path: request.url ?? '', rawHeaders: endToEnd(request.rawHeaders) }
    const answer = await RegistryBody.open(get, gone)
    this.#writeHead(response, answer.statusCode, answer.statusMessage, answer.rawHeaders)
    for (const entry of this.#entries()) if (entry.behaviour === 'firstByteLate') await passed(entry.time, gone)
    let wrongAt = this.#wrongAt(answer)
    for await (const piece of answer.pieces()) {
      if (wrongAt >= 0 && wrongAt < piece.length) piece.writeUInt8(piece.readUInt8(wrongAt) ^ 0xff, wrongAt)
      wrongAt -= piece.length
      await this.#send(piece, request.socket, body, gone)
    }
  }

  #writeHead(response: ServerResponse, status: number, message: string, rawHeaders: readonly string[]): void {
    response.sendDate = false
    response.writeHead(status, message, endToEnd(rawHeaders))
    response.flushHeaders()
  }

  /** The registry's answer. Rejects when it has none, or the client leaves before. */
  #ask(request: IncomingMessage, gone: AbortSignal): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !hopByHop.has(name)))
    const agent = this.#agent
    const { hostname, port } = new URL(this.#init.registryUrl)
    const { method, url: path } = request
    const asked = askRegistry({ agent, hostname, port, method, path, headers, signal: gone }, resolve)
    asked.on('error', reject)
    request.pipe(asked)
    return promise
  }

  async #send(bytes: Buffer, socket: Socket, body: CountedBody, gone: AbortSignal): Promise<void> {
    for (let from = 0; from < bytes.length;) {
      const paces = this.#pacesOf(socket)
      const pieceBytes = Math.min(bytes.length - from, ...paces.map((pace) => pace.bytesIn(paceMs)))
      const waitMs = Math.max(0, ...paces.map((pace) => pace.book(pieceBytes, performance.now())))
      if (waitMs >= 1) await passed(waitMs, gone)
      if (!socket.writable) throw new Error('cut')
      await body.write(bytes.subarray(from, from + pieceBytes))
      gone.throwIfAborted()
      from += pieceBytes
    }
  }

  // --- What behaviours ask for ---

  #entries(): UpstreamEntry[] {
    return [...this.#active.values()].map(({ entry }) => entry)
  }

  #pacesOf(socket: Socket): Pace[] {
    const paces: Pace[] = []
    for (const { entry, total, perConnection } of this.#active.values()) {
      if (total !== undefined) paces.push(total)
      if (entry.behaviour !== 'rate' || entry.perConnection === undefined) continue
      const own = perConnection.get(socket) ?? new Pace(entry.perConnection)
      perConnection.set(socket, own)
      paces.push(own)
    }
    return paces
  }

  /** Undefined: the request is within all limits, and counted. */
  #retryAfterSeconds({ method, url = '', socket }: IncomingMessage): number | undefined {
    if (method !== 'GET' || !/\/(manifests|blobs)\//.test(url)) return undefined
    const nowMs = performance.now()
    for (const { entry, windows } of this.#active.values()) {
      if (entry.behaviour !== 'rateLimit') continue
      const key = entry.per === 'client' ? (socket.remoteAddress ?? '') : ''
      const known = windows.get(key)
      const window =
        known === undefined || known.endsMs <= nowMs ? { endsMs: nowMs + entry.window, requests: 0 } : known
      windows.set(key, window)
      if (window.requests >= entry.requests) return Math.ceil((window.endsMs - nowMs) / 1000)
      window.requests += 1
    }
    return undefined
  }

  /** Which byte of this body is to be wrong, negative: none. The one in the middle of the blob; a range may be without it. */
  #wrongAt(answer: RegistryBody): number {
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.header('content-range'))
    const bytes = Number(answer.header('content-length'))
    const wrongAt = range === null ? Math.floor(bytes / 2) : Math.floor(Number(range[2]) / 2) - Number(range[1])
    const size = range === null ? bytes : Number(range[2])
    const liar = [...this.#active.values()].find(
      ({ entry, answered }) =>
        entry.behaviour === 'wrongBytes' && answered < (entry.times ?? Infinity) && size >= (entry.minSize ?? 0),
    )
    if (liar === undefined || wrongAt < 0 || wrongAt >= bytes) return -1
    liar.answered += 1
    return wrongAt
  }
}

/** Counts what the kernel has taken of a body, in whole pieces: what was written and not taken is not sent. */
class CountedBody {
  sentBytes = 0
  readonly #response: ServerResponse
  #onClosed: () => void = () => undefined

  constructor(response: ServerResponse) {
    this.#response = response
    response.once('close', () => this.#onClosed())
    // What was being written then tells who waits for it.
    response.on('error', () => undefined)
  }

  /** Resolves when the kernel has taken it, or the connection is no more. */
  write(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => {
      this.#onClosed = resolve
      this.#response.write(bytes, (error) => {
        if (!error) this.sentBytes += bytes.length
        resolve()
      })
    })
  }

  /** A whole answer of our own. */
  async end(status: number, headers: Record<string, string>, bytes: Buffer): Promise<void> {
    this.#response.writeHead(status, { ...headers, 'content-length': bytes.length })
    if (this.#response.req.method !== 'HEAD') await this.write(bytes)
    this.#response.end()
  }
}

function errorBody(code: string, message: string): Buffer {
  return Buffer.from(JSON.stringify({ errors: [{ code, message }] }))
}

/** Names and values in turn, as Node gives and takes them; without those that are about one connection. */
function endToEnd(rawHeaders: readonly string[]): string[] {
  const kept: string[] = []
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const [name = '', value = ''] = rawHeaders.slice(index, index + 2)
    if (!hopByHop.has(name.toLowerCase())) kept.push(name, value)
  }
  return kept
}

/** Rejects when the client leaves. */
function passed(delayMs: number, gone: AbortSignal): Promise<void> {
  return systemClock.sleep(delayMs, gone)
}
