/** One GET or HEAD over a plain socket from a host of the test-bed: nothing between the wire and what is told mends it. */
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Host } from '../../src/testbed/network.ts'
import { end } from '../../src/testbed/process.ts'

const program = fileURLToPath(new URL('./raw-download-process.ts', import.meta.url))

export interface Downloaded {
  /** 0: no answer. */
  status: number
  head: string
  bytes: number
  sha256: string
  /** Since the connection was begun. */
  headMs: number
  firstByteMs: number
  totalMs: number
  /** `ECONNREFUSED`, `ECONNRESET`; empty when the server ended by FIN or the body is whole. */
  error: string
  isWhole: boolean
}

export interface DownloadInit {
  method?: 'GET' | 'HEAD'
  headers?: Record<string, string>
  /** Reads no further after so many bytes, until `goOn`. */
  pauseAfterBytes?: number
}

export type DownloadOrder =
  | (Required<Omit<DownloadInit, 'pauseAfterBytes'>> & DownloadInit & { url: string })
  | 'go on'
export type DownloadMessage = { seen: 'head' | 'body' } | { done: Downloaded }

export class RawDownload {
  /** The first byte of the body is there; rejects when there is none. */
  readonly begun: Promise<void>
  readonly done: Promise<Downloaded>
  readonly #child: ChildProcess

  constructor(host: Host, url: string, { method = 'GET', headers = {}, ...init }: DownloadInit = {}) {
    const [begun, done] = [Promise.withResolvers<void>(), Promise.withResolvers<Downloaded>()]
    this.begun = begun.promise
    this.done = done.promise
    this.begun.catch(() => undefined)
    this.#child = host.spawn(process.execPath, [program], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child.on('message', (message: DownloadMessage) => {
      if ('done' in message) {
        done.resolve(message.done)
        begun.reject(new Error(`no body: ${message.done.head || message.done.error}`))
        void end(this.#child)
      } else if (message.seen === 'body') begun.resolve()
    })
    this.#child.once('exit', () => done.reject(new Error('the client ended')))
    this.#child.send({ url, method, headers, ...init } satisfies DownloadOrder)
  }

  /** The client is gone, in the middle of whatever it was. */
  leave(): void {
    this.done.catch(() => undefined)
    this.#child.kill('SIGKILL')
  }

  goOn(): void {
    this.#child.send('go on' satisfies DownloadOrder)
  }
}

export function download(host: Host, url: string, init?: DownloadInit): Promise<Downloaded> {
  return new RawDownload(host, url, init).done
}
