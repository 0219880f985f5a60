/** DOUBLE of containerd, for what a real one does not do: answer nonsense. A gRPC server on a unix socket. */
import type { EventEmitter } from 'node:events'
import { Server, ServerCredentials, type ServiceError, status } from '@grpc/grpc-js'
import type { Envelope } from '../../src/containerd/generated/containerd.ts'
import { ContentService, type Info, type LabelledInfo } from '../../src/containerd/generated/content.ts'
import { EventsService } from '../../src/containerd/generated/events.ts'
import { type Image, ImagesService } from '../../src/containerd/generated/images.ts'

/** What it says at the moment. An error is a status of gRPC. */
export interface Inventory {
  content: readonly Info[] | ServiceStatus
  images: readonly Image[] | ServiceStatus
}

export interface ServiceStatus {
  code: number
  details: string
}

interface Call<Request> {
  request: Request
}
interface Stream<Request, Response> extends Call<Request>, EventEmitter {
  write(message: Response): boolean
  end(): void
}
type Callback<Response> = (error: Partial<ServiceError> | null, response?: Response) => void

export class ContainerdDouble {
  inventory: Inventory = { content: [], images: [] }
  /** Of blobs, by digest. */
  readonly labels = new Map<string, Record<string, string>>()
  /** Bytes of each blob that can be read. */
  readableBytes = Infinity
  /** Complete listings that were asked for. */
  listings = 0
  /** Streams of events that were ever opened. */
  subscriptions = 0
  readonly #server = new Server()
  readonly #subscribers = new Set<Stream<unknown, Envelope>>()

  static async start(socketPath: string): Promise<ContainerdDouble> {
    const double = new ContainerdDouble()
    const server = double.#server
    server.addService(ContentService, {
      info: ({ request }: Call<{ digest: string }>, callback: Callback<{ info: LabelledInfo }>) =>
        double.#info(request, callback),
      list: (call: Stream<unknown, { info: Info[] }>) => double.#list(call),
      read: (call: Stream<{ offset: number; size: number }, { offset: number; data: Buffer }>) => double.#read(call),
    })
    server.addService(ImagesService, {
      get: ({ request }: Call<{ name: string }>, callback: Callback<{ image: Image }>) =>
        double.#get(request, callback),
      list: (_call: unknown, callback: Callback<{ images: readonly Image[] }>) => {
        const { images } = double.inventory
        if ('code' in images) callback(images)
        else callback(null, { images })
      },
    })
    server.addService(EventsService, {
      subscribe: (call: Stream<unknown, Envelope>) => {
        double.#subscribers.add(call)
        double.subscriptions += 1
        call.on('cancelled', () => double.#subscribers.delete(call))
      },
    })
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      )
    })
    return double
  }

  /** Somebody has its stream of events open. */
  get isFollowed(): boolean {
    return this.#subscribers.size > 0
  }

  send(event: Envelope): void {
    for (const subscriber of this.#subscribers) subscriber.write(event)
  }

  /** Ends all streams of events by an error. */
  breakStreams(): void {
    for (const subscriber of this.#subscribers) {
      subscriber.emit('error', Object.assign(new Error('broken'), { code: status.UNAVAILABLE }))
    }
    this.#subscribers.clear()
  }

  close(): void {
    this.#server.forceShutdown()
  }

  #info({ digest }: { digest: string }, callback: Callback<{ info: LabelledInfo }>): void {
    const { content } = this.inventory
    const found = 'code' in content ? content : content.find((info) => info.digest === digest)
    if (found === undefined) callback({ code: status.NOT_FOUND, details: 'no such content' })
    else if ('code' in found) callback(found)
    else callback(null, { info: { ...found, labels: this.labels.get(digest) ?? {} } })
  }

  #list(call: Stream<unknown, { info: Info[] }>): void {
    this.listings += 1
    const { content } = this.inventory
    if ('code' in content) {
      call.emit('error', Object.assign(new Error(content.details), content))
      return
    }
    for (let at = 0; at < content.length; at += 7) call.write({ info: content.slice(at, at + 7) })
    call.end()
  }

  /** As many zeros as asked for and readable, within reason. */
  #read(call: Stream<{ offset: number; size: number }, { offset: number; data: Buffer }>): void {
    const size = Math.min(call.request.size, this.readableBytes - call.request.offset)
    call.write({ offset: call.request.offset, data: Buffer.alloc(Math.max(0, Math.min(size, 1_000_000))) })
    call.end()
  }

  #get({ name }: { name: string }, callback: Callback<{ image: Image }>): void {
    const { images } = this.inventory
    const found = 'code' in images ? images : images.find((image) => image.name === name)
    if (found === undefined) callback({ code: status.NOT_FOUND, details: 'no such image' })
    else if ('code' in found) callback(found)
    else callback(null, { image: found })
  }
}
