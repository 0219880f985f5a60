import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { chartPresets, chartReadme, chartValues } from '../../docs/chart.ts'
import { metricSpecs } from '../../src/metrics.ts'
import { Chart, type Values, chartFolder, oldKubernetes } from '../support/chart.ts'

const read = (name: string) => readFileSync(join(chartFolder, name), 'utf8')
/** Of Spegel's chart, 0.7 and later. */
const spegelValues = readFileSync(join(import.meta.dirname, 'spegel-values.txt'), 'utf8')
  .trim()
  .split('\n')
const presets = chartPresets(join(chartFolder, 'presets'))

describe('the chart', () => {
  it('has the version of the program', () => {
    const { version } = JSON.parse(readFileSync(join(chartFolder, '../../package.json'), 'utf8')) as {
      version: string
    }
    expect(parse(read('Chart.yaml'))).toMatchObject({ version, appVersion: version })
  })

  it('has a README that is up to date (npm run docs)', () => {
    expect(chartReadme(read('README.md'), chartValues(read('values.yaml')), presets)).toBe(read('README.md'))
  })

  it('documents every value: one without a comment is an error', () => {
    expect(() => chartValues('a:\n  # is said\n  b: 1\n  c: 2\n')).toThrow('values.yaml: a.c has no comment above it')
    expect(chartValues('# file\n\na:\n  # is said\n  # in two lines\n  b: 1\n')).toEqual([
      { path: 'a.b', default: 1, help: 'is said in two lines' },
    ])
  })

  it('has no value of Spegel that is neither here nor in the table for those who move', () => {
    const known = new Set(chartValues(read('values.yaml')).map(({ path }) => path))
    const [, table = ''] = read('README.md').split('## From Spegel')
    const missing = spegelValues.filter((path) => !known.has(path) && !table.includes(`\`${path}\``))
    expect(missing).toEqual([])
  })
})

describe('a preset', () => {
  let chart: Chart
  beforeAll(async () => {
    chart = await Chart.open()
  })

  it('is there for each distribution', () => {
    expect(presets.map(({ name }) => name)).toEqual([
      'aks',
      'bottlerocket',
      'eks',
      'gke',
      'k3s',
      'kind',
      'rke2',
      'talos',
    ])
    expect(presets.map(({ state }) => state)).toEqual(presets.map(() => expect.stringMatching(/^(run|read)$/)))
  })

  it.each(readdirSync(join(chartFolder, 'presets')))('%s is taken by Kubernetes', async (file) => {
    const values = parse(read(`presets/${file}`), { version: '1.1' }) as Values
    for (const kubernetes of [oldKubernetes, '1.34.1-eks-abcdef1', '1.37.0']) {
      const rendered = await chart.render(values, { kubernetes })
      expect(rendered.text).not.toBe((await chart.render({}, { kubernetes })).text)
      expect(await chart.faults(rendered)).toEqual([])
    }
  })

  it.each<[string, string[]]>([
    [
      'k3s',
      ['/var/lib/rancher/k3s/agent/etc/containerd/certs.d', '/run/k3s/containerd', '/var/lib/rancher/k3s/agent/'],
    ],
    ['rke2', ['/var/lib/rancher/rke2/agent/etc/containerd/certs.d', '/run/k3s/containerd', '/var/lib/rancher/rke2/']],
    ['talos', ['/etc/cri/conf.d/hosts', '/run/containerd', '/var/lib/containerd/']],
    ['gke', ['/etc/containerd/hosts.d', '/run/containerd', '/var/lib/containerd/']],
  ])('%s mounts what is there', async (name, [certs, state, content]) => {
    const rendered = await chart.render(parse(read(`presets/${name}.yaml`)) as Values)
    const paths = rendered.container('registry').volumeMounts?.map(({ mountPath }) => mountPath)
    expect(paths).toEqual([state, expect.stringContaining(content ?? ''), certs, '/var/lib/spegel-ts'])
  })

  it('keeps the mirror from nodes without a host, also when it cleans up', async () => {
    for (const name of ['eks', 'aks']) {
      const rendered = await chart.render(parse(read(`presets/${name}.yaml`)) as Values)
      expect(rendered.pod('-cleanup').affinity, name).toEqual(rendered.pod().affinity)
      expect(JSON.stringify(rendered.pod().affinity), name).toMatch(/NotIn.*(fargate|virtual-kubelet)/)
    }
  })
})

describe('the dashboard', () => {
  const text = read('dashboards/spegel-ts.json')
  const { panels } = JSON.parse(text) as { panels: { id: number; title: string; targets: { expr: string }[] }[] }

  it('shows metrics that there are', () => {
    const known = new Set<string>([
      ...Object.values(metricSpecs).flatMap(({ name, type }) => (type === 'histogram' ? [`${name}_bucket`] : [name])),
      'process_resident_memory_bytes',
      'process_cpu_seconds_total',
    ])
    for (const { title, targets } of panels) {
      for (const { expr } of targets) {
        const names = [...expr.matchAll(/[a-z_]+(?=\{)/g)].map(([name]) => name)
        expect(names.length, title).toBeGreaterThan(0)
        expect(
          names.filter((name) => !known.has(name)),
          title,
        ).toEqual([])
      }
    }
  })

  it('shows each but those of HTTP in general', () => {
    const left = Object.values(metricSpecs)
      .map(({ name }) => name)
      .filter((name) => !text.includes(name))
    expect(left).toEqual([
      'spegel_advertised_image_tags',
      'spegel_advertised_image_digests',
      'http_request_duration_seconds',
      'http_response_size_bytes',
      'spegel_flight_waits_total',
      'spegel_flight_followers',
      'spegel_flights_coordinated',
      'spegel_provided_keys',
      'spegel_provider_records',
      'spegel_ts_provider_record_drops_total',
      'spegel_provide_failures_total',
    ])
  })

  it('has panels that do not cover each other', () => {
    const places = (JSON.parse(text) as { panels: { gridPos: { x: number; y: number } }[] }).panels
    expect(new Set(places.map(({ gridPos: { x, y } }) => `${x} ${y}`)).size).toBe(places.length)
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
  })
})
