/**
 * The peers for one request, one good answer after the other. Among the peers known at the moment, the one with the
 * fewest transfers of this node comes first. Each is asked once; those that gave bytes since may be asked again when
 * nobody else is left.
 */
import type { Clock } from '../lib/clock.ts'
import { errorMessage } from '../lib/errors.ts'
import { type Random, shuffled } from '../lib/random.ts'
import { holderPatienceMs } from '../limits.ts'
import type { Logger } from '../logger.ts'
import type { Metrics } from '../metrics.ts'
import type { RangeSpec } from '../oci/range.ts'
import type { Peer, Router } from '../router/router.ts'
import {
  type PeerClient,
  PeerFailure,
  type PeerQuestion,
  type PeerResponse,
  type RangeRefused,
} from './peer-client.ts'

export interface PeerSourceComponents {
  router: Router
  client: PeerClient
  clock: Clock
  random: Random
  metrics: Metrics
  logger: Logger
}

export type MissReason = 'no-provider' | 'providers-failed' | 'timeout'

export class PeerSource {
  readonly #components: PeerSourceComponents
  readonly #question: PeerQuestion
  readonly #resolveTimeoutMs: number
  readonly #stop = new AbortController()
  /** Found and not asked. */
  #fresh: Peer[] = []
  readonly #gaveBytes = new Set<Peer>()
  #askedCount = 0
  #searchEnded = false
  #timedOut = false
  #changed = Promise.withResolvers<void>()

  constructor(question: PeerQuestion, resolveTimeoutMs: number, components: PeerSourceComponents) {
    this.#question = question
    this.#resolveTimeoutMs = resolveTimeoutMs
    this.#components = components
    void this.#search()
  }

  /** Why `next` gave nothing. */
  get missReason(): MissReason {
    if (this.#timedOut) return 'timeout'
    return this.#askedCount === 0 ? 'no-provider' : 'providers-failed'
  }

  /** Undefined when no peer is left, none is found within the budget, or the signal aborts. */
  async next(
    range: RangeSpec | undefined,
    findBudgetMs: number,
    caller: AbortSignal,
  ): Promise<PeerResponse | RangeRefused | undefined> {
    const { clock } = this.#components
    const [findLimit, answerLimit] = [new AbortController(), new AbortController()]
    const cancelFind = clock.after(findBudgetMs, () => findLimit.abort())
    const cancelAnswer = clock.after(findBudgetMs + holderPatienceMs, () => answerLimit.abort())
    const signal = AbortSignal.any([caller, answerLimit.signal])
    try {
      return await this.#ask(range, AbortSignal.any([signal, findLimit.signal]), signal)
    } finally {
      cancelFind()
      cancelAnswer()
    }
  }

  async #ask(
    range: RangeSpec | undefined,
    findSignal: AbortSignal,
    signal: AbortSignal,
  ): Promise<PeerResponse | RangeRefused | undefined> {
    const { client, logger } = this.#components
    for (;;) {
      const peer = await this.#take(findSignal)
      if (peer === undefined) return undefined
      this.#askedCount += 1
      try {
        return await client.open(peer, { ...this.#question, range }, signal)
      } catch (error) {
        if (signal.aborted) {
          this.#timedOut = true
          return undefined
        }
        this.noteFailure(peer, error)
        logger.debug({ peer: peer.addresses, error: errorMessage(error) }, 'peer did not answer')
      }
    }
  }

  noteFailure(peer: Peer, error: unknown): void {
    if (!(error instanceof PeerFailure)) throw error
    this.#components.metrics.peerFailures.inc({ reason: error.reason })
    this.#gaveBytes.delete(peer)
  }

  /** The peer delivered some of the body before it broke: worth another try when nobody else is left. */
  noteBytes(peer: Peer): void {
    this.#gaveBytes.add(peer)
  }

  close(): void {
    this.#stop.abort()
  }

  async #take(signal: AbortSignal): Promise<Peer | undefined> {
    const { clock, client, random } = this.#components
    const patience = new AbortController()
    const cancel = clock.after(this.#resolveTimeoutMs, () => patience.abort())
    try {
      while (this.#fresh.length === 0 && !this.#searchEnded) {
        await settledOrAborted(this.#changed.promise, AbortSignal.any([signal, patience.signal]))
        if (signal.aborted || patience.signal.aborted) {
          this.#timedOut = true
          return undefined
        }
      }
    } finally {
      cancel()
    }
    if (this.#fresh.length === 0) {
      this.#fresh = [...this.#gaveBytes]
      this.#gaveBytes.clear()
    }
    const [best] = shuffled(this.#fresh, random).sort((a, b) => client.load(a) - client.load(b))
    this.#fresh = this.#fresh.filter((peer) => peer !== best)
    return best
  }

  async #search(): Promise<void> {
    const { router } = this.#components
    for await (const peer of router.lookup(this.#question.request.key, this.#stop.signal)) {
      this.#fresh.push(peer)
      // Peers that are known together are seen together: choose after all of them are in.
      setImmediate(() => this.#wake())
    }
    this.#searchEnded = true
    setImmediate(() => this.#wake())
  }

  #wake(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }
}

function settledOrAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  return Promise.race([promise, aborted])
}
