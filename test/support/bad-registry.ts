/**
 * A double of a registry to push to, since a real one gives neither tokens without certificates nor answers that are
 * wrong on command. Keeps digests only.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'

export interface Seen {
  method: string
  path: string
  authorization: string | undefined
}

interface Tls {
  key: string
  cert: string
}

/** True when it has answered (or does not mean to): then nothing else does. */
type Intervention = (request: IncomingMessage, response: ServerResponse) => boolean

export class BadRegistry {
  readonly seen: Seen[] = []
  readonly blobs = new Set<string>()
  readonly manifests = new Map<string, string>()
  /** What happens instead, for some requests. */
  intervene: Intervention = () => false
  /** Whether it answers `Expect: 100-continue`. */
  knowsContinue = true
  readonly #server: Server

  readonly #scheme: string

  private constructor(tls: Tls | undefined) {
    this.#server = tls === undefined ? createServer() : createTlsServer(tls)
    this.#scheme = tls === undefined ? 'http' : 'https'
    const take = (request: IncomingMessage, response: ServerResponse) => {
      const { method = '', url = '', headers } = request
      this.seen.push({ method, path: url, authorization: headers.authorization })
      if (!this.intervene(request, response)) void this.#answer(request, response)
    }
    // Bodies are asked for by #answer, so that an intervention can refuse one before it is sent.
    this.#server.on('request', take).on('checkContinue', take)
  }

  static async start(tls?: Tls): Promise<BadRegistry> {
    const registry = new BadRegistry(tls)
    registry.#server.listen(0, '127.0.0.1')
    await once(registry.#server, 'listening')
    return registry
  }

  get origin(): string {
    return `${this.#scheme}://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  count(method: string): number {
    return this.seen.filter((request) => request.method === method).length
  }

  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', this.origin)
    const name = url.pathname.split('/').at(-1) ?? ''
    const isManifest = url.pathname.includes('/manifests/')
    if (request.method === 'HEAD') {
      const digest = isManifest ? this.manifests.get(name) : this.blobs.has(name) ? name : undefined
      response
        .writeHead(digest === undefined ? 404 : 200, digest === undefined ? {} : { 'docker-content-digest': digest })
        .end()
      return
    }
    if (request.headers.expect !== undefined && this.knowsContinue) response.writeContinue()
    const hash = createHash('sha256')
    for await (const chunk of request as AsyncIterable<Buffer>) hash.update(chunk)
    const digest = `sha256:${hash.digest('hex')}`
    if (request.method === 'POST') {
      // Relative, and with a query of its own, as the specification allows.
      response.writeHead(202, { location: `${url.pathname}1?state=x` }).end()
    } else if (isManifest) {
      for (const key of [digest, name]) this.manifests.set(key, digest)
      response.writeHead(201).end()
    } else if (url.searchParams.get('digest') === digest) {
      this.blobs.add(digest)
      response.writeHead(201).end()
    } else {
      response.writeHead(400).end('{"errors":[{"code":"DIGEST_INVALID","message":"another digest"}]}')
    }
  }
}
