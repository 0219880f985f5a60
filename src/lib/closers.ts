/** Undoes what was started, the latest first. A closer that fails or hangs keeps no other one from its turn. */
import { closerMs } from '../limits.ts'
import type { Clock } from './clock.ts'

export interface Closer {
  /** For errors: "router". */
  name: string
  close: (graceMs: number) => Promise<unknown>
  /** It ends by itself, but may use the grace time and this long after it. Others get `closerMs`. */
  lingerMs?: number
}

export class Closers {
  readonly #clock: Clock
  readonly #onFurtherError: (error: Error) => void
  readonly #closers: Closer[] = []
  #closing: Promise<void> | undefined

  /** `onFurtherError` gets every error but the first. */
  constructor(clock: Clock, onFurtherError: (error: Error) => void) {
    this.#clock = clock
    this.#onFurtherError = onFurtherError
  }

  add(closer: Closer): void {
    this.#closers.push(closer)
  }

  /** Runs all of them. Rejects with the first error after the last closer has ended. Further calls join the first. */
  close(graceMs: number): Promise<void> {
    this.#closing ??= this.#closeAll(graceMs)
    return this.#closing
  }

  async #closeAll(graceMs: number): Promise<void> {
    let first: Error | undefined
    for (const closer of this.#closers.toReversed()) {
      try {
        await this.#inTime(closer, graceMs)
      } catch (error) {
        const failure = new Error(`shutdown: ${closer.name}`, { cause: error })
        if (first === undefined) first = failure
        else this.#onFurtherError(failure)
      }
    }
    if (first !== undefined) throw first
  }

  async #inTime({ name, close, lingerMs }: Closer, graceMs: number): Promise<void> {
    const limitMs = closerMs + (lingerMs === undefined ? 0 : graceMs + lingerMs)
    const ended = new AbortController()
    const late = this.#clock.sleep(limitMs, ended.signal).then(() => {
      throw new Error(`${name} did not end in ${limitMs} ms`)
    })
    // A closer may throw before it returns a promise.
    const closing = async () => close(graceMs)
    try {
      await Promise.race([closing(), late])
    } finally {
      ended.abort(new Error('it ended in time'))
    }
  }
}
