/** What is learned about one request while it is answered: for metrics and the log. */
import type { Clock } from '../lib/clock.ts'

export class Exchange {
  readonly startedMs: number
  readonly fromPeer: boolean
  readonly isHead: boolean
  readonly rangeHeader: string | undefined
  sentBytes = 0
  readonly #clock: Clock

  constructor(clock: Clock, init: { fromPeer: boolean; isHead: boolean; rangeHeader: string | undefined }) {
    this.#clock = clock
    this.startedMs = clock.nowMs()
    this.fromPeer = init.fromPeer
    this.isHead = init.isHead
    this.rangeHeader = init.rangeHeader
  }

  get elapsedMs(): number {
    return this.#clock.nowMs() - this.startedMs
  }
}
