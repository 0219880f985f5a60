/** Kubernetes' API server, asked as the user of a kubeconfig. */
import { type IncomingMessage, request as httpRequest } from 'node:http'
import { type RequestOptions, request as httpsRequest } from 'node:https'
import { createInterface } from 'node:readline'
import type { KubeConfig } from '@kubernetes/client-node'
import { formatDuration } from '../../lib/duration.ts'
import { UserError, errorCode, errorMessage } from '../../lib/errors.ts'

/** A server that is busy answers later than this; one that is gone never. */
const answerTimeoutMs = 30_000
const watchAgainMs = 1_000
/** How long the server keeps a watch; then it is opened anew. */
const watchSeconds = 290
/** Room for a result of a hundred rounds in one line. */
const lineCharactersMax = 128 * 1024 ** 2

/** The API server answered, and not with what was asked for. */
export class ApiError extends UserError {
  readonly status: number

  constructor(message: string, status: number) {
    super(message)
    this.status = status
  }
}

export interface ApiRequest {
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE'
  path: string
  query?: Readonly<Record<string, string>>
  body?: object
}

export interface WatchEvent<Item> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'ERROR' | 'BOOKMARK'
  object: Item
}

interface List<Item> {
  metadata?: { resourceVersion?: string }
  items: Item[]
}

export class KubernetesClient {
  readonly #config: KubeConfig
  readonly #server: string

  constructor(config: KubeConfig) {
    this.#config = config
    this.#server = config.getCurrentCluster()?.server ?? ''
  }

  /** The object that is answered. Rejects with an ApiError that has the API server's own words, and what to do. */
  async ask<Answer>(request: ApiRequest, signal?: AbortSignal): Promise<Answer> {
    return JSON.parse(await this.text(request, signal)) as Answer
  }

  /** Undefined when there is no such thing. */
  async find<Answer>(request: ApiRequest, signal?: AbortSignal): Promise<Answer | undefined> {
    return this.ask<Answer>(request, signal).catch(missing)
  }

  /** Resolves also when there is no such thing. */
  async remove(path: string, query: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.text({ method: 'DELETE', path, query }).catch(missing)
  }

  async text(request: ApiRequest, signal?: AbortSignal): Promise<string> {
    const timed = AbortSignal.any([AbortSignal.timeout(answerTimeoutMs), ...(signal === undefined ? [] : [signal])])
    const response = await this.#send(request, timed)
    const text = await readAll(response).catch((error: unknown) => {
      throw this.#unreachable(error)
    })
    const status = response.statusCode ?? 0
    if (status >= 200 && status < 300) return text
    throw refused(request, status, text)
  }

  /**
   * Calls back with every object that is there, then with every change, until the signal aborts. A watch that breaks is
   * opened anew. Resolves when what is there has been told and changes will be; rejects when that is not possible.
   */
  async watch<Item>(
    { path, query = {} }: ApiRequest,
    onEvent: (event: WatchEvent<Item>, isNew: boolean) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const list = async () => {
      const { items, metadata } = await this.ask<List<Item>>({ path, query }, signal)
      for (const object of items) onEvent({ type: 'ADDED', object }, false)
      return metadata?.resourceVersion ?? ''
    }
    let version: string | undefined = await list()
    let stream: IncomingMessage | undefined = await this.#openWatch(version, path, query, signal)
    const follow = async () => {
      while (!signal.aborted) {
        try {
          version ??= await list()
          stream ??= await this.#openWatch(version, path, query, signal)
          version = await readEvents<Item>(stream, version, (event) => onEvent(event, true))
        } catch {
          // What was missed meanwhile is in the list.
          version = undefined
          await new Promise((resolve) => setTimeout(resolve, watchAgainMs))
        }
        stream = undefined
      }
    }
    void follow()
  }

  /**
   * Calls back with every line of an answer that comes little by little. Rejects when it breaks, and when nothing comes for
   * `silenceMs`.
   */
  async lines(
    request: ApiRequest,
    onLine: (line: string) => void,
    { silenceMs, signal }: { silenceMs: number; signal: AbortSignal },
  ): Promise<void> {
    const silence = new AbortController()
    const timer = setTimeout(() => silence.abort(), silenceMs)
    try {
      const response = await this.#send(request, AbortSignal.any([signal, silence.signal]))
      const status = response.statusCode ?? 0
      if (status !== 200) throw refused(request, status, await readAll(response))
      await readLines(response, onLine, () => timer.refresh())
    } catch (error) {
      signal.throwIfAborted()
      if (silence.signal.aborted) throw new UserError(`${this.#server} says nothing for ${formatDuration(silenceMs)}`)
      throw error instanceof UserError ? error : this.#unreachable(error)
    } finally {
      clearTimeout(timer)
    }
  }

