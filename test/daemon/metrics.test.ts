import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DaemonGroup } from '../support/daemons.ts'
import { type Series, emptySelectors, parseScrape } from '../support/promql.ts'

const chart = join(import.meta.dirname, '../../charts/spegel-ts')
const group = new DaemonGroup()
let text: string
let series: Series[]

const { panels } = JSON.parse(readFileSync(join(chart, 'dashboards/spegel-ts.json'), 'utf8')) as {
  panels: { title: string; targets: { expr: string }[] }[]
}
const queries = panels.flatMap(({ title, targets }) => targets.map(({ expr }) => ({ title, expr })))
/** The first column of the README's table of alerts. */
const alerts = [
  ...readFileSync(join(chart, 'README.md'), 'utf8').matchAll(/^\| `(spegel_[^`]+|\w+\(spegel_[^`]+)`/gm),
]
  .map(([, expression = '']) => expression.replaceAll('\\|', '|'))
  .filter((expression) => /[=<>]/.test(expression))

beforeAll(async () => {
  const daemon = await group.start({ mirroredRegistries: ['reg.test'] })
  text = await (await fetch(`${daemon.metricsUrl}/metrics`)).text()
  series = parseScrape(text)
})
afterAll(() => group.close())

describe('an idle daemon that just started', () => {
  it('has data for every query of the dashboard', () => {
    expect(queries.length).toBeGreaterThanOrEqual(22)
    const missing = queries.flatMap(({ title, expr }) =>
      emptySelectors(expr.replaceAll('$job', '.*'), series, { job: 'spegel-ts', pod: 'p' }).map(
        (selector) => `${title}: ${selector}`,
      ),
    )
    expect(missing).toEqual([])
  })

  it('has no query of the dashboard that drops its series by a comparison', () => {
    const dropping = queries.filter(({ expr }) => /[<>]|[=!]=(?!~)/.test(expr.replaceAll(/\{[^}]*\}/g, '')))
    expect(dropping).toEqual([])
  })

  it('has the series of every recommended alert, so that an increase from 0 is seen', () => {
    expect(alerts.length).toBeGreaterThanOrEqual(5)
    expect(alerts.flatMap((alert) => emptySelectors(alert, series, {}))).toEqual([])
  })

  it('has each value that a matcher of an alert names', () => {
    const named = alerts.flatMap((alert) =>
      [...alert.matchAll(/(\w+)(?:\{(\w+)=~?"([^"]+)"\})/g)].flatMap(([, name = '', label = '', values = '']) =>
        values.split('|').map((value) => ({ name, label, value })),
      ),
    )
    expect(named.length).toBeGreaterThan(2)
    for (const { name, label, value } of named) {
      expect(
        series.filter((one) => one.name === name && one.labels[label] === value).map((one) => one.value),
        `${name}{${label}="${value}"}`,
      ).toEqual([0])
    }
  })

  it('counts requests of a configured registry from 0', () => {
    const counted = series.filter(
      ({ name, labels }) => name === 'spegel_mirror_requests_total' && labels['registry'] === 'reg.test',
    )
    expect(counted.map(({ labels, value }) => [labels['cache'], value])).toEqual([
      ['hit', 0],
      ['miss', 0],
    ])
  })

  it('reports each series once', () => {
    const names = series.map(({ name, labels }) => `${name}${JSON.stringify(labels)}`)
    expect(new Set(names).size).toBe(names.length)
  })
})
