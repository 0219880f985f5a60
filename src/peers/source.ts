/**
 * The peers for one request, one good answer after the other. The least busy is asked first; when its answer takes
 * longer than answers took lately, a further one is asked beside it, and the first good answer is taken. Peers that
 * failed lately come last. When all or several have failed, or the last of them is slow, the swarm is asked once more: who
 * is known may be gone, or at another address, and others have it by now.
 */
import { inBackground } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { errorMessage, isProgrammerError } from '../lib/errors.ts'
import { afterAwake } from '../lib/patience.ts'
import { type Random, shuffled } from '../lib/random.ts'
import {
  busyPauseMs,
  forgiveFailureMs,
  hedgesMax,
  holderPatienceMs,
  loadTriesMax,
  peerAddressesTriedMax,
} from '../limits.ts'
import type { Logger } from '../logger.ts'
import type { Metrics } from '../metrics.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import type { RangeSpec } from '../oci/range.ts'
import type { LookupDepth, Peer, Router } from '../router/router.ts'
import type { BodySource } from './body-source.ts'
import type { AnswerTimes } from './answer-times.ts'
import type { PeerClient } from './client.ts'
import { PeerBusy, PeerFailure, type PeerResponse, type RangeRefused } from './protocol.ts'
import type { PeerStanding } from './standing.ts'

export interface PeerSourceComponents {
  router: Pick<Router, 'lookup'>
  client: Pick<PeerClient, 'open' | 'load' | 'isLeftOut'>
  standing: PeerStanding
  answerTimes: AnswerTimes
  clock: Clock
  random: Random
  metrics: Metrics
  logger: Logger
}

export type MissReason = 'no-provider' | 'providers-failed' | 'timeout'

type Answer = PeerResponse | RangeRefused

interface Candidate {
  /** With the addresses to try next. */
  peer: Peer
  /** Addresses at which this peer failed to deliver. */
  readonly failedAt: Set<string>
  /** The address that the running or latest attempt is connected to. */
  connectedTo: string | undefined
  /**
   * paused: so busy that it refused although it was asked without a limit. busy: only idle ones are wanted, and it is not, or
   * was not asked since so many are not.
   */
  state: 'waiting' | 'asked' | 'paused' | 'busy' | 'failed'
  /** Transfers that it said it runs, when it refused for that. */
  load: number | undefined
  /** Failures without much in between. */
  failures: number
  failedMs: number
}

/** How peers are looked for, and which of them are taken. */
export interface Looking {
  method: 'GET' | 'HEAD'
  resolveTimeoutMs: number
  depth: LookupDepth
  /** Not one that sends to others already. Else the least busy one is taken in the end, whatever it says. */
  idleOnly: boolean
  /** Peers that are connected may take longer than the budget, once. */
  isPatient: boolean
}

/** A further try at the same peer is worth it once. */
const failuresMax = 2

export class PeerSource implements BodySource {
  readonly #components: PeerSourceComponents
  readonly #request: ContentRequest
  readonly #method: 'GET' | 'HEAD'
  readonly #resolveTimeoutMs: number
  /** For the first answer. */
  #idleOnly: boolean
  #isPatient: boolean
  /** A connected peer that has not failed lately did not answer within the budget. */
  #leftSlowOne = false
  readonly #stop = new AbortController()
  readonly #candidates = new Map<string, Candidate>()
  #searching = 0
  #timedOut = false
  #changed = Promise.withResolvers<void>()

  constructor(
    request: ContentRequest,
    { method, resolveTimeoutMs, depth, idleOnly, isPatient }: Looking,
    components: PeerSourceComponents,
  ) {
    this.#request = request
    this.#idleOnly = idleOnly
    this.#isPatient = isPatient
    this.#method = method
    this.#resolveTimeoutMs = resolveTimeoutMs
    this.#components = components
    void this.#searchInBackground(depth)
  }

