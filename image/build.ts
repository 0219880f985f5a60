/**
 * Builds the image of the Dockerfile for amd64 and arm64 into an OCI layout, without Docker and without an image registry:
 * with Buildah of the distribution, on bases made from its packages. The same sources, packages and versions of tools give
 * the same digests.
 */
import { execFile } from 'node:child_process'
import { cp, mkdir, readFile, readdir, rename, rm } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { type Descriptor, addToIndex, blobPath, writeJson } from '../src/images/layout.ts'
import { mediaTypes } from '../src/images/media-types.ts'
import { type Architecture, architectures } from '../src/images/wait-program.ts'
import { UserError } from '../src/lib/errors.ts'
import { buildRuntimeBase, buildToolsBase, certificatesFolder } from './bases.ts'
import { Buildah } from './buildah.ts'
import { prepareBuildah } from './debian.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')

export interface BuiltImage {
  /** The index of both platforms. */
  target: Descriptor
  manifests: Record<Architecture, Descriptor>
}

/** Replaces what is in `layout`. `name`: of the image in the layout, `registry/repository:tag`. Throws a UserError. */
export async function buildImage(layout: string, name: string, say: (line: string) => void): Promise<BuiltImage> {
  if (process.getuid?.() !== 0) throw new UserError('building the image needs root, to mount its file systems')
  if (existsSync(layout) && (await readdir(layout)).length > 0 && !existsSync(join(layout, 'oci-layout'))) {
    throw new UserError(`${layout} holds something else than an OCI layout: name another folder`)
  }
  const buildah = await Buildah.create(await prepareBuildah(say))
  try {
    say('building base images from packages of the distribution')
    const tools = await buildToolsBase(buildah, say)
    const work = join(buildah.folder, 'image')
    const manifests = {} as Record<Architecture, Descriptor>
    for (const architecture of architectures) {
      const runtime = await buildRuntimeBase(buildah, architecture, say)
      say(`building for ${architecture}`)
      const values = {
        BUILD_IMAGE: tools.name,
        RUNTIME_IMAGE: runtime.name,
        // Which Buildah 1.28 does not know where a stage names its platform.
        BUILDPLATFORM: `linux/${tools.architecture}`,
        COMMIT: await commit(),
      }
      await buildah.build(root, [
        // Layers as the Dockerfile has them; and the stage that both platforms share is built once.
        '--layers',
        '--platform',
        `linux/${architecture}`,
        '--tag',
        architecture,
        ...Object.entries(values).flatMap(([key, value]) => ['--build-arg', `${key}=${value}`]),
        ...(await volumes()).flatMap((volume) => ['--volume', volume]),
      ])
      await buildah.save(architecture, join(buildah.folder, architecture))
      manifests[architecture] = await takeOver(join(buildah.folder, architecture), work)
    }
    const target = await writeJson(work, mediaTypes.oci.index, {
      schemaVersion: 2,
      mediaType: mediaTypes.oci.index,
      manifests: architectures.map((architecture) => ({
        ...manifests[architecture],
        platform: { architecture, os: 'linux' },
      })),
    })
    await addToIndex(work, target, name)
    await replace(layout, work)
    return await readImage(layout)
  } finally {
    await buildah.close()
  }
}

/** What `buildImage` wrote. */
export async function readImage(layout: string): Promise<BuiltImage> {
  const [target] = await readIndex(join(layout, 'index.json'))
  if (target === undefined) throw new Error(`${layout} has no image`)
  const [amd64, arm64] = await readIndex(blobPath(layout, target.digest))
  if (amd64 === undefined || arm64 === undefined) throw new Error(`${layout} has no image for both platforms`)
  return { target, manifests: { amd64, arm64 } }
}

async function readIndex(path: string): Promise<Descriptor[]> {
  return (JSON.parse(await readFile(path, 'utf8')) as { manifests: Descriptor[] }).manifests
}

/** What npm needs of this machine: who is trusted, its settings, and what it downloaded before. */
async function volumes(): Promise<string[]> {
  const npmCache = join(root, '.cache/npm')
  await mkdir(npmCache, { recursive: true })
  const wanted = [
    { from: certificatesFolder, options: 'ro' },
    { from: join(homedir(), '.npmrc'), to: '/root/.npmrc', options: 'ro' },
    { from: npmCache, to: '/root/.npm', options: 'rw' },
  ]
  return wanted
    .filter(({ from }) => existsSync(from))
    .map(({ from, to = from, options }) => `${from}:${to}:${options}`)
}

/** Moves the one image of a layout into another. */
async function takeOver(from: string, to: string): Promise<Descriptor> {
  const [manifest] = await readIndex(join(from, 'index.json'))
  if (manifest === undefined) throw new Error(`${from} has no image`)
  await cp(join(from, 'blobs'), join(to, 'blobs'), { recursive: true })
  return { mediaType: mediaTypes.oci.manifest, digest: manifest.digest, size: manifest.size }
}

async function replace(layout: string, work: string): Promise<void> {
  await mkdir(dirname(layout), { recursive: true })
  const partial = `${layout}.${process.pid}`
  await cp(work, partial, { recursive: true })
  await rm(layout, { recursive: true, force: true })
  await rename(partial, layout)
}

async function commit(): Promise<string> {
  const { stdout } = await run('git', ['-C', root, 'rev-parse', '--short=12', 'HEAD']).catch(() => ({
    stdout: 'unknown',
  }))
  return stdout.trim()
}

/** Bytes that a node downloads for one platform. */
export async function downloadBytes(layout: string, manifest: Descriptor): Promise<number> {
  const { layers } = JSON.parse(await readFile(blobPath(layout, manifest.digest), 'utf8')) as { layers: Descriptor[] }
  return layers.reduce((sum, { size }) => sum + size, 0)
}
