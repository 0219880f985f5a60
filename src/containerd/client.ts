/**
 * containerd's gRPC API on its unix socket, as far as we use it, with promises and deadlines. One code for containerd
 * 1.6 to 2.3 (proto/README.md). Reconnects by itself; a call while containerd is away rejects within its deadline.
 */
import { type ClientReadableStream, Metadata, type ServiceError, credentials, status } from '@grpc/grpc-js'
import {
  containerdCallTimeoutMs,
  containerdListTimeoutMs,
  containerdReconnectFirstMs,
  containerdReconnectLastMs,
} from '../limits.ts'
import type { Envelope } from './generated/containerd.ts'
import { ContentClient, type Info, type LabelledInfo } from './generated/content.ts'
import { EventsClient } from './generated/events.ts'
import { type Image, ImagesClient } from './generated/images.ts'
import { IntrospectionClient } from './generated/introspection.ts'
import { VersionClient } from './generated/version.ts'

type Callback<Response> = (error: ServiceError | null, response: Response) => void

/** Content.Read sends messages of about 1 MiB; the default limit of 4 MiB would do, this leaves room. */
const messageBytesMax = 16 * 1024 * 1024

/** containerd is away, does not answer in time or refuses the call; or this client was closed. */
export function isContainerdError(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  return (
    typeof (error as Partial<ServiceError>).code === 'number' ||
    /^Channel has been (shut down|closed)/.test(error.message)
  )
}

export class ContainerdClient {
  readonly #metadata = new Metadata()
  readonly #images: ImagesClient
  readonly #content: ContentClient
  readonly #events: EventsClient
  readonly #introspection: IntrospectionClient
  readonly #version: VersionClient

  constructor(socketPath: string, namespace: string) {
    const address = `unix:${socketPath}`
    this.#metadata.set('containerd-namespace', namespace)
    const insecure = credentials.createInsecure()
    const options = {
      'grpc.initial_reconnect_backoff_ms': containerdReconnectFirstMs,
      'grpc.max_reconnect_backoff_ms': containerdReconnectLastMs,
      'grpc.max_receive_message_length': messageBytesMax,
      // One connection for all services, and none shared with another namespace's client.
      'grpc.use_local_subchannel_pool': 1,
    }
    this.#images = new ImagesClient(address, insecure, options)
    const channelOverride = this.#images.getChannel()
    this.#content = new ContentClient(address, insecure, { channelOverride })
    this.#events = new EventsClient(address, insecure, { channelOverride })
    this.#introspection = new IntrospectionClient(address, insecure, { channelOverride })
    this.#version = new VersionClient(address, insecure, { channelOverride })
  }

  /** containerd's version, for example `1.6.20` or `v2.3.4`. */
  async version(): Promise<string> {
    const response = await this.#unary<{ version: string }>((...rest) => this.#version.version({}, ...rest))
    return response.version
  }

  async image(name: string): Promise<Image | undefined> {
    const response = await this.#optional<{ image: Image | undefined }>((...rest) =>
      this.#images.get({ name }, ...rest),
    )
    return response?.image
  }

  async images(): Promise<Image[]> {
    const response = await this.#unary<{ images: Image[] }>(
      (...rest) => this.#images.list({ filters: [] }, ...rest),
      containerdListTimeoutMs,
    )
    return response.images
  }

  /** What the namespace knows of a complete blob; undefined when it is not there. */
  async contentInfo(digest: string): Promise<LabelledInfo | undefined> {
    const response = await this.#optional<{ info: LabelledInfo | undefined }>((...rest) =>
      this.#content.info({ digest }, ...rest),
    )
    return response?.info
  }

  /** All complete blobs of the namespace, in parts. */
  async *content(signal: AbortSignal): AsyncGenerator<Info> {
    const deadline = Date.now() + containerdListTimeoutMs
    const call = this.#content.list({ filters: [] }, this.#metadata, { deadline })
    for await (const { info } of streamed<{ info: Info[] }>(call, signal)) yield* info
  }

  /** The bytes of a blob: several times the cost of reading the file, so only where there is no file to read. */
  async *readContent(digest: string, offset: number, size: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const call = this.#content.read({ digest, offset, size }, this.#metadata)
    for await (const { data } of streamed<{ data: Uint8Array }>(call, signal)) yield data
  }

  /** Calls back with every event from now on; rejects when the connection breaks or the signal aborts. */
  async subscribe(filters: string[], onEvent: (event: Envelope) => void, signal: AbortSignal): Promise<never> {
    const call = this.#events.subscribe({ filters }, this.#metadata)
    for await (const event of streamed<Envelope>(call, signal)) onEvent(event)
    throw new Error('containerd ended the stream of events')
  }

  /** The folder of the content store, as containerd sees it. */
  async contentRoot(): Promise<string | undefined> {
    const filters = ['type==io.containerd.content.v1']
    const { plugins } = await this.#unary<{ plugins: { exports: { [key: string]: string } }[] }>((...rest) =>
      this.#introspection.plugins({ filters }, ...rest),
    )
    return plugins[0]?.exports['root']
  }

  close(): void {
    this.#images.close()
  }

  #unary<Response>(
    start: (metadata: Metadata, options: { deadline: number }, callback: Callback<Response>) => unknown,
    timeoutMs = containerdCallTimeoutMs,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      start(this.#metadata, { deadline: Date.now() + timeoutMs }, (error, response) =>
        error === null ? resolve(response) : reject(error),
      )
    })
  }

  async #optional<Response>(
    start: (metadata: Metadata, options: { deadline: number }, callback: Callback<Response>) => unknown,
  ): Promise<Response | undefined> {
    try {
      return await this.#unary(start)
    } catch (error) {
      if ((error as Partial<ServiceError>).code === status.NOT_FOUND) return undefined
      throw error
    }
  }
}

async function* streamed<Message>(call: ClientReadableStream<Message>, signal: AbortSignal): AsyncGenerator<Message> {
  const cancel = () => call.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  try {
    if (signal.aborted) cancel()
    for await (const message of call) yield message as Message
  } finally {
    signal.removeEventListener('abort', cancel)
    call.cancel()
  }
}
