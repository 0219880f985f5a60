import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { load } from '../../../../src/benchmark/analyze/load.ts'
import { goMeasurement, goSuite } from '../../../support/go-result.ts'
import { simulatedResult } from '../../../support/simulated-result.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'analyze-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

function file(name: string, content: unknown): string {
  const path = join(folder, name)
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}

const result = () =>
  simulatedResult({
    seed: 1,
    nodes: 2,
    rounds: 1,
    images: ['10MB-1'],
    mirrors: { 'spegel-ts': { create: 1, update: 1 }, none: { create: 2, update: 2 } },
  })

describe('loading', () => {
  it('takes a folder or a file, and puts the baseline first', async () => {
    const path = file('result.json', result())
    const [fromFolder] = (await load([folder])).measurements
    const [fromFile] = (await load([path])).measurements
    expect(fromFolder).toEqual(fromFile)
    expect(fromFolder).toMatchObject({
      mirrors: ['none', 'spegel-ts'],
      images: ['10MB-1'],
      nodeCount: 2,
      waveSize: 1,
    })
  })

  it('leaves other JSON files of a folder out, and says so', async () => {
    file('result.json', result())
    const other = file('package.json', { name: 'x' })
    expect((await load([folder])).leftOut).toEqual([other])
  })

  it("makes the Go tool's files the mirrors of one comparison", async () => {
    const paths = [file('b.json', goSuite('Baseline', [1_200, 1_240])), file('a.json', goSuite('Spegel', [200, 220]))]
    const [only, more] = (await load(paths)).measurements
    expect(more).toBeUndefined()
    expect(only).toMatchObject({
      mirrors: ['Baseline', 'Spegel'],
      images: ['10MB-1'],
      nodeCount: 2,
      hasRounds: false,
    })
    const update = only?.runs.find(({ mirror, phase }) => mirror === 'Spegel' && phase === 'update')
    expect(update?.measured).toMatchObject({
      started: '2024-05-01T10:00:00.000Z',
      // The second node starts after 1 s and takes 220 ms.
      duration: 1_220e6,
      pulls: [
        { node: 'sample 1', started: 0, duration: 200e6 },
        { node: 'sample 2', started: 1e9, duration: 220e6 },
      ],
    })
  })

  it("takes a single measurement of the Go tool by its image's and its file's name", async () => {
    const path = file('benchmark-1714557600.json', goMeasurement([100]))
    const [only] = (await load([path])).measurements
    expect(only).toMatchObject({ mirrors: ['benchmark-1714557600'], images: ['10MB-1'] })
  })

  it('keeps two files of one name apart', async () => {
    const paths = [file('a.json', goSuite('Spegel', [100])), file('b.json', goSuite('Spegel', [90]))]
    expect((await load(paths)).measurements[0]?.mirrors).toEqual([`Spegel (${paths[0]})`, `Spegel (${paths[1]})`])
  })
})

describe('what is no result', () => {
  const suite = () => goSuite('Spegel', [100])
  const withoutUpdate = { ...suite(), benchmarks: { '10MB-1': { create: goMeasurement([1]).create } } }
  const negative = { ...suite(), benchmarks: { '10MB-1': goMeasurement([-5]) } }
  const withoutSamples = { ...suite(), benchmarks: { '10MB-1': goMeasurement([]) } }
  const ofPull = (change: object) => {
    const changed = structuredClone(result())
    Object.assign(changed.rounds[0]?.phases.create?.pulls[0] ?? {}, change)
    return changed
  }
  const withoutPhases = () => {
    const changed = result()
    return { ...changed, rounds: changed.rounds.map((round) => ({ ...round, phases: {} })) }
  }

  it.each<[string, unknown, RegExp]>([
    ['a truncated file', JSON.stringify(result()).slice(0, 500), /not JSON, maybe cut off .*copy it again/],
    ['another version', { ...result(), schema: 'spegel-ts/benchmark/v9' }, /benchmark\/v9, this version reads .*v1/],
    [
      'a negative duration',
      ofPull({ duration: -1 }),
      /rounds\.0\.phases\.create\.pulls\.0\.duration: .*measure again/,
    ],
    ['an unknown field', { ...result(), more: 1 }, /more.*leave the file out/],
    ['no rounds', { ...result(), rounds: [] }, /no rounds.*measure again/],
    ['no phases', withoutPhases(), /no phase in any of its 4 rounds; measure again/],
    ['a foreign file', { name: 'x' }, /not a result of a benchmark: give a folder/],
    ['a list', [], /not a result of a benchmark/],
    ['null', null, /not a result of a benchmark/],
    ["the Go tool's, without a phase", withoutUpdate, /benchmarks\.10MB-1\.update: .*measure again/],
    ["the Go tool's, with a negative duration", negative, /samples\.0\.duration: .*leave the file out/],
    ["the Go tool's, without samples", withoutSamples, /create\.samples: /],
    ["the Go tool's, without benchmarks", { ...suite(), benchmarks: {} }, /benchmarks: is empty/],
  ])('%s is refused, with its path', async (_name, content, message) => {
    const path = file('some.json', content)
    await expect(load([path])).rejects.toThrow(message)
    await expect(load([path])).rejects.toThrow(`${path}: `)
  })

  it('an empty folder, one without results, and no folder are refused', async () => {
    await expect(load([folder])).rejects.toThrow(`${folder}: no result in this folder: give`)
    file('other.json', {})
    await expect(load([folder])).rejects.toThrow('no result in this folder')
    await expect(load([join(folder, 'nowhere')])).rejects.toThrow(/nowhere: ENOENT.*: give a folder/)
    await expect(load([])).rejects.toThrow('no --path')
  })
})
