/**
 * The bytes of one blob that somebody in the cluster is fetching: from the node that the coordinator names, and when it
 * breaks or stands still, from the next, at the exact byte. Ends with a lease when this node is the one to go upstream.
 */
import { inBackground, surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { errorMessage } from '../lib/errors.ts'
import { afterAwake, awakeTimeout } from '../lib/patience.ts'
import {
  flightAskAgainMs,
  flightCrowdedAskMs,
  flightDropSourceMs,
  flightPauseMs,
  flightPauseTurns,
  flightPausesMax,
  flightJoinWaitMs,
  flightNotYetMs,
  flightStallMs,
  flightTreeBytes,
  holderPatienceMs,
} from '../limits.ts'
import type { Logger } from '../logger.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import type { RangeSpec } from '../oci/range.ts'
import type { BodySource } from '../peers/body-source.ts'
import type { PeerClient } from '../peers/client.ts'
import { PeerFailure, type PeerFailureReason, type PeerResponse, type RangeRefused } from '../peers/protocol.ts'
import type { Peer } from '../router/router.ts'
import type { WriteChunk } from '../store/store.ts'
import { isAlive } from './alive.ts'
import { BusyMeter } from './busy-meter.ts'
import type { Answer, FlightNode, Join } from './protocol.ts'

export interface FlightSourceComponents {
  client: Pick<PeerClient, 'open' | 'post'>
  clock: Clock
  logger: Logger
  /** The peer delivered wrong bytes of this digest before. */
  isWrong: (peer: FlightNode) => boolean
  /** Asks the coordinator. Undefined: there is none. */
  join: (
    question: { haveBytes: number; waitMs: number } & Pick<Join, 'avoid' | 'gone' | 'keep' | 'isSlow' | 'holder'>,
    signal: AbortSignal,
  ) => Promise<Answer | undefined>
  onBusy: (busy: number) => void
  /** It has left a source whose link was full, for another one or for a moment. */
  onMoved: (kind: 'moved' | 'paused') => void
  /** A source did not deliver. */
  onFailed: (reason: Exclude<PeerFailureReason, 'moved'>) => void
  /** That the coordinator may not know. */
  holder: Join['holder']
}

const linkLeft = 'its link is left to others'

export class FlightSource implements BodySource {
  /** Why `next` gave nothing: this node is to fetch upstream; there is no coordinator; time is over. */
  outcome: 'lease' | 'alone' | 'timeout' = 'timeout'
  /** The lease is one after a lease that failed: upstream may refuse. */
  isAfterFailure = false
  readonly #request: ContentRequest
  readonly #components: FlightSourceComponents
  /** Did not deliver; the coordinator is told with the next question. */
  #failed: string | undefined
  /** Nobody listens there: what it had, and its lease, are gone with it. */
  #gone: string | undefined
  /** A source that is not as far yet as was said; since when. */
  #notYet = { of: '', sinceMs: 0 }
  /** A source that broke off and was asked once more. */
  #askedAgain: string | undefined
  /** Told until a source is named: from then on the coordinator knows better. */
  #holder: Join['holder']
  /** To ask without a question: named while the last one still sent or stood still, or the one that broke off. */
  #other: FlightNode | undefined
  /** It was left though it sent. If who was named instead does not deliver, it is asked again. */
  #left: FlightNode | undefined
  /** That one's link is left to others for a moment. */
  #isPausing = false
  /** Of its link. Of another one there were none. */
  #pauses = { of: '', count: 0 }

  constructor(request: ContentRequest, components: FlightSourceComponents) {
    this.#request = request
    this.#components = components
    this.#holder = components.holder
  }

  async next(
    range: RangeSpec | undefined,
    budgetMs: number,
    caller: AbortSignal,
  ): Promise<PeerResponse | RangeRefused | undefined> {
    const { clock } = this.#components
    const haveBytes = range !== undefined && 'first' in range ? range.first : 0
    const over = new AbortController()
    const cancel = afterAwake(clock, budgetMs, () => over.abort(new Error('the budget is used up')))
    const signal = AbortSignal.any([caller, over.signal])
    this.outcome = 'timeout'
    try {
      for (let failedId = ''; !signal.aborted;) {
        const askedMs = clock.nowMs()
        const answer = await this.#answer({ haveBytes, waitMs: flightJoinWaitMs }, signal)
        if (answer === undefined || answer.kind === 'lease') {
          this.outcome = answer === undefined ? 'alone' : 'lease'
          this.isAfterFailure = answer?.afterFailure === true
          return undefined
        }
        const isNew = answer.kind === 'source' && answer.source.id !== failedId
        // Another question of this node took the place of this one, or the coordinator is not well: no storm.
        if (!isNew) await clock.sleep(Math.max(0, askedMs + flightAskAgainMs - clock.nowMs()), signal)
        if (answer.kind !== 'source') continue
        if (this.#components.isWrong(answer.source)) {
          // For this flight it has nothing.
          this.#gone = answer.source.id
          failedId = answer.source.id
          continue
        }
        const left = this.#left
        this.#left = undefined
        const response = await this.#open(answer.source, range, signal)
        if (response !== undefined) return response
        if (left?.id !== answer.source.id) this.#other ??= left
        failedId = answer.source.id
      }
      return undefined
    } catch (error) {
      if (signal.aborted) return undefined
      throw error
    } finally {
      cancel()
    }
  }

  noteFailure(peer: Peer, error: unknown, gaveMuch = false): void {
    if (!(error instanceof PeerFailure)) throw error
    const { reason } = error
    const isMoved = reason === 'moved'
    const what = isMoved ? 'link of a source is left to others' : 'source of a flight failed'
    this.#components.logger.debug({ peer: peer.addresses, error: errorMessage(error) }, what)
    if (isMoved) {
      this.#left = peer
      this.#components.onMoved(this.#isPausing ? 'paused' : 'moved')
      return
    }
    this.#components.onFailed(reason)
    // Whether a source that broke off is gone shows when it is asked again.
    if (error.reason === 'body' && (gaveMuch || this.#askedAgain !== peer.id)) {
      if (this.#other === undefined) this.#askedAgain = peer.id
      this.#other ??= peer
      return
    }
    // The coordinator has named another one because of that.
    if (error.reason === 'stall' && this.#other !== undefined) return
    this.#failed = peer.id
    if (error.reason === 'connect') this.#gone = peer.id
  }

  async #answer(
    { haveBytes, waitMs }: { haveBytes: number; waitMs: number },
    signal: AbortSignal,
  ): Promise<Answer | undefined> {
    const other = this.#other
    this.#other = undefined
    if (other !== undefined) return { kind: 'source', source: other }
    if (this.#isPausing && this.#left !== undefined) return this.#pause(this.#left, haveBytes, signal)
    const [avoid, gone] = [this.#failed, this.#gone]
    this.#failed = undefined
    this.#gone = undefined
    const question = { haveBytes, waitMs, avoid, gone, keep: undefined, isSlow: false, holder: this.#holder }
    const answer = await this.#components.join(question, signal)
    if (answer?.kind === 'source') this.#holder = undefined
    return answer
  }

  /** Nothing comes, until somebody has got ahead, or the time is over. Not to read is not enough: megabytes fit in buffers. */
  async #pause(left: FlightNode, haveBytes: number, signal: AbortSignal): Promise<Answer> {
    const { clock } = this.#components
    this.#isPausing = false
    this.#pauses = { of: left.id, count: this.#pausesAt(left) + 1 }
    using patience = awakeTimeout(clock, flightPauseMs)
    const untilOver = AbortSignal.any([signal, patience.signal])
    try {
      for (;;) {
        await clock.sleep(flightPauseMs / flightPauseTurns, untilOver)
        const answer = await this.#askOfSource(left, haveBytes, true, untilOver)
        if (answer?.kind === 'source') return answer
        if (answer?.kind !== 'pause') break
      }
    } catch (error) {
      signal.throwIfAborted()
      if (!patience.signal.aborted) throw error
    }
    return { kind: 'source', source: left }
  }

  #pausesAt({ id }: FlightNode): number {
    return this.#pauses.of === id ? this.#pauses.count : 0
  }

  /** Is there another one for who stands still, or is fed over a full link? */
  #askOfSource(
    { id: keep }: FlightNode,
    haveBytes: number,
    isSlow: boolean,
    signal: AbortSignal,
  ): Promise<Answer | undefined> {
    const [avoid, gone] = [this.#failed, this.#gone]
    this.#failed = undefined
    this.#gone = undefined
    const question = { haveBytes, waitMs: 0, avoid, gone, keep, isSlow, holder: undefined }
    return this.#components.join(question, signal)
  }

  async #open(
    source: FlightNode,
    range: RangeSpec | undefined,
    signal: AbortSignal,
  ): Promise<PeerResponse | RangeRefused | undefined> {
    const { client, clock } = this.#components
    const question = { request: this.#request, method: 'GET' as const, range, loadMax: undefined }
    using patience = awakeTimeout(clock, holderPatienceMs)
    const untilHeaders = AbortSignal.any([signal, patience.signal])
    try {
      const response = await client.open(source, question, untilHeaders, () => {})
      this.#notYet.of = ''
      if ('refusedSize' in response) return response
      const first = response.range?.first ?? 0
      return { ...response, send: (write) => this.#follow(response, source, first, write) }
    } catch (error) {
      signal.throwIfAborted()
      surface('peer_request', error)
      const failure = error instanceof PeerFailure ? error : new PeerFailure('headers', 'no answer in time')
      const isMidBlob = range !== undefined && 'first' in range && range.first > 0
      if (failure.reason === 'not-found' && isMidBlob && this.#mayGetThere(source)) return undefined
      this.noteFailure(source, failure)
      return undefined
    }
  }

  /** What it told that it has is with its containerd, which has not written it yet. */
  #mayGetThere({ id }: FlightNode): boolean {
    const nowMs = this.#components.clock.nowMs()
    if (this.#notYet.of !== id) this.#notYet = { of: id, sinceMs: nowMs }
    return nowMs - this.#notYet.sinceMs < flightNotYetMs
  }

  /**
   * Passes the body on. A source that gives nothing is not to blame while nobody has more: then we stay. Somebody has:
   * we change. After long enough we ask like anybody who waits, which may bring a lease. One whose link is full is left to
   * others when the coordinator says so, for a moment or for good.
   */
  async #follow(response: PeerResponse, source: FlightNode, first: number, write: WriteChunk): Promise<void> {
    const { clock } = this.#components
    const { digest } = this.#request
    const meter = new BusyMeter(() => clock.nowMs(), Math.max(0, (response.hereBytes ?? 0) - first))
    let haveBytes = first
    let silentSinceMs: number | undefined = clock.nowMs()
    let dropped: PeerFailure | undefined
    this.#isPausing = false
    const endBytes = response.range === undefined ? response.size : response.range.last + 1
    let isLeaving = false
    const over = new AbortController()
    const drop = (reason: 'stall' | 'connect' | 'moved', why: string) => {
      dropped = new PeerFailure(reason, why)
      response.discard()
    }
    let askedMs = clock.nowMs()
    const ask = (isSlow: boolean) => {
      askedMs = clock.nowMs()
      return this.#askOfSource(source, haveBytes, isSlow, over.signal)
    }
    const namesOther = (answer: Answer | undefined) => {
      if (answer?.kind !== 'source' || answer.source.id === source.id) return false
      this.#other = answer.source
      return true
    }
    const watch = async () => {
      for (;;) {
        await clock.sleep(flightStallMs / 4, over.signal)
        const silentMs = silentSinceMs === undefined ? 0 : clock.nowMs() - silentSinceMs
        if (silentMs < flightStallMs) {
          const mayAsk = response.size > flightTreeBytes && this.#pausesAt(source) < flightPausesMax
          const isDue = meter.mayBeFull && mayAsk && clock.nowMs() - askedMs >= flightCrowdedAskMs
          // Who was to be its source did not deliver: the coordinator thinks that it is.
          if (isLeaving || (!isDue && this.#failed === undefined)) continue
          const answer = await ask(true)
          this.#isPausing = answer?.kind === 'pause' && mayAsk
          isLeaving = namesOther(answer) || this.#isPausing
          continue
        }
        if (isLeaving && !this.#isPausing) {
          drop('moved', linkLeft)
          return
        }
        isLeaving = false
        this.#isPausing = false
        if (namesOther(await ask(false))) {
          drop('stall', 'it stood still, and another has more')
          return
        }
        // One that is there may have a slow upstream.
        if (digest !== undefined && !(await isAlive(this.#components, source, digest, over.signal))) {
          drop('connect', 'it stood still, and is not there any more')
          return
        }
        if (silentMs >= flightDropSourceMs) {
          drop('stall', `it stood still for ${Math.round(silentMs)} ms`)
          return
        }
      }
    }
    void inBackground('flight_watch', watch, { signal: over.signal })
    try {
      await response.send(async (chunk) => {
        silentSinceMs = undefined
        meter.noteBytes(chunk.byteLength, response.latestWaitMs?.())
        await write(chunk)
        haveBytes += chunk.byteLength
        silentSinceMs = clock.nowMs()
        meter.noteWritten()
        const busy = meter.takeChange()
        if (busy !== undefined) this.#components.onBusy(busy)
        // Here, where no chunk is on its way to the taker: it would be sent twice.
        if (isLeaving && haveBytes < endBytes) throw new PeerFailure('moved', linkLeft)
      })
    } catch (error) {
      throw dropped ?? error
    } finally {
      over.abort()
    }
  }
}
