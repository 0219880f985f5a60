import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BlobWatch } from '../../../src/benchmark/local/blob-watch.ts'
import { readLayoutImage } from '../../../src/benchmark/local/layout-image.ts'
import { mirrorAnswers } from '../../../src/benchmark/local/mirror-log.ts'
import { fillPlaceholders } from '../../../src/benchmark/local/mirrors.ts'
import { findPrograms } from '../../../src/benchmark/local/programs.ts'
import { floor } from '../../../src/benchmark/local/pull-phase.ts'
import { usedBetween } from '../../../src/benchmark/local/usage.ts'
import { countRequests } from '../../../src/benchmark/local/requests.ts'
import { imageSet, suiteImageSets } from '../../../src/benchmark/measure/images.ts'
import { busyPercentMax, memoryWarning, noiseOf, stealPercentMax } from '../../../src/benchmark/measure/noise.ts'
import type { Phase } from '../../../src/benchmark/result/schema.ts'
import { writeBenchmarkImage } from '../../../src/images/benchmark-image.ts'

const MiB = 2 ** 20

describe('the local target', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'spegel-ts-local-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  it('says everything that is missing at once', () => {
    expect(() => findPrograms({ containerds: ['/no/containerd'], registry: undefined }, folder, false)).toThrow(
      /needs root \(.*; ip: install iproute2; .*--containerd \/no\/containerd: not an executable file; a registry: install docker-registry/,
    )
  })

  it('takes programs from PATH', async () => {
    for (const name of ['ip', 'tc', 'nsenter', 'unshare', 'containerd', 'registry']) {
      await writeFile(join(folder, name), '')
      await chmod(join(folder, name), 0o755)
    }
    expect(findPrograms({ containerds: [], registry: undefined }, `/nowhere:${folder}`, true)).toEqual({
      containerds: [join(folder, 'containerd')],
      registry: join(folder, 'registry'),
    })
  })

  it('fills placeholders, and names those that exist', () => {
    const values = { ip: '10.0.0.1', data: '/d' }
    expect(fillPlaceholders('run --at {ip} --in {data}/{ip}', values)).toBe('run --at 10.0.0.1 --in /d/10.0.0.1')
    expect(() => fillPlaceholders('run {nodes}', values)).toThrow('--mirror: {nodes} is not one of {ip} {data}')
  })

  it('knows how fast the links allow it at best', () => {
    const links = { upstream: 25e6, upstreamSingle: 25e6, nodeOut: 125e6, nodeIn: 125e6 }
    expect(floor(links, 100e6, 8)).toBe(4)
    // One connection gets less than the link.
    expect(floor({ ...links, upstreamSingle: 10e6 }, 100e6, 8)).toBe(10)
    // A slow way into the nodes.
    expect(floor({ ...links, nodeIn: 5e6 }, 100e6, 8)).toBe(20)
    // What all can send together: 8 × 100 MB over 25 + 8 × 10 MB/s.
    expect(floor({ ...links, upstream: 100e6, upstreamSingle: 100e6, nodeOut: 10e6 }, 100e6, 8)).toBeCloseTo(
      800 / 180,
    )
  })

  it('knows what processes used, unless one of them ended', () => {
    const before = [{ pid: 1, seconds: 5 }, undefined, { pid: 3, seconds: 100 }]
    expect(usedBetween(before, [{ pid: 1, seconds: 6 }, undefined, { pid: 3, seconds: 102 }])).toBe(3)
    expect(usedBetween(before, [{ pid: 1, seconds: 6 }, undefined, { pid: 4, seconds: 1 }])).toBeUndefined()
    expect(usedBetween(before, [{ pid: 1, seconds: 6 }, undefined, undefined])).toBeUndefined()
  })

  it('tells kinds of requests apart', () => {
    const entry = (path: string, status = 200) => ({ client: '', method: 'GET', path, status, bytes: 0 })
    const counts = countRequests([
      entry('/v2/a/manifests/v1'),
      entry(`/v2/a/manifests/sha256:${'0'.repeat(64)}?ns=b`),
      entry(`/v2/a/blobs/sha256:${'0'.repeat(64)}`),
      entry(`/v2/a/blobs/sha256:${'1'.repeat(64)}`),
      entry(`/v2/a/blobs/sha256:${'1'.repeat(64)}`, 429),
      entry('/v2/_catalog'),
    ])
    expect(counts.map(({ kind, status, count }) => `${count} ${kind} ${status}`)).toEqual([
      '1 tag 200',
      '1 manifest 200',
      '2 blob 200',
      '1 blob 429',
      '1 other 200',
    ])
  })

  it('reads what a node pulls of a layout', async () => {
    const layout = join(folder, 'layout')
    const image = await writeBenchmarkImage(layout, { name: 'a/b:c', sizeBytes: MiB, layers: 2, seed: 's' })
    const read = await readLayoutImage(layout, 'arm64')
    expect(read.target).toBe(image.target.digest)
    expect(read.blobs.map(({ digest, isLayer }) => `${digest} ${isLayer}`)).toEqual([
      `${image.target.digest} false`,
      `${image.manifests[1]?.digest} false`,
      `${image.configs[1]?.digest} false`,
      ...image.layers.map(({ digest }) => `${digest} true`),
    ])
    await expect(readLayoutImage(layout, 'riscv64')).rejects.toThrow('it has nothing for riscv64')
    await expect(readLayoutImage(folder)).rejects.toThrow(`${folder}: not a layout of one image`)
  })

  it('sees a blob the moment that it is in place', async () => {
    const digest = `sha256:${'a'.repeat(64)}` as const
    let nowMs = 5
    const watch = new BlobWatch(folder, () => nowMs)
    try {
      expect(watch.has(digest)).toBe(false)
      await writeFile(join(folder, 'blobs/sha256', 'a'.repeat(64)), '')
      await expect.poll(() => watch.arrivedMs(digest)).toBe(5)
      nowMs = 9
      await rm(join(folder, 'blobs/sha256', 'a'.repeat(64)))
      expect([watch.arrivedMs(digest), watch.has(digest)]).toEqual([5, false])
    } finally {
      watch.close()
    }
  })

  it('reads when the mirror had the first byte, and passes over other lines', async () => {
    const log = join(folder, 'log')
    const at = (time: string) => ({ key: 'k', method: 'GET', time, ms: 100, firstByteMs: 20 })
    const lines = [at('2026-01-01T00:00:00.000Z'), at('2026-01-01T00:00:01.000Z'), { firstByteMs: 'x' }]
    await writeFile(log, `nginx: started\n{"firstByteMs\n${lines.map((line) => JSON.stringify(line)).join('\n')}\n`)
    expect(mirrorAnswers(log, Date.parse('2026-01-01T00:00:00.500Z'))).toEqual([
      { key: 'k', firstByteSincePhaseMs: 420 },
    ])
  })
})

