import { describe, expect, it } from 'vitest'
import {
  levelPerRow,
  mean,
  median,
  pairedRatio,
  ratioOfMeans,
  spread,
  tQuantile,
  welchRatio,
} from '../../../../src/benchmark/analyze/statistics.ts'
import { improvement, verdict } from '../../../../src/benchmark/analyze/verdict.ts'
import { type Random, lognormal, seededRandom } from '../../../support/random.ts'
import { printedSeed } from '../../../support/seed.ts'

describe('samples', () => {
  it('have a middle and quartiles', () => {
    expect(median([9, 1, 5])).toBe(5)
    expect(median([4, 1, 2, 3])).toBe(2.5)
    expect(median([])).toBeNaN()
    expect(mean([1, 2, 6])).toBe(3)
    expect(spread([4, 1, 3, 2])).toEqual({ min: 1, lowerQuartile: 1.75, median: 2.5, upperQuartile: 3.25, max: 4 })
  })
})

describe("quantiles of Student's t", () => {
  // From the tables of Abramowitz & Stegun and of R's qt().
  it.each([
    [0.975, 1, 12.7062],
    [0.975, 4, 2.7764],
    [0.995, 4, 4.6041],
    [0.9995, 4, 8.6103],
    [0.975, 30, 2.0423],
    [0.975, 1e6, 1.96],
  ])('at %f with %f degrees of freedom are as in the tables', (probability, degreesOfFreedom, wanted) => {
    expect(tQuantile(probability, degreesOfFreedom)).toBeCloseTo(wanted, 3)
  })
})

describe('intervals', () => {
  it('of pairs are computed as by hand', () => {
    // Log ratios ln 2 ± 0.1 and ln 2: standard deviation 0.1, error 0.1 ÷ √3, t(2 degrees of freedom) 4.3027.
    const pairs = [-0.1, 0, 0.1].map((log) => ({ baseline: 10, other: 20 * Math.exp(log) }))
    const estimate = pairedRatio(pairs, 0.95)
    expect(estimate?.ratio).toBeCloseTo(2, 10)
    expect(estimate?.low).toBeCloseTo(2 * Math.exp((-4.302_65 * 0.1) / Math.sqrt(3)), 4)
    expect(estimate?.high).toBeCloseTo(2 * Math.exp((4.302_65 * 0.1) / Math.sqrt(3)), 4)
  })

  it('of two runs are computed as by hand', () => {
    // Both sides have the variance 0.01 over 3 samples: error √(0.02 ÷ 3), 4 degrees of freedom, t 2.7764.
    const around = (middle: number) => [-0.1, 0, 0.1].map((log) => middle * Math.exp(log))
    const estimate = welchRatio(around(10), around(5), 0.95)
    expect(estimate?.ratio).toBeCloseTo(0.5, 10)
    expect(estimate?.high).toBeCloseTo(0.5 * Math.exp(2.776_45 * Math.sqrt(0.02 / 3)), 4)
  })

  it('of means over nodes are computed as by hand', () => {
    // Means 100 and 50. Relative errors of the means: (√2 × 10 ÷ √2) ÷ 100 = 0.1 and 0.1; 2 degrees of freedom.
    const estimate = ratioOfMeans([90, 110], [45, 55], 0.95)
    expect(estimate?.ratio).toBeCloseTo(0.5, 10)
    expect(estimate?.high).toBeCloseTo(0.5 * Math.exp(4.302_65 * Math.sqrt(0.02)), 4)
    // One wave of two is slow: the mean of logarithms would say 0.316.
    expect(ratioOfMeans([100, 100], [100, 10], 0.95)?.ratio).toBeCloseTo(0.55, 10)
    expect(ratioOfMeans([1], [1, 2], 0.95)).toBeUndefined()
    expect(ratioOfMeans([0, 0], [1, 2], 0.95)).toBeUndefined()
  })

  it('are not made up', () => {
    expect(pairedRatio([{ baseline: 1, other: 2 }], 0.95)).toBeUndefined()
    expect(pairedRatio([], 0.95)).toBeUndefined()
    const withZero = [
      { baseline: 0, other: 2 },
      { baseline: 1, other: 2 },
    ]
    expect(pairedRatio(withZero, 0.95)).toBeUndefined()
    expect(welchRatio([1], [1, 2], 0.95)).toBeUndefined()
    expect(welchRatio([0, 1], [1, 2], 0.95)).toBeUndefined()
  })

  it('of equal samples have no width', () => {
    expect(welchRatio([2, 2], [1, 1], 0.95)).toEqual({ ratio: 0.5, low: 0.5, high: 0.5 })
    expect(verdict({ ratio: 1, low: 1, high: 1 }, { less: 'faster', more: 'slower' })).toBe(
      'no difference seen (± 0.0 %)',
    )
  })

  it('are wider the more rows there are', () => {
    expect(levelPerRow(1)).toBe(0.95)
    expect(levelPerRow(10)).toBeCloseTo(0.995)
  })
})

