/** Kubernetes' API server, asked as the service account of the pod that this runs in. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type HostPort, formatHostPort } from '../lib/address.ts'
import { ask } from '../lib/ask.ts'
import { parseJsonObject } from '../lib/foreign.ts'

export interface KubernetesApiConfig {
  apiServer: HostPort
  /** Of the service account: token, ca.crt and namespace. Kubernetes writes them anew while the pod runs. */
  credentialsFolder: string
}

/** The API server answered, and not with what was asked for. */
export class ApiError extends Error {
  readonly status: number

  constructor(message: string, status: number) {
    super(message)
    this.status = status
  }
}

export interface ApiRequest {
  method: 'GET' | 'DELETE'
  path: string
  query: string
  /** What the service account must be allowed, for the error when it is not: `list endpointslices`. */
  needs: string
}

export class KubernetesApi {
  /** For errors: host and port. */
  readonly address: string
  readonly #credentialsFolder: string

  constructor({ apiServer, credentialsFolder }: KubernetesApiConfig) {
    this.address = formatHostPort(apiServer.host, apiServer.port)
    this.#credentialsFolder = credentialsFolder
  }

  /** That of the pod. */
  namespace(): Promise<string> {
    return this.#credential('namespace')
  }

  /**
   * The object that is answered; an empty one when the answer is no JSON object, since proxies in between may answer
   * anything. Rejects with an ApiError that has the API server's own words.
   */
  async request({ method, path, query, needs }: ApiRequest, signal: AbortSignal): Promise<Record<string, unknown>> {
    const [token, ca] = await Promise.all([this.#credential('token'), this.#credential('ca.crt')])
    const url = new URL(`https://${this.address}`)
    url.pathname = path
    url.search = query
    const headers = { authorization: `Bearer ${token}`, accept: 'application/json' }
    const { status, text } = await ask(url, { method, headers, ca }, signal)
    const answer = parseObject(text)
    if (status >= 200 && status < 300) return answer
    const hint = status === 403 ? `let the service account ${needs}` : undefined
    const words = typeof answer['message'] === 'string' ? answer['message'] : undefined
    const reasons = [`${this.address} answered ${status}`, hint, words].filter((reason) => reason !== undefined)
    throw new ApiError(reasons.join(': '), status)
  }

  async #credential(name: 'token' | 'ca.crt' | 'namespace'): Promise<string> {
    const text = await readFile(join(this.#credentialsFolder, name), 'utf8').catch((error: unknown) => {
      throw new Error('the pod has no service account token (automountServiceAccountToken)', { cause: error })
    })
    return text.trim()
  }
}

function parseObject(text: string): Record<string, unknown> {
  return parseJsonObject(text) ?? {}
}
