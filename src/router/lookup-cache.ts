/**
 * Searches are shared: callers with the same key join the one that runs and see what it has found so far; its result
 * is kept for a moment. Bounded; when full, the search that was used least recently is forgotten.
 */
import { inBackground } from '../lib/background.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { lookupCacheEntriesMax, lookupCacheMs, lookupMissCacheMs } from '../limits.ts'
import type { LookupDepth, Peer } from './router.ts'

/** Calls back with each peer and resolves when nobody else will be found. */
export type Search = (key: string, depth: LookupDepth, onPeer: (peer: Peer) => void) => Promise<void>

interface Entry {
  peers: Peer[]
  /** Undefined while the search runs. */
  expiresMs: number | undefined
  changed: PromiseWithResolvers<void>
}

export class LookupCache {
  readonly #search: Search
  readonly #clock: Clock
  readonly #entries = new BoundedMap<string, Entry>(lookupCacheEntriesMax)

  constructor(search: Search, clock: Clock) {
    this.#search = search
    this.#clock = clock
  }

  /** fresh: what is kept does not count, only a search that runs. */
  async *lookup(key: string, signal: AbortSignal, depth: LookupDepth = 'usual'): AsyncGenerator<Peer> {
    const entry = this.#entry(key, depth)
    const aborted = Promise.withResolvers<void>()
    const onAbort = () => aborted.resolve()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      for (let given = 0; !signal.aborted;) {
        const peer = entry.peers[given]
        if (peer !== undefined) {
          given += 1
          yield peer
        } else if (entry.expiresMs === undefined) {
          await Promise.race([entry.changed.promise, aborted.promise])
        } else {
          return
        }
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  #entry(key: string, depth: LookupDepth): Entry {
    const existing = this.#entries.get(key)
    const validUntilMs = existing?.expiresMs ?? (existing === undefined ? 0 : Infinity)
    if (existing !== undefined && validUntilMs > (depth === 'fresh' ? Number.MAX_VALUE : this.#clock.nowMs()))
      return existing
    const entry: Entry = { peers: [], expiresMs: undefined, changed: Promise.withResolvers() }
    this.#entries.set(key, entry)
    const wake = () => {
      entry.changed.resolve()
      entry.changed = Promise.withResolvers()
    }
    const onPeer = (peer: Peer) => {
      entry.peers.push(peer)
      wake()
    }
    // In any case the search is over then, and nobody waits for more.
    void inBackground('lookup', () => this.#search(key, depth, onPeer)).finally(() => {
      entry.expiresMs = this.#clock.nowMs() + (entry.peers.length > 0 ? lookupCacheMs : lookupMissCacheMs)
      wake()
    })
    return entry
  }
}
