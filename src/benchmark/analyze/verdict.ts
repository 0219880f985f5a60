/** A ratio with its interval, in words. */
import type { RatioEstimate } from './statistics.ts'

export interface VerdictWords {
  less: string
  more: string
}

/**
 * `faster by 12.0 % (8.0 – 16.0)`; when the interval contains "equal", `no difference seen (± 6.0 %)`: a difference
 * smaller than that could not have been seen.
 */
export function verdict({ ratio, low, high }: RatioEstimate, { less, more }: VerdictWords): string {
  if (high < 1) return `${less} by ${percent(1 - ratio)} % (${percent(1 - high)} – ${percent(1 - low)})`
  if (low > 1) return `${more} by ${percent(ratio - 1)} % (${percent(low - 1)} – ${percent(high - 1)})`
  return `no difference seen (± ${percent(Math.sqrt(high / low) - 1)} %)`
}

/** (baseline − mirror) ÷ baseline in percent, with the interval: `82.8 (80.1 – 85.0)`. */
export function improvement(baseline: number, other: number, estimate: RatioEstimate | undefined): string {
  if (estimate === undefined) return `${percent(1 - other / baseline)} (no interval)`
  const { ratio, low, high } = estimate
  return `${percent(1 - ratio)} (${percent(1 - high)} – ${percent(1 - low)})`
}

export function percent(share: number): string {
  const text = (100 * share).toFixed(1)
  return (text === '-0.0' ? '0.0' : text).replace('-', '−')
}