  async #openWatch(
    resourceVersion: string,
    path: string,
    query: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    const watching = {
      ...query,
      watch: 'true',
      resourceVersion,
      allowWatchBookmarks: 'true',
      timeoutSeconds: String(watchSeconds),
    }
    const response = await this.#send({ path, query: watching }, signal)
    if (response.statusCode === 200) return response
    throw refused({ path }, response.statusCode ?? 0, await readAll(response))
  }

  async #send({ method = 'GET', path, query = {}, body }: ApiRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const url = new URL(`${this.#server}${path}`)
    url.search = new URLSearchParams(query).toString()
    const options: RequestOptions = { method, signal }
    try {
      await this.#config.applyToHTTPSOptions(options)
    } catch (error) {
      throw new UserError(`cannot log in to ${this.#server}: ${errorMessage(error)}`)
    }
    const text = body === undefined ? undefined : JSON.stringify(body)
    const headers = {
      ...(options.headers as Record<string, string> | undefined),
      accept: 'application/json',
      ...(text === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) }),
    }
    return new Promise((resolve, reject) => {
      const send = url.protocol === 'https:' ? httpsRequest : httpRequest
      const outgoing = send(url, { ...options, headers }, resolve)
      outgoing.on('error', (error) => reject(this.#unreachable(error)))
      outgoing.end(text)
    })
  }

  #unreachable(error: unknown): Error {
    const isTimeout = error instanceof Error && (error.cause as Error | undefined)?.name === 'TimeoutError'
    if (error instanceof Error && errorCode(error) === 'ABORT_ERR' && !isTimeout) return error
    return new UserError(`${this.#server} does not answer: ${errorMessage(error)}`, { cause: error })
  }
}

function missing(error: unknown): undefined {
  if (error instanceof ApiError && error.status === 404) return undefined
  throw error
}

function refused({ method = 'GET', path }: ApiRequest, status: number, text: string): ApiError {
  const hint =
    status === 401
      ? 'log in again, or check the user of the kubeconfig'
      : status === 403
        ? 'the rights that are needed: spegel-ts benchmark kubernetes rights'
        : undefined
  const parts = [`${method} ${path}: ${status}`, wordsOf(text), hint].filter((part) => part !== undefined)
  return new ApiError(parts.join(': '), status)
}

/** The message of a Status object; else the begin of whatever it is. */
function wordsOf(text: string): string {
  try {
    const { message } = JSON.parse(text) as { message?: unknown }
    if (typeof message === 'string') return message
  } catch {
    // No JSON: a proxy in between.
  }
  return text.slice(0, 200).trim()
}

/** Returns the version to go on from; undefined: the server does not know it any more. */
async function readEvents<Item>(
  stream: IncomingMessage,
  version: string,
  onEvent: (event: WatchEvent<Item>) => void,
): Promise<string | undefined> {
  let seen = version
  try {
    for await (const line of createInterface(stream)) {
      const event = JSON.parse(line) as WatchEvent<Item & { metadata?: { resourceVersion?: string } }>
      if (event.type === 'ERROR') return undefined
      seen = event.object.metadata?.resourceVersion ?? seen
      if (event.type !== 'BOOKMARK') onEvent(event)
    }
    return seen
  } finally {
    stream.destroy()
  }
}

/** A last line without an end is told too. */
async function readLines(stream: IncomingMessage, onLine: (line: string) => void, onPart: () => void): Promise<void> {
  stream.setEncoding('utf8')
  // Joined once: a line may come in thousands of parts.
  let [begun, characters]: [string[], number] = [[], 0]
  for await (const part of stream as AsyncIterable<string>) {
    onPart()
    const [first = '', ...others] = part.split('\n')
    begun.push(first)
    characters += first.length
    if (characters > lineCharactersMax) throw new Error(`a line of more than ${lineCharactersMax} characters`)
    for (const other of others) {
      onLine(begun.join(''))
      begun = [other]
      characters = other.length
    }
  }
  if (characters > 0) onLine(begun.join(''))
}

async function readAll(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of response) parts.push(part as Buffer)
  return Buffer.concat(parts).toString('utf8')
}
