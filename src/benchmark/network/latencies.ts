/** Times in an HDR histogram: three digits from 1 ns to one minute, in a fixed amount of memory. */
import { type Histogram, build, decodeFromCompressedBase64, encodeIntoCompressedBase64 } from 'hdr-histogram-js'
import type { LatencySummary } from '../result/network-schema.ts'

/** Longer times are counted as this one. */
const longestNs = 60e9
const significantDigits = 3

export const percentilesShown: readonly number[] = [50, 95, 99, 99.5, 99.9, 99.99, 99.999]
/** So many samples must lie above a percentile before it is worth a line: of fewer the next run says otherwise. */
export const samplesAboveMin = 10

export class Latencies {
  readonly #histogram: Histogram
  /** Exact: the histogram has three digits. */
  #maxNs = 0
  #minNs = longestNs

  constructor(histogram?: Histogram) {
    this.#histogram =
      histogram ??
      build({
        lowestDiscernibleValue: 1,
        highestTrackableValue: longestNs,
        numberOfSignificantValueDigits: significantDigits,
        bitBucketSize: 32,
        useWebAssembly: false,
      })
  }

  /** All samples of several runs. */
  static merged(summaries: readonly LatencySummary[]): Latencies {
    const all = new Latencies()
    for (const { histogram, min, max } of summaries) {
      all.#histogram.add(decodeFromCompressedBase64(histogram, 32, false))
      all.#maxNs = Math.max(all.#maxNs, max)
      all.#minNs = Math.min(all.#minNs, min)
    }
    return all
  }

  get count(): number {
    return this.#histogram.totalCount
  }

  get maxNs(): number {
    return this.#maxNs
  }

  recordMs(ms: number): void {
    const ns = Math.min(longestNs, Math.max(1, Math.round(ms * 1e6)))
    this.#histogram.recordValue(ns)
    if (ns > this.#maxNs) this.#maxNs = ns
    if (ns < this.#minNs) this.#minNs = ns
  }

  /** Undefined: too few samples lie above it. */
  percentileNs(percentile: number): number | undefined {
    // Without the tiny sum 10,000 samples would have 9.99… above 99.9.
    const above = Math.floor((this.count * (100 - percentile)) / 100 + 1e-6)
    if (above < samplesAboveMin) return undefined
    return Math.min(this.#histogram.getValueAtPercentile(percentile), this.#maxNs)
  }

  summary(): LatencySummary {
    const { count } = this
    return {
      count,
      min: count === 0 ? 0 : this.#minNs,
      max: this.#maxNs,
      percentiles: percentilesShown.flatMap((percentile) => {
        const value = this.percentileNs(percentile)
        return value === undefined ? [] : [{ percentile, value }]
      }),
      histogram: encodeIntoCompressedBase64(this.#histogram),
    }
  }
}
