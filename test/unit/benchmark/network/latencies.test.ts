import { decodeFromCompressedBase64 } from 'hdr-histogram-js'
import { describe, expect, it } from 'vitest'
import { Latencies } from '../../../../src/benchmark/network/latencies.ts'

function of(...ms: number[]): Latencies {
  const latencies = new Latencies()
  for (const value of ms) latencies.recordMs(value)
  return latencies
}
const upTo = (count: number) => of(...Array.from({ length: count }, (_, index) => index + 1))

describe('latencies', () => {
  it('have percentiles within three digits', () => {
    const latencies = upTo(100_000)
    for (const [percentile, ms] of [
      [0, 1],
      [50, 50_000],
      [95, 60_000],
    ] as const) {
      const ns = latencies.percentileNs(percentile) ?? 0
      expect(Math.abs(ns / 1e6 - ms) / ms).toBeLessThanOrEqual(1e-3)
    }
    // Above a minute all are a minute.
    expect(latencies.maxNs).toBe(60e9)
    expect(latencies.count).toBe(100_000)
  })

  it.each([
    [50, 20],
    [95, 200],
    [99, 1_000],
    [99.5, 2_000],
    [99.9, 10_000],
    [99.99, 100_000],
    [99.999, 1_000_000],
  ])('have p%d from %d samples on, with ten above it', (percentile, enough) => {
    const latencies = new Latencies()
    for (let index = 0; index < enough - 1; index++) latencies.recordMs(1)
    expect(latencies.percentileNs(percentile)).toBeUndefined()
    expect(latencies.summary().percentiles.map((each) => each.percentile)).not.toContain(percentile)
    latencies.recordMs(1)
    expect(latencies.percentileNs(percentile)).toBe(1e6)
    expect(latencies.summary().percentiles.map((each) => each.percentile)).toContain(percentile)
  })

  it('of several runs are added up, the longest exactly', () => {
    const [first, second] = [upTo(100), of(...Array.from({ length: 300 }, () => 1234.567_891))]
    const merged = Latencies.merged([first.summary(), second.summary()])
    expect(merged.count).toBe(400)
    expect(merged.maxNs).toBe(1_234_567_891)
    expect(merged.percentileNs(50)).toBe(1_234_567_891)
    expect(merged.percentileNs(10)).toBeLessThan(41e6)
    expect(merged.summary().min).toBe(1e6)
  })

  it('are written as other tools read them', () => {
    const histogram = decodeFromCompressedBase64(upTo(1_000).summary().histogram)
    expect(histogram.totalCount).toBe(1_000)
    expect(Math.abs(histogram.getValueAtPercentile(50) - 500e6)).toBeLessThan(0.5e6)
  })

  it('without a sample have nothing', () => {
    expect(new Latencies().summary()).toMatchObject({ count: 0, min: 0, max: 0, percentiles: [] })
  })
})
