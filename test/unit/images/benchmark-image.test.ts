import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gunzipSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type BenchmarkImageSpec, writeBenchmarkImage } from '../../../src/images/benchmark-image.ts'
import { blobPath } from '../../../src/images/layout.ts'
import { waitProgram } from '../../../src/images/wait-program.ts'
import { UserError } from '../../../src/lib/errors.ts'
import type { Digest } from '../../../src/oci/digest.ts'
import { printedSeed } from '../../support/seed.ts'

const KiB = 1024
const MiB = 1024 * KiB
const peakMiBMax = 200

const run = promisify(execFile)
const writer = join(import.meta.dirname, '../../support/write-image-process.ts')

describe('a benchmark image', () => {
  let layout: string
  beforeEach(async () => (layout = await mkdtemp(join(tmpdir(), 'images-'))))
  afterEach(() => rm(layout, { recursive: true, force: true }))

  const write = (spec: Partial<BenchmarkImageSpec> = {}) =>
    writeBenchmarkImage(layout, { name: 'r.test/b:v1', sizeBytes: 256 * KiB, layers: 2, seed: 's', ...spec })
  const json = async (digest: Digest) => JSON.parse(await readFile(blobPath(layout, digest), 'utf8')) as unknown

  it('has the same digests each time, blobs that fit them, and the size and layers that were asked for', async () => {
    const specs = fc.record({
      sizeBytes: fc.integer({ min: 128 * KiB, max: 3 * MiB }),
      layers: fc.integer({ min: 1, max: 7 }),
      seed: fc.string(),
      sharedLayers: fc.integer({ min: 0, max: 1 }),
    })
    const property = fc.asyncProperty(specs, async (spec) => {
      const image = await write(spec)
      expect(await write(spec)).toEqual(image)
      expect(image.layers).toHaveLength(spec.layers)
      const sizeBytes = image.layers.reduce((sum, { size }) => sum + size, 0)
      expect(Math.abs(sizeBytes - spec.sizeBytes)).toBeLessThan(spec.layers * KiB + spec.sizeBytes / 1000)
      for (const { digest, size } of [image.target, ...image.manifests, ...image.configs, ...image.layers]) {
        const bytes = await readFile(blobPath(layout, digest))
        expect(bytes).toHaveLength(size)
        expect(`sha256:${createHash('sha256').update(bytes).digest('hex')}`).toBe(digest)
      }
    })
    await fc.assert(property, { numRuns: 15, seed: printedSeed('benchmark image') })
  })

  it('is an index of both platforms, whose layers are the same blobs and whose programs differ', async () => {
    const { target, manifests, configs, layers } = await write()
    expect(await json(target.digest)).toMatchObject({
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [
        { ...manifests[0], platform: { architecture: 'amd64', os: 'linux' } },
        { ...manifests[1], platform: { architecture: 'arm64', os: 'linux' } },
      ],
    })
    const archives = await Promise.all(
      layers.map(async ({ digest }) => gunzipSync(await readFile(blobPath(layout, digest)))),
    )
    const diffIds = archives.map((archive) => `sha256:${createHash('sha256').update(archive).digest('hex')}`)
    for (const [index, architecture] of ['amd64', 'arm64'].entries()) {
      expect(await json(manifests[index]?.digest ?? 'sha256:')).toMatchObject({ config: configs[index], layers })
      expect(await json(configs[index]?.digest ?? 'sha256:')).toMatchObject({
        architecture,
        os: 'linux',
        config: { Entrypoint: [`/wait-${architecture}`] },
        rootfs: { type: 'layers', diff_ids: diffIds },
      })
    }
    const blobs = await readdir(join(layout, 'blobs/sha256'))
    expect(blobs).toHaveLength(1 + 2 + 2 + layers.length)
  })

  it('has archives that tar reads, with both programs in the first layer', async () => {
    const { layers } = await write()
    const files = []
    for (const { digest } of layers) {
      const { stdout } = await run('tar', ['--numeric-owner', '-tvzf', blobPath(layout, digest)])
      files.push(
        ...stdout
          .trim()
          .split('\n')
          .map((line) => line.split(/\s+/)),
      )
    }
    const programs = ['amd64', 'arm64'] as const
    expect(files.map((columns) => [columns[0], columns.at(-1)])).toEqual([
      ...programs.map((name) => ['-rwxr-xr-x', `wait-${name}`]),
      ['-rw-r--r--', 'data-0'],
      ['-rw-r--r--', 'data-1'],
    ])
    const first = blobPath(layout, layers[0]?.digest ?? 'sha256:')
    for (const name of programs) {
      const { stdout } = await run('tar', ['-xOzf', first, `wait-${name}`], { encoding: 'buffer' })
      expect(stdout).toEqual(waitProgram(name))
    }
  })

  it('does not compress', async () => {
    const { layers } = await write({ sizeBytes: MiB, layers: 1 })
    const archive = gunzipSync(await readFile(blobPath(layout, layers[0]?.digest ?? 'sha256:')))
    expect(gzipSync(archive).length).toBeGreaterThan(archive.length * 0.98)
  })

  it('shares the layers that it should with another seed, and no others', async () => {
    const digests = async (spec: Partial<BenchmarkImageSpec>) =>
      (await write({ sizeBytes: MiB, layers: 4, ...spec })).layers.map(({ digest }) => digest)
    const one = await digests({ seed: '1', sharedLayers: 2 })
    const two = await digests({ seed: '2', sharedLayers: 2 })
    expect(one.map((digest, index) => digest === two[index])).toEqual([true, true, false, false])
    const all = [
      ...(await digests({ seed: '1' })),
      ...(await digests({ seed: '2' })),
      ...(await digests({ seed: '2', sizeBytes: MiB / 2, layers: 2 })),
      ...(await digests({ seed: '2', sizeBytes: MiB / 2, layers: 2, sharedLayers: 2 })),
      ...one,
    ]
    expect(new Set(all).size).toBe(4 + 4 + 2 + 2 + 2)
  })

  it('says how far it is', async () => {
    const done: number[] = []
    await write({ sizeBytes: 4 * MiB, onProgress: (doneBytes, totalBytes) => done.push(doneBytes / totalBytes) })
    expect(done).toEqual(done.toSorted((a, b) => a - b))
    expect(done.length).toBeGreaterThan(3)
    expect(done.at(-1)).toBeCloseTo(1, 2)
  })

  it('leaves nothing half-written when it is aborted', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    const onProgress = () => controller.abort(reason)
    const writing = write({ sizeBytes: 64 * MiB, layers: 1, onProgress, signal: controller.signal })
    await expect(writing).rejects.toBe(reason)
    expect(await readdir(join(layout, 'blobs/sha256'))).toEqual([])
  })

  it.each([
    [{ layers: 0 }, /number of layers must be 1 to 127/],
    [{ layers: 128, sizeBytes: 128 * MiB }, /number of layers must be 1 to 127/],
    [{ sharedLayers: 3 }, /shared layers must be 0 to 2/],
    [{ sizeBytes: 20 * KiB }, /too few: a layer has at least 16384/],
    [{ sizeBytes: 32 * 1024 * MiB }, /too many: a layer has at most/],
  ])('is refused in one line: %j', async (spec, message) => {
    const writing = write(spec)
    await expect(writing).rejects.toThrow(UserError)
    await expect(writing).rejects.toThrow(message)
  })

  it('says where it cannot write', async () => {
    const file = join(layout, 'file')
    await writeFile(file, '')
    const writing = writeBenchmarkImage(file, { name: 'a/b:c', sizeBytes: MiB, layers: 1, seed: '' })
    await expect(writing).rejects.toThrow(`cannot write the image a/b:c to ${file}: ENOTDIR`)
    await expect(writing).rejects.toThrow(UserError)
  })

  it(`of 1 GB takes less than ${peakMiBMax} MiB of memory`, { timeout: 120_000 }, async () => {
    const { stdout } = await run(process.execPath, [writer, layout, 'v1-1GB-1'])
    const { peakMiB } = JSON.parse(stdout) as { peakMiB: number }
    process.stderr.write(`1 GB: peak ${peakMiB.toFixed(0)} MiB\n`)
    expect(peakMiB).toBeLessThan(peakMiBMax)
  })
})
