/**
 * Gives memory back when a daemon has come to rest. V8 collects garbage when it needs room and not when there is
 * nothing to do, so what a busy minute left behind (garbage, buffers kept for reuse) would stay until the next one.
 */
import { idleBeforeCollectionMs, idleGrowthBytes } from '../limits.ts'
import { forgetFreeBuffers } from './chunk-buffers.ts'
import type { Clock } from './clock.ts'

export interface Memory {
  residentBytes(): number
  giveBack(): void
}

/** Without node's --expose-gc only the buffers go, and the garbage when V8 thinks so. */
const memoryOfProcess: Memory = {
  residentBytes: () => process.memoryUsage.rss(),
  giveBack() {
    forgetFreeBuffers()
    globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  },
}

export class IdleMemory {
  readonly #clock: Clock
  readonly #isBusy: () => boolean
  readonly #memory: Memory
  #lastWorkMs = 0
  #cancel: (() => void) | undefined
  /** When it was last given back. Undefined: never, so that what the start took goes too. */
  #restingBytes: number | undefined

  constructor(clock: Clock, isBusy: () => boolean, memory = memoryOfProcess) {
    this.#clock = clock
    this.#isBusy = isBusy
    this.#memory = memory
  }

  /** Something is done, or has just been. */
  noteWork(): void {
    this.#lastWorkMs = this.#clock.nowMs()
    this.#cancel ??= this.#clock.after(idleBeforeCollectionMs, () => this.#look())
  }

  close(): void {
    this.#cancel?.()
  }

  #look(): void {
    const restsMs = this.#isBusy() ? 0 : this.#clock.nowMs() - this.#lastWorkMs
    if (restsMs < idleBeforeCollectionMs) {
      this.#cancel = this.#clock.after(idleBeforeCollectionMs - restsMs, () => this.#look())
      return
    }
    this.#cancel = undefined
    const grownBytes = this.#memory.residentBytes() - (this.#restingBytes ?? 0)
    if (grownBytes < idleGrowthBytes) return
    this.#memory.giveBack()
    this.#restingBytes = this.#memory.residentBytes()
  }
}
