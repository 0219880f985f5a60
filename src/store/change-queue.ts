/**
 * Changes on their way to the one consumer of `watch`. A key that is added and removed before the consumer comes
 * cancels out, so the queue never holds more than the keys of the store.
 */
import type { StoreChange } from './store.ts'

export class ChangeQueue {
  /** true: added, false: removed. */
  #pending = new Map<string, boolean>()
  /** What the consumer was told. */
  readonly #told = new Set<string>()
  #first = true
  #wake: (() => void) | undefined

  /** States that these keys are there (or not) now. */
  set(keys: Iterable<string>, present: boolean): void {
    for (const key of keys) {
      if (this.#told.has(key) === present) this.#pending.delete(key)
      else this.#pending.set(key, present)
    }
    if (this.#pending.size > 0) this.#wake?.()
  }

  async *changes(signal: AbortSignal): AsyncGenerator<StoreChange> {
    const onAbort = () => this.#wake?.()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      while (!signal.aborted) {
        if (this.#pending.size === 0 && !this.#first) {
          await new Promise<void>((resolve) => (this.#wake = resolve))
          continue
        }
        this.#first = false
        yield this.#take()
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  #take(): StoreChange {
    const [added, removed]: [string[], string[]] = [[], []]
    for (const [key, present] of this.#pending) {
      if (present) {
        added.push(key)
        this.#told.add(key)
      } else {
        removed.push(key)
        this.#told.delete(key)
      }
    }
    this.#pending = new Map()
    return { added, removed }
  }
}