describe('verdicts', () => {
  const words = { less: 'faster', more: 'slower' }

  it('say in which direction, how much, and how sure', () => {
    expect(verdict({ ratio: 0.5, low: 0.4, high: 0.6 }, words)).toBe('faster by 50.0 % (40.0 – 60.0)')
    expect(verdict({ ratio: 1.2, low: 1.1, high: 1.3 }, words)).toBe('slower by 20.0 % (10.0 – 30.0)')
  })

  it('say what could have been seen', () => {
    expect(verdict({ ratio: 1, low: 1 / 1.08, high: 1.08 }, words)).toBe('no difference seen (± 8.0 %)')
  })

  it('give an improvement with its interval', () => {
    expect(improvement(1_220, 210, undefined)).toBe('82.8 (no interval)')
    expect(improvement(100, 110, { ratio: 1.1, low: 0.99, high: 1.2 })).toBe('−10.0 (−20.0 – 1.0)')
  })
})

/** A table of pull times: for each image and phase the means over 8 nodes in 5 rounds, with two mirrors. */
describe('on simulated rounds', () => {
  const nodes = 8
  const rounds = 5
  const rows = 8
  const tables = 500
  let cases = 0
  const seed = printedSeed('statistics on simulated rounds')

  /** Of one round: its own factor times the mean over nodes. */
  type RoundMean = (random: Random) => number
  const noise: Record<string, RoundMean> = {
    'CV 3 %': (random) => lognormalRound(random, 0.03, 0.03),
    'CV 5 %': (random) => lognormalRound(random, 0.05, 0.05),
    'CV 8 %': (random) => lognormalRound(random, 0.08, 0.08),
    // One pull of fifty takes two to five times as long: something else woke up on the node.
    'CV 3 % with outliers': (random) =>
      lognormal(random, 0.03) *
      mean(
        Array.from({ length: nodes }, () => (random.next() < 0.02 ? 2 + 3 * random.next() : lognormal(random, 0.03))),
      ),
  }

  function lognormalRound(random: Random, roundVariation: number, nodeVariation: number): number {
    const ofNodes = Array.from({ length: nodes }, () => lognormal(random, nodeVariation))
    return lognormal(random, roundVariation) * mean(ofNodes)
  }

  /** Round factors of both mirrors are independent: the worst case, what a shared slow round adds drops out. */
  function simulated(
    roundMean: RoundMean,
    factor: number,
    way: 'paired' | 'Welch',
    rowCount: number,
    roundCount = rounds,
  ) {
    const random = seededRandom(seed + cases++)
    const level = levelPerRow(rowCount)
    let [differing, tablesDiffering] = [0, 0]
    for (let table = 0; table < tables; table++) {
      let inTable = 0
      for (let row = 0; row < rowCount; row++) {
        const baseline = Array.from({ length: roundCount }, () => roundMean(random))
        const other = Array.from({ length: roundCount }, () => factor * roundMean(random))
        const estimate =
          way === 'paired'
            ? pairedRatio(
                baseline.map((value, round) => ({ baseline: value, other: other[round] ?? 0 })),
                level,
              )
            : welchRatio(baseline, other, level)
        if (estimate !== undefined && (factor > 1 ? estimate.low > 1 : estimate.low > 1 || estimate.high < 1))
          inTable++
      }
      differing += inTable
      if (inTable > 0) tablesDiffering++
    }
    return { perRow: differing / (tables * rowCount), perTable: tablesDiffering / tables }
  }

  function print(what: string, { perRow, perTable }: { perRow: number; perTable: number }): void {
    const shown = (share: number) => `${(100 * share).toFixed(2)} %`
    process.stderr.write(`${what}: ${shown(perRow)} of rows, ${shown(perTable)} of tables\n`)
  }

  const ways = ['paired', 'Welch'] as const
  it.each(ways.flatMap((way) => Object.entries(noise).map(([name, roundMean]) => ({ way, name, roundMean }))))(
    '$way, $name: equal mirrors are seldom called different',
    ({ way, name, roundMean }) => {
      // 4,000 comparisons each; five standard errors of 500 tables are allowed on top of 5 %.
      const rates = simulated(roundMean, 1, way, rows)
      print(`false alarms, ${way}, ${name}, tables of ${rows} rows`, rates)
      expect(rates.perRow).toBeLessThanOrEqual(0.05)
      expect(rates.perTable).toBeLessThanOrEqual(0.05 + 5 * Math.sqrt((0.05 * 0.95) / tables))
    },
  )

  it.each(ways.flatMap((way) => ['CV 3 %', 'CV 5 %'].map((name) => ({ way, name }))))(
    '$way, $name: a slow-down by 20 % is found',
    ({ way, name }) => {
      const roundMean = noise[name] ?? (() => 1)
      const single = simulated(roundMean, 1.2, way, 1)
      print(`20 % slower found, ${way}, ${name}, one row`, single)
      expect(single.perRow).toBeGreaterThanOrEqual(0.9)
      const table = simulated(roundMean, 1.2, way, rows)
      print(`20 % slower found, ${way}, ${name}, tables of ${rows} rows`, table)
      expect(table.perTable).toBeGreaterThanOrEqual(0.9)
    },
  )

  it.each([5, 7])('paired, CV 5 %: a slow-down by 20 % of one image among others, in %i rounds', (roundCount) => {
    const rates = simulated(noise['CV 5 %'] ?? (() => 1), 1.2, 'paired', rows, roundCount)
    print(`20 % slower found, paired, CV 5 %, ${roundCount} rounds, tables of ${rows} rows`, rates)
    // Five rounds leave four degrees of freedom: not enough for one row of many. Seven are.
    expect(rates.perRow).toBeGreaterThanOrEqual(roundCount === 5 ? 0.5 : 0.9)
  })

  it('paired, CV 5 %: a slow-down of all images by 20 % is found in the row for all images', () => {
    const overImages: RoundMean = (random) =>
      Math.exp(mean(Array.from({ length: 4 }, () => Math.log(noise['CV 5 %']?.(random) ?? 1))))
    const level = levelPerRow(rows + 2)
    const random = seededRandom(seed)
    let found = 0
    for (let table = 0; table < tables; table++) {
      const pairs = Array.from({ length: rounds }, () => ({
        baseline: overImages(random),
        other: 1.2 * overImages(random),
      }))
      if ((pairedRatio(pairs, level)?.low ?? 0) > 1) found++
    }
    print('20 % slower found, paired, CV 5 %, all images together', {
      perRow: found / tables,
      perTable: found / tables,
    })
    expect(found / tables).toBeGreaterThanOrEqual(0.9)
  })
})