  /** Why `next` gave nothing. */
  get missReason(): MissReason {
    if (this.#timedOut) return 'timeout'
    return this.#candidates.size === 0 ? 'no-provider' : 'providers-failed'
  }

  /** The least busy of those that were left because they are. */
  get busyPeer(): { node: Peer; feeds: number } | undefined {
    const busy = [...this.#candidates.values()].flatMap(({ peer, state, load }) =>
      state === 'busy' && load !== undefined ? [{ node: peer, feeds: load }] : [],
    )
    return busy.sort((a, b) => a.feeds - b.feeds)[0]
  }

  /** Somebody was left who is better than upstream: busy, or slow. */
  get hasLeftSomebody(): boolean {
    return this.#leftSlowOne || this.#has('busy')
  }

  /** Undefined when no peer is left, none answers within the budget, or the signal aborts. */
  async next(range: RangeSpec | undefined, budgetMs: number, caller: AbortSignal): Promise<Answer | undefined> {
    const round = new Round(range, caller)
    const { clock } = this.#components
    let cancelBudget = afterAwake(clock, budgetMs, () => this.#expire(round))
    const onAbort = () => this.#wake()
    caller.addEventListener('abort', onAbort, { once: true })
    try {
      for (;;) {
        if (round.answer !== undefined) return round.answer
        if (caller.aborted) return undefined
        if (round.expired) {
          if (!this.#isWorthWaiting(round)) {
            this.#leftSlowOne ||= !this.#isPatient && this.#isAnsweringSlowly(round)
            this.#timedOut = true
            this.#giveUp(round)
            return undefined
          }
          round.extend()
          cancelBudget()
          cancelBudget = afterAwake(clock, holderPatienceMs, () => this.#expire(round))
        }
        this.#askFurther(round)
        const isOver = round.running.size === 0 && this.#searching === 0 && !this.#has('waiting', 'paused')
        // Busy ones are left for the flight at once.
        const isLast = round.searchedAgain || this.#candidates.size === 0 || this.#has('busy')
        if (isOver && isLast) return undefined
        const isFailing = round.failures >= hedgesMax && !round.searchedAgain
        if (isOver || isFailing || this.#isSlow(round)) {
          round.searchedAgain = true
          void this.#searchInBackground('fresh')
        }
        await this.#change(round)
      }
    } finally {
      cancelBudget()
      caller.removeEventListener('abort', onAbort)
      round.end()
    }
  }

  /** The peer did not deliver. `gaveMuch`: it did for a while. */
  noteFailure(peer: Peer, error: unknown, gaveMuch = false): void {
    if (!(error instanceof PeerFailure)) throw error
    const { metrics, standing, logger } = this.#components
    // Only sources of flights leave a link to others.
    if (error.reason !== 'moved') metrics.peerFailures.inc({ reason: error.reason })
    logger.debug({ peer: peer.addresses, error: errorMessage(error) }, 'peer failed')
    // That it does not have something is no fault.
    if (error.reason !== 'not-found') standing.noteFailure(peer)
    const candidate = this.#candidates.get(peer.id)
    // After it was found at another address meanwhile, a failure at the old one says nothing about it.
    if (candidate === undefined || !isAtSameAddress(candidate.peer, peer)) return
    candidate.failures = gaveMuch ? 1 : candidate.failures + 1
    candidate.failedMs = this.#components.clock.nowMs()
    candidate.state = error.retryable && candidate.failures < failuresMax ? 'waiting' : 'failed'
    const failedAt = candidate.connectedTo === undefined ? candidate.peer.addresses : [candidate.connectedTo]
    for (const address of failedAt) candidate.failedAt.add(address)
    if (candidate.state === 'failed' && mayBeAnotherProgram(error)) this.#tryOtherAddresses(candidate)
  }

  /** Ends the search. */
  close(): void {
    this.#stop.abort()
  }

  #has(...states: Candidate['state'][]): boolean {
    return [...this.#candidates.values()].some(({ state }) => states.includes(state))
  }

  get #waiting(): Candidate[] {
    return [...this.#candidates.values()].filter(({ state }) => state === 'waiting')
  }

  /** Nobody else is known to be asked beside. */
  #isSlow({ hedgeDue, searchedAgain }: Round): boolean {
    return hedgeDue && !searchedAgain && this.#searching === 0 && this.#candidates.size > 0 && !this.#has('waiting')
  }

  /** A connected holder that has not failed lately is worth more patience than its budget: the alternative is upstream. */
  #isWorthWaiting(round: Round): boolean {
    if (round.extended || !this.#isPatient) return false
    return this.#isAnsweringSlowly(round) || this.#has('paused')
  }

  #isAnsweringSlowly({ running }: Round): boolean {
    const { standing } = this.#components
    return [...running].some(({ peer, connected }) => connected && !standing.isAvoided(peer))
  }

  /** Who has not answered until now is not waited for as long next time, and what led to it is looked up again. */
  #giveUp(round: Round): void {
    const failure = new PeerFailure('headers', 'no answer in time')
    for (const { peer } of round.running) this.noteFailure(peer, failure)
    if (this.#candidates.size > 0 && !round.searchedAgain) void this.#search('fresh')
  }

  #askFurther(round: Round): void {
    if (!round.hedgeDue || round.running.size >= hedgesMax) return
    const candidate = this.#choose()
    if (candidate === undefined) return
    round.hedgeDue = false
    void inBackground('peer_request', () => this.#ask(candidate, round))
    const delayMs = this.#components.answerTimes.hedgeDelayMs()
    round.cancelHedge()
    round.cancelHedge = afterAwake(this.#components.clock, delayMs, () => this.#hedge(round))
  }

  #choose(): Candidate | undefined {
    const { standing, client, random } = this.#components
    const rank = ({ peer, load }: Candidate) =>
      (standing.isAvoided(peer) ? 1e6 : 0) + (load === undefined ? client.load(peer) : 1e3 + load)
    const [best] = shuffled(this.#waiting, random).sort((a, b) => rank(a) - rank(b))
    return best
  }

  async #ask(candidate: Candidate, round: Round): Promise<void> {
    const { client, clock, answerTimes } = this.#components
    const { peer } = candidate
    const ask = { peer, connected: false }
    candidate.state = 'asked'
    candidate.connectedTo = undefined
    const startedMs = clock.nowMs()
    const question = {
      request: this.#request,
      method: this.#method,
      range: round.range,
      loadMax: this.#loadMax(candidate),
    }
    round.running.add(ask)
    try {
      const answer = await client.open(peer, question, round.signal, (address) => {
        ask.connected = true
        candidate.connectedTo = address
      })
      answerTimes.note(clock.nowMs() - startedMs)
      // Whoever gave a good answer may be asked for the rest of the body if another breaks.
      candidate.state = 'waiting'
      if (round.take(answer)) this.#relax()
      else if ('discard' in answer) answer.discard()
    } catch (error) {
      if (round.signal.aborted && !isProgrammerError(error)) {
        if (candidate.state === 'asked') candidate.state = 'waiting'
      } else if (error instanceof PeerBusy) {
        candidate.load = error.load
        if (question.loadMax === undefined) this.#pause(candidate)
        else if (this.#idleOnly) this.#leave(candidate)
        else candidate.state = 'waiting'
      } else if (error instanceof PeerFailure) {
        round.failures += 1
        this.noteFailure(peer, error)
      } else {
        candidate.state = 'failed'
        throw error
      }
    } finally {
      round.running.delete(ask)
      this.#hedge(round)
    }
  }

  /** Where so many are busy, the others are taken for busy too. */
  #leave(candidate: Candidate): void {
    candidate.state = 'busy'
    const busy = [...this.#candidates.values()].filter(({ state }) => state === 'busy').length
    if (busy >= loadTriesMax) for (const other of this.#waiting) other.state = 'busy'
  }

  /** When the one that was taken breaks off, busy and slow ones are better than nobody. */
  #relax(): void {
    this.#idleOnly = false
    this.#isPatient = true
    for (const candidate of this.#candidates.values()) if (candidate.state === 'busy') candidate.state = 'waiting'
  }

  /** Idle ones first; who has said that it is busy is asked again only as the least busy of all, without a limit. */
  #loadMax(candidate: Candidate): number | undefined {
    if (this.#request.kind !== 'blob' || this.#method !== 'GET') return undefined
    if (this.#idleOnly) return 0
    if (candidate.load !== undefined) return undefined
    const busy = [...this.#candidates.values()].filter(({ load }) => load !== undefined).length
    const alone = this.#waiting.length === 0 && this.#searching === 0
    return alone || busy >= loadTriesMax ? undefined : 0
  }

  /** Asking again at once would only add to its load. */
  #pause(candidate: Candidate): void {
    const { clock, random } = this.#components
    candidate.state = 'paused'
    clock.after(busyPauseMs * (0.5 + random()), () => {
      if (candidate.state === 'paused') candidate.state = 'waiting'
      this.#wake()
    })
  }

  #hedge(round: Round): void {
    round.hedgeDue = true
    this.#wake()
  }

  #expire(round: Round): void {
    round.expired = true
    this.#wake()
  }

  /** Waits for anything to happen, with a limit while no peer is being asked. */
  async #change(round: Round): Promise<void> {
    const idle = round.running.size === 0
    const cancel = idle
      ? afterAwake(this.#components.clock, this.#resolveTimeoutMs, () => this.#expire(round))
      : () => {}
    await this.#changed.promise
    cancel()
  }

  #searchInBackground(depth: LookupDepth): Promise<void> {
    return inBackground('lookup', () => this.#search(depth), { signal: this.#stop.signal })
  }

  async #search(depth: LookupDepth): Promise<void> {
    const { router, client, standing, clock } = this.#components
    this.#searching += 1
    try {
      for await (const peer of router.lookup(this.#request.key, this.#stop.signal, depth)) {
        if (standing.isWrong(peer, this.#request.digest) || client.isLeftOut(peer)) continue
        const known = this.#candidates.get(peer.id)
        const forgiven = known?.state === 'failed' && clock.nowMs() - known.failedMs > forgiveFailureMs
        if (known === undefined || forgiven) this.#candidates.set(peer.id, newCandidate(peer))
        else if (!this.#learnAddresses(known, peer)) continue
        // Peers that are known together are seen together: choose after all of them are in.
        setImmediate(() => this.#wake())
      }
    } finally {
      this.#searching -= 1
      setImmediate(() => this.#wake())
    }
  }

  /** False when nothing new was learned: the peer is known at these addresses, or failed there. */
  #learnAddresses(known: Candidate, { id, addresses }: Peer): boolean {
    const { peer, failedAt, state } = known
    const others = addresses.filter((address) => !peer.addresses.includes(address) && !failedAt.has(address))
    if (others.length === 0 || failedAt.size + peer.addresses.length + others.length > peerAddressesTriedMax)
      return false
    if (state === 'waiting') {
      known.peer = { id, addresses: [...peer.addresses, ...others] }
    } else if (state === 'failed') {
      known.peer = { id, addresses: others }
      known.failures = 0
      known.state = 'waiting'
    } else if (state === 'asked') {
      // The old address may never respond: request from the new one at the same time.
      const tried = new Set([...failedAt, ...peer.addresses])
      this.#candidates.set(id, { ...newCandidate({ id, addresses: others }), failedAt: tried })
    }
    return true
  }

  /** Addresses are given to another node when one leaves: who answered there need not be the peer. */
  #tryOtherAddresses(candidate: Candidate): void {
    const { peer, failedAt } = candidate
    const addresses = peer.addresses.filter((address) => !failedAt.has(address))
    if (addresses.length === 0) return
    candidate.peer = { id: peer.id, addresses }
    candidate.state = 'waiting'
  }

  #wake(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }
}

function newCandidate(peer: Peer): Candidate {
  return {
    peer,
    failedAt: new Set(),
    connectedTo: undefined,
    state: 'waiting',
    load: undefined,
    failures: 0,
    failedMs: 0,
  }
}

function isAtSameAddress(a: Peer, b: Peer): boolean {
  return a.addresses.some((address) => b.addresses.includes(address))
}

function mayBeAnotherProgram({ reason }: PeerFailure): boolean {
  return reason === 'not-found' || reason === 'status' || reason === 'headers'
}

/** One call of `next`. */
class Round {
  readonly range: RangeSpec | undefined
  readonly signal: AbortSignal
  readonly running = new Set<{ peer: Peer; connected: boolean }>()
  answer: Answer | undefined
  hedgeDue = true
  expired = false
  extended = false
  searchedAgain = false
  /** Attempts that failed. */
  failures = 0
  cancelHedge: () => void = () => {}
  readonly #over = new AbortController()

  constructor(range: RangeSpec | undefined, caller: AbortSignal) {
    this.range = range
    this.signal = AbortSignal.any([caller, this.#over.signal])
  }

  /** False when another one was taken, or nobody waits any more. */
  take(answer: Answer): boolean {
    if (this.answer !== undefined || this.signal.aborted) return false
    this.answer = answer
    return true
  }

  extend(): void {
    this.extended = true
    this.expired = false
  }

  end(): void {
    this.cancelHedge()
    this.#over.abort(new Error('another peer was faster, or the wait is over'))
  }
}
