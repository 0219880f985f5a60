/** Asks over HTTP from inside a host's network, by one process for all questions: tests that ask hundreds. */
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Fetched } from '../../src/testbed/fetch.ts'
import type { Host } from '../../src/testbed/network.ts'
import { end } from '../../src/testbed/process.ts'

const program = fileURLToPath(new URL('./namespace-client-process.ts', import.meta.url))

export interface Question {
  id: number
  url: string
  method: string
  headers: Record<string, string>
}

export type Answer = { id: number; answer: Fetched } | { id: number; error: string }

export class NamespaceClient {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<Fetched>>()
  #questions = 0

  constructor(host: Host) {
    this.#child = host.spawn(process.execPath, [program], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // Bodies come as Buffers.
      serialization: 'advanced',
    })
    this.#child.on('message', (message: Answer) => {
      const waiting = this.#waiting.get(message.id)
      this.#waiting.delete(message.id)
      if ('answer' in message) waiting?.resolve(message.answer)
      else waiting?.reject(new Error(message.error))
    })
    this.#child.once('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the client process ended'))
    })
  }

  /** Rejects when there is no whole answer. */
  ask(url: string, { method = 'GET', headers = {} }: Partial<Omit<Question, 'id' | 'url'>> = {}): Promise<Fetched> {
    this.#questions += 1
    const waiting = Promise.withResolvers<Fetched>()
    this.#waiting.set(this.#questions, waiting)
    this.#child.send({ id: this.#questions, url, method, headers } satisfies Question)
    return waiting.promise
  }

  close(): Promise<void> {
    return end(this.#child)
  }
}
