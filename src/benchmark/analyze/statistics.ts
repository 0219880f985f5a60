/**
 * Sums over samples, and how much two sets of samples differ. Times of pulls are skewed and differ by factors, so
 * differences are taken between logarithms: a ratio, with a confidence interval by Student's t.
 */
import jstat from 'jstat'

/** Linear interpolation between the two samples around each quartile (R's type 7, the default of most tools). */
export interface Spread {
  min: number
  lowerQuartile: number
  median: number
  upperQuartile: number
  max: number
}

/** other ÷ baseline, and the interval that holds the true ratio at the level that was asked for. */
export interface RatioEstimate {
  ratio: number
  low: number
  high: number
}

export interface Pair {
  baseline: number
  other: number
}

/** NaN without samples. */
export function mean(samples: readonly number[]): number {
  return samples.reduce((sum, sample) => sum + sample, 0) / samples.length
}

/** The middle one, or the mean of the two in the middle. NaN without samples. */
export function median(samples: readonly number[]): number {
  return atShare(ascending(samples), 0.5)
}

export function spread(samples: readonly number[]): Spread {
  const sorted = ascending(samples)
  return {
    min: atShare(sorted, 0),
    lowerQuartile: atShare(sorted, 0.25),
    median: atShare(sorted, 0.5),
    upperQuartile: atShare(sorted, 0.75),
    max: atShare(sorted, 1),
  }
}

/** Bonferroni: with this level in each row, all rows of a table are right together in 95 % of all tables. */
export function levelPerRow(rowCount: number): number {
  return 1 - 0.05 / Math.max(1, rowCount)
}

/**
 * Both values of a pair come from the same round, so what slowed the whole round drops out. Undefined when fewer than
 * two pairs, or a value that has no logarithm, leave nothing to say.
 */
export function pairedRatio(pairs: readonly Pair[], level: number): RatioEstimate | undefined {
  if (!pairs.every(({ baseline, other }) => baseline > 0 && other > 0)) return undefined
  const logs = pairs.map(({ baseline, other }) => Math.log(other / baseline))
  if (logs.length < 2) return undefined
  return interval(mean(logs), Math.sqrt(variance(logs) / logs.length), logs.length - 1, level)
}

/** Welch: samples that have no partners, and maybe unequal variances. Undefined as above, for either side. */
export function welchRatio(
  baseline: readonly number[],
  other: readonly number[],
  level: number,
): RatioEstimate | undefined {
  if (baseline.length < 2 || other.length < 2) return undefined
  if (![...baseline, ...other].every((sample) => sample > 0)) return undefined
  const [a, b] = [baseline.map(Math.log), other.map(Math.log)]
  return welch(mean(b) - mean(a), [variance(a) / a.length, variance(b) / b.length], [a.length, b.length], level)
}

/**
 * The ratio of the arithmetic means. For nodes of a single run: the first wave may be many times as slow as the others,
 * and a mean of logarithms would hide that. Undefined as above.
 */
export function ratioOfMeans(
  baseline: readonly number[],
  other: readonly number[],
  level: number,
): RatioEstimate | undefined {
  if (baseline.length < 2 || other.length < 2) return undefined
  const [meanA, meanB] = [mean(baseline), mean(other)]
  if (!(meanA > 0 && meanB > 0)) return undefined
  // The variance of log(mean), to first order.
  const parts: [number, number] = [
    variance(baseline) / baseline.length / meanA ** 2,
    variance(other) / other.length / meanB ** 2,
  ]
  return welch(Math.log(meanB / meanA), parts, [baseline.length, other.length], level)
}

function welch(
  logRatio: number,
  [partA, partB]: [number, number],
  [countA, countB]: [number, number],
  level: number,
): RatioEstimate {
  const error = partA + partB
  const degreesOfFreedom = error ** 2 / (partA ** 2 / (countA - 1) + partB ** 2 / (countB - 1))
  return interval(logRatio, Math.sqrt(error), degreesOfFreedom, level)
}

function interval(logRatio: number, standardError: number, degreesOfFreedom: number, level: number): RatioEstimate {
  // Samples that are all equal have no degrees of freedom to speak of, and no width.
  const halfWidth = standardError === 0 ? 0 : standardError * tQuantile((1 + level) / 2, degreesOfFreedom)
  return {
    ratio: Math.exp(logRatio),
    low: Math.exp(logRatio - halfWidth),
    high: Math.exp(logRatio + halfWidth),
  }
}

export function tQuantile(probability: number, degreesOfFreedom: number): number {
  return jstat.jStat.studentt.inv(probability, degreesOfFreedom)
}

/** Of the population that the samples were drawn from. */
function variance(samples: readonly number[]): number {
  const middle = mean(samples)
  return samples.reduce((sum, sample) => sum + (sample - middle) ** 2, 0) / (samples.length - 1)
}

function ascending(samples: readonly number[]): number[] {
  return [...samples].sort((a, b) => a - b)
}

function atShare(sorted: readonly number[], share: number): number {
  const place = share * (sorted.length - 1)
  const [below, above] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]]
  return below === undefined || above === undefined ? Number.NaN : below + (above - below) * (place % 1)
}
