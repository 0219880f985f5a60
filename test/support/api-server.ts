/**
 * DOUBLE: stands for Kubernetes' API server, where tests need it to be wrong or gone on command. It speaks HTTPS, checks
 * the token and answers the one list that the daemon asks for. test/kubernetes has a real one.
 */
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type IncomingMessage, type ServerResponse } from 'node:http'
import { type Server, createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { testCertificate, testKey } from './tls.ts'

export interface Slice {
  addressType: string
  endpoints: { addresses: string[]; conditions?: Record<string, boolean> }[] | null
}

export class ApiServer {
  slices: Slice[] = []
  token = 'first'
  /** Undefined: answers as it should. */
  behaviour: ((request: IncomingMessage, response: ServerResponse) => void) | undefined
  /** What was asked, `METHOD path`. */
  readonly asked: string[] = []
  /** The service account's, as they are in a pod. */
  readonly credentialsFolder: string
  #server: Server | undefined
  #port = 0

  private constructor(credentialsFolder: string) {
    this.credentialsFolder = credentialsFolder
  }

  /** With its credentials, and not running yet. */
  static async create(): Promise<ApiServer> {
    const server = new ApiServer(await mkdtemp(join(tmpdir(), 'service-account-')))
    await server.writeCredential('ca.crt', testCertificate)
    await server.writeCredential('namespace', 'mirrors')
    await server.writeCredential('token', `${server.token}\n`)
    return server
  }

  get address(): { host: string; port: number } {
    return { host: '127.0.0.1', port: this.#port }
  }

  writeCredential(name: 'ca.crt' | 'namespace' | 'token', text: string): Promise<void> {
    return writeFile(join(this.credentialsFolder, name), text)
  }

  /** On the same port each time. */
  async start(): Promise<void> {
    const server = createServer({ key: testKey, cert: testCertificate }, (request, response) => {
      this.asked.push(`${request.method} ${request.url}`)
      ;(this.behaviour ?? this.#answer).call(this, request, response)
    })
    this.#server = server
    server.listen(this.#port, '127.0.0.1')
    await once(server, 'listening')
    this.#port = (server.address() as AddressInfo).port
  }

  async stop(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  }

  async remove(): Promise<void> {
    await this.stop()
    await rm(this.credentialsFolder, { recursive: true })
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const allowed = request.headers.authorization === `Bearer ${this.token}`
    answerJson(
      response,
      allowed ? 200 : 401,
      allowed
        ? { kind: 'EndpointSliceList', apiVersion: 'discovery.k8s.io/v1', items: this.slices }
        : { kind: 'Status', status: 'Failure', message: 'Unauthorized', code: 401 },
    )
  }
}

export function answerJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
