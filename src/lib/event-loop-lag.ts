/**
 * How late the event loop runs a timer that is due. Node's sampler records the time between two of its samples, and
 * prom-client reports that as the lag: an idle process appears to lag by the sampling interval. This class subtracts it.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { eventLoopSampleMs } from '../limits.ts'

/** Seconds. */
export interface LagSummary {
  min: number
  max: number
  mean: number
  stddev: number
  p50: number
  p90: number
  p99: number
}

export class EventLoopLag {
  readonly #samples = monitorEventLoopDelay({ resolution: eventLoopSampleMs })
  #taking: Promise<LagSummary> | undefined

  constructor() {
    this.#samples.enable()
  }

  /**
   * Of the samples since the last summary; zeros if there are none. A block of the event loop reads up to one sampling
   * interval too short. Concurrent calls get the same summary.
   */
  take(): Promise<LagSummary> {
    this.#taking ??= this.#takeWithDueSample().finally(() => (this.#taking = undefined))
    return this.#taking
  }

  /** After a block, input is handled before timers. This timer lets the overdue sample be recorded first. */
  async #takeWithDueSample(): Promise<LagSummary> {
    await setTimeout(1)
    const samples = this.#samples
    const isEmpty = samples.count === 0
    const lag = (nanoseconds: number) => (isEmpty ? 0 : Math.max(0, nanoseconds / 1e9 - eventLoopSampleMs / 1e3))
    const summary = {
      min: lag(samples.min),
      max: lag(samples.max),
      mean: lag(samples.mean),
      stddev: isEmpty ? 0 : samples.stddev / 1e9,
      p50: lag(samples.percentile(50)),
      p90: lag(samples.percentile(90)),
      p99: lag(samples.percentile(99)),
    }
    samples.reset()
    return summary
  }
}
