import { beforeAll, describe, expect, it } from 'vitest'
import { type Metrics, collectProcessMetrics, createMetrics, fromOutside, metricSpecs } from '../../src/metrics.ts'

interface Spec {
  name: string
  type: string
  labels: Readonly<Record<string, readonly string[] | typeof fromOutside>>
}
const specs: readonly Spec[] = Object.values(metricSpecs)

/** Every combination of one value per label. */
function combinations(labels: readonly (readonly [string, readonly string[]])[]): Record<string, string>[] {
  return labels.reduce<Record<string, string>[]>(
    (all, [name, values]) => all.flatMap((one) => values.map((value) => ({ ...one, [name]: value }))),
    [{}],
  )
}

describe('a metric of ours', () => {
  it('declares the values of each label, or that they come from outside', () => {
    const { registry } = createMetrics()
    const registered = registry.getMetricsAsArray() as unknown as { name: string; labelNames: string[] }[]
    expect(registered.length).toBe(specs.length)
    for (const { name, labelNames } of registered) {
      const declared = specs.find((spec) => spec.name === name)?.labels ?? {}
      expect(Object.keys(declared), name).toEqual(labelNames)
      for (const [label, values] of Object.entries(declared)) {
        if (values !== fromOutside) expect(values.length, `${name}{${label}}`).toBeGreaterThan(0)
      }
    }
  })

  it('has a series with value 0 for each combination of declared values from the start', async () => {
    const found = await createMetrics().registry.getMetricsAsJSON()
    for (const { name, type, labels } of specs) {
      const declared = Object.entries(labels)
      // A label whose values come from outside has one value from the start where it says so, see the next test.
      const fixed = declared.flatMap(([label, values]) => (values === fromOutside ? [] : [[label, values] as const]))
      if (fixed.length < declared.length) continue
      const values = found.find((metric) => metric.name === name)?.values ?? []
      for (const wanted of combinations(fixed)) {
        const counted = values.filter(
          (value) =>
            Object.entries(wanted).every(([label, text]) => value.labels[label] === text) &&
            (type !== 'histogram' || (value as { metricName?: string }).metricName === `${name}_count`),
        )
        expect(
          counted.map(({ value }) => value),
          `${name}${JSON.stringify(wanted)}`,
        ).toEqual([0])
      }
    }
  })

  it('counts requests of unknown registries from the start, so that a rate has its first burst', async () => {
    const { values } = await createMetrics().mirrorRequests.get()
    expect(values).toEqual([
      { labels: { registry: 'other', cache: 'hit' }, value: 0 },
      { labels: { registry: 'other', cache: 'miss' }, value: 0 },
    ])
  })
})

describe('the lag of the event loop', () => {
  let metrics: Metrics
  const lags = async () => {
    const all = await metrics.registry.getMetricsAsJSON()
    const value = (name: string) =>
      all.find((metric) => metric.name === `nodejs_eventloop_lag_${name}`)?.values[0]?.value ?? NaN
    const [min, max, mean, p50, p90, p99] = ['min', 'max', 'mean', 'p50', 'p90', 'p99'].map((name) =>
      value(`${name}_seconds`),
    )
    return { min, max, mean, p50, p90, p99, stddev: value('stddev_seconds') }
  }
  const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

  beforeAll(() => {
    metrics = createMetrics()
    collectProcessMetrics(metrics)
  })

  it('is close to 0 when the process is idle', async () => {
    await lags()
    await wait(1_500)
    const { min, max, mean, p50, p99 } = await lags()
    expect(min).toBeLessThan(0.01)
    expect(p50).toBeLessThan(0.02)
    expect(mean).toBeLessThan(0.05)
    // A test machine that is busy itself delays a process now and then.
    expect(p99).toBeLessThan(0.2)
    expect(max).toBeGreaterThanOrEqual(p99 ?? NaN)
  })

  it('shows a block of 300 ms as about 0.3 s, also at once after it', async () => {
    await wait(200)
    await lags()
    await wait(200)
    const untilMs = performance.now() + 300
    while (performance.now() < untilMs);
    const { max, p99, p50, stddev } = await lags()
    expect(max).toBeGreaterThan(0.24)
    expect(max).toBeLessThan(0.5)
    expect(p99).toBeGreaterThan(0.24)
    expect(p50).toBeLessThan(0.1)
    expect(stddev).toBeGreaterThan(0.02)
  })

  it('is a number at two scrapes at once', async () => {
    await lags()
    expect(Object.values(await lags()).filter((value) => value === undefined || !(value >= 0 && value < 1))).toEqual(
      [],
    )
  })
})
