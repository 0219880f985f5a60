import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { load } from '../../../src/benchmark/analyze/load.ts'
import { exportGoSuites, goSuites } from '../../../src/benchmark/result/go-tool-files.ts'
import { parseGoResult } from '../../../src/benchmark/result/go-tool.ts'
import { writeResult } from '../../../src/benchmark/result/result-file.ts'
import type { Phase, Result, Round } from '../../../src/benchmark/result/schema.ts'
import { publishedSuite } from '../../support/published-suites.ts'
import { simulatedResult } from '../../support/simulated-result.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'go-tool-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const meanSeconds = ({ pulls }: Phase) => pulls.reduce((sum, { duration }) => sum + duration, 0) / pulls.length / 1e9

describe('the published results', () => {
  // As the project's own graphs have them: mean of create, mean and wall time of the update.
  it.each([
    ['Baseline', '10MB-1', 3.41, 1.29, 11.1],
    ['Baseline', '100MB-4', 3.11, 2.1, 15.6],
    ['Baseline', '1GB-1', 25.78, 11.16, 61.0],
    ['Spegel v0.3.0', '10MB-4', 1.72, 0.41, 7.1],
    ['Spegel v0.3.0', '100MB-1', 3.46, 1.15, 11.4],
    ['Spegel v0.3.0', '1GB-4', 12.24, 5.27, 31.3],
  ] as const)('are read: %s, %s', (name, image, create, update, wall) => {
    const { benchmarks, nodes } = parseGoResult(JSON.parse(JSON.stringify(publishedSuite(name))), 'suite.json')
    const phases = benchmarks.find((benchmark) => benchmark.image === image)?.phases
    expect(nodes).toHaveLength(10)
    expect(phases?.create.pulls).toHaveLength(10)
    expect(meanSeconds(phases!.create)).toBeCloseTo(create, 1)
    expect(meanSeconds(phases!.update)).toBeCloseTo(update, 1)
    expect(phases!.update.duration / 1e9).toBeCloseTo(wall, 1)
  })

  it('are compared as two mirrors', async () => {
    const paths = (['Baseline', 'Spegel v0.3.0'] as const).map((name) => {
      const path = join(folder, `${name}.json`)
      writeFileSync(path, JSON.stringify(publishedSuite(name)))
      return path
    })
    const [measurements] = (await load(paths)).measurements
    expect(measurements).toMatchObject({ mirrors: ['Baseline', 'Spegel v0.3.0'], nodeCount: 10, waveSize: 2 })
    expect(measurements?.runs).toHaveLength(2 * 6 * 2)
  })
})

describe('files for the Go tool', () => {
  /** A published suite, as this tool would have measured it. */
  function measuredAs(name: 'Baseline' | 'Spegel v0.3.0'): Result {
    const { benchmarks } = parseGoResult(publishedSuite(name), 'suite.json')
    const { nodes: _nodes, ...set } = simulatedResult({ seed: 1, nodes: 1, rounds: 1, images: [], mirrors: {} }).set
    return {
      ...simulatedResult({ seed: 1, nodes: 1, rounds: 1, images: [], mirrors: {} }),
      set: {
        ...set,
        kubernetes: 'v1.33.0',
        nodes: Array.from({ length: 10 }, (_, index) => ({
          name: `aks-worker-12854129-vmss00000${index}`,
          runtime: 'containerd 1.7',
          instanceType: 'Standard_D8ds_v5',
          cpu: '8',
          memory: '32863240Ki',
        })),
      },
      mirrors: [{ name }],
      images: benchmarks.map(({ image }) => ({ name: image, create: [], update: [] })),
      rounds: benchmarks.map(({ image, phases }): Round => ({
        number: 1,
        attempt: 1,
        image,
        mirror: name,
        position: 1,
        started: '2025-06-13T19:03:26.000Z',
        counts: true,
        noise: [],
        phases,
      })),
    }
  }

  it.each(['Baseline', 'Spegel v0.3.0'] as const)('hold what the published ones do: %s', (name) => {
    const [suite] = goSuites(measuredAs(name))
    const published = publishedSuite(name)
    const read = (document: unknown) => parseGoResult(JSON.parse(JSON.stringify(document)), 'suite.json')
    expect(read(suite).benchmarks).toEqual(read(published).benchmarks)
    expect(read(suite).kubernetesVersion).toBe('v1.33.0')
    expect(suite?.nodes[0]).toEqual({
      name: 'aks-worker-12854129-vmss000000',
      instanceType: 'Standard_D8ds_v5',
      memory: 33_651_957_760,
      cpu: 8,
    })
    // The same words, in the same order.
    const keysOf = (value: unknown): unknown =>
      Array.isArray(value)
        ? keysOf(value[0])
        : typeof value === 'object' && value !== null
          ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, keysOf(inner)]))
          : typeof value
    expect(JSON.stringify(keysOf(suite))).toBe(JSON.stringify(keysOf(published)))
  })

  it('are one for each mirror, named as that tool does, of good rounds only', async () => {
    const result = simulatedResult({
      seed: 1,
      nodes: 4,
      rounds: 2,
      images: ['10MB-1'],
      mirrors: { none: { create: 2, update: 2 }, 'Spegel v0.3.0': { create: 1, update: 1 } },
      noisyRounds: [2],
    })
    await writeResult(folder, result)
    const files = await exportGoSuites(folder, join(folder, 'go'))
    expect(files.map((path) => basename(path))).toEqual(['none.json', 'spegel-v030.json'])
    const suite = parseGoResult(JSON.parse(readFileSync(files[0] ?? '', 'utf8')), 'none.json')
    // Two rounds that count, four nodes.
    expect(suite.benchmarks[0]?.phases.create.pulls).toHaveLength(8)
  })

  it('are refused of what is no result', async () => {
    await expect(exportGoSuites(folder, folder)).rejects.toThrow(/has no result.json/)
  })
})