describe('what is measured', () => {
  it('are two images, made anew or from layouts', () => {
    expect(imageSet('v1-10MB-4', 'v2-10MB-4')).toMatchObject({
      name: '10MB-4',
      create: [{ kind: 'generated', sizeBytes: 10 * MiB, layers: 4 }],
    })
    expect(() => imageSet('v1-10MB-4', 'latest')).toThrow('--images: "latest" is not a benchmark image')
    expect(suiteImageSets(false).map(({ name }) => name)).toEqual(['10MB-1', '10MB-4', '100MB-1', '100MB-4'])
    expect(suiteImageSets(true)).toHaveLength(6)
  })

  it('is doubtful when the machine was busy or robbed, and says what would help', () => {
    const phase = (busyPercent: number, stealPercent: number) => ({ cpu: { busyPercent, stealPercent } }) as Phase
    expect(noiseOf({ create: phase(busyPercentMax, stealPercentMax), update: undefined })).toEqual([])
    expect(noiseOf({ create: phase(90, 3) })).toEqual([
      'create: the host took 3.0 % of the CPU',
      'create: the CPU was 90 % busy: fewer --nodes, a lower --upstream-rate or a lower --node-rate would help',
    ])
    expect(memoryWarning([imageSet('v1-1GB-1', 'v2-1GB-1')], 8, 24)).toContain('moves 36 GiB, the machine has 24 GiB')
    expect(memoryWarning([imageSet('v1-10MB-1', 'v2-10MB-1')], 8, 24)).toBeUndefined()
  })
})
