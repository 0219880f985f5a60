/**
 * Writes OCI image layouts with images made from a seed: the same arguments give the same bytes, incompressible, in
 * constant memory. For the demo and the tests.
 */
import { createCipheriv, createHash, randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { crc32 } from 'node:zlib'
import { writeFileAtomic } from '../lib/atomic-file.ts'
import { type Digest, digestOf } from '../oci/digest.ts'

const MiB = 1024 * 1024

interface Descriptor {
  mediaType: string
  digest: Digest
  size: number
}

export interface ImageSpec {
  /** `registry/repository:tag` */
  name: string
  sizeBytes: number
  layers: number
  seed: string
  /** Docker's image manifest v2 schema 2 instead of OCI's. */
  docker?: boolean
  /** An index around the manifest, as multi-platform images have. */
  index?: boolean
}

export interface WrittenImage {
  /** What the tag stands for: the manifest, or the index around it. */
  target: Descriptor
  manifest: Descriptor
  config: Descriptor
  layers: Descriptor[]
}

interface IndexEntry extends Descriptor {
  annotations?: Record<string, string>
}

const nameAnnotation = 'io.containerd.image.name'

const mediaTypes = {
  oci: {
    layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
    config: 'application/vnd.oci.image.config.v1+json',
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    index: 'application/vnd.oci.image.index.v1+json',
  },
  docker: {
    layer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
    config: 'application/vnd.docker.container.image.v1+json',
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    index: 'application/vnd.docker.distribution.manifest.list.v2+json',
  },
}

/** Adds the image to the layout folder, which is made if it is not there. */
export async function writeImage(layout: string, spec: ImageSpec): Promise<WrittenImage> {
  const types = spec.docker === true ? mediaTypes.docker : mediaTypes.oci
  await mkdir(join(layout, 'blobs', 'sha256'), { recursive: true })
  const layers: Descriptor[] = []
  const diffIds: Digest[] = []
  for (let number = 0; number < spec.layers; number++) {
    const { blob, diffId } = await writeLayer(layout, spec, number)
    layers.push({ mediaType: types.layer, ...blob })
    diffIds.push(diffId)
  }
  const config = await writeJson(layout, types.config, {
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['/none'] },
    rootfs: { type: 'layers', diff_ids: diffIds },
  })
  const manifest = await writeJson(layout, types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config,
    layers,
  })
  const target =
    spec.index === true
      ? await writeJson(layout, types.index, {
          schemaVersion: 2,
          mediaType: types.index,
          manifests: [{ ...manifest, platform: { architecture: 'amd64', os: 'linux' } }],
        })
      : manifest
  await addToIndex(layout, target, spec.name)
  return { target, manifest, config, layers }
}

/** Puts bytes in place the way stores do: filled elsewhere, then renamed. */
export async function writeBlob(layout: string, bytes: Uint8Array): Promise<{ digest: Digest; size: number }> {
  const digest = digestOf(bytes)
  await mkdir(join(layout, 'blobs', 'sha256'), { recursive: true })
  await writeFileAtomic(blobPath(layout, digest), Buffer.from(bytes), 0o644)
  return { digest, size: bytes.byteLength }
}

export function blobPath(layout: string, digest: Digest): string {
  return join(layout, 'blobs', ...digest.split(':'))
}

/** Names a manifest or index that is in the layout. */
export function addToIndex(layout: string, target: Descriptor, name: string): Promise<void> {
  return changeIndex(layout, name, [{ ...target, annotations: { [nameAnnotation]: name } }])
}

/** Takes the name away; blobs stay. */
export function removeFromIndex(layout: string, name: string): Promise<void> {
  return changeIndex(layout, name, [])
}

async function changeIndex(layout: string, name: string, entries: IndexEntry[]): Promise<void> {
  const path = join(layout, 'index.json')
  const text = await readFile(path, 'utf8').catch(() => '{"schemaVersion":2,"manifests":[]}')
  const index = JSON.parse(text) as { manifests: IndexEntry[] }
  index.manifests = [...index.manifests.filter((entry) => entry.annotations?.[nameAnnotation] !== name), ...entries]
  await writeFileAtomic(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}', 0o644)
  await writeFileAtomic(path, JSON.stringify(index), 0o644)
}

/** Endless reproducible bytes that do not compress, in pieces of 1 MiB. */
function* seededBytes(seed: string): Generator<Buffer> {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16)
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  const zeros = Buffer.alloc(MiB)
  for (;;) yield cipher.update(zeros)
}

async function writeJson(layout: string, mediaType: string, document: unknown): Promise<Descriptor> {
  return { mediaType, ...(await writeBlob(layout, Buffer.from(JSON.stringify(document)))) }
}

async function writeLayer(
  layout: string,
  spec: ImageSpec,
  number: number,
): Promise<{ blob: { digest: Digest; size: number }; diffId: Digest }> {
  const bytes = Math.floor(spec.sizeBytes / spec.layers)
  const tarHash = createHash('sha256')
  const blobHash = createHash('sha256')
  let size = 0
  const temporary = join(layout, 'blobs', 'sha256', `.${randomUUID()}.tmp`)
  function* counted() {
    for (const part of gzipStored(tapped(tar(`layer-${number}`, bytes, `${spec.seed}/${number}`), tarHash))) {
      blobHash.update(part)
      size += part.length
      yield part
    }
  }
  try {
    await pipeline(
      Readable.from(counted(), { objectMode: false, highWaterMark: 4 * MiB }),
      createWriteStream(temporary),
    )
    const digest: Digest = `sha256:${blobHash.digest('hex')}`
    await rename(temporary, blobPath(layout, digest))
    return { blob: { digest, size }, diffId: `sha256:${tarHash.digest('hex')}` }
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

function* tapped(parts: Iterable<Buffer>, hash: { update: (part: Buffer) => unknown }): Generator<Buffer> {
  for (const part of parts) {
    hash.update(part)
    yield part
  }
}

/** A tar archive of one file (POSIX ustar). */
function* tar(name: string, bytes: number, seed: string): Generator<Buffer> {
  yield tarHeader(name, bytes)
  let leftBytes = bytes
  for (const part of seededBytes(seed)) {
    if (leftBytes === 0) break
    const used = part.subarray(0, Math.min(part.length, leftBytes))
    leftBytes -= used.length
    yield used
  }
  yield Buffer.alloc(((512 - (bytes % 512)) % 512) + 1024)
}

function tarHeader(name: string, bytes: number): Buffer {
  const header = Buffer.alloc(512)
  const octal = (value: number, width: number) => `${value.toString(8).padStart(width - 1, '0')}\0`
  header.write(name, 0)
  header.write(octal(0o644, 8), 100)
  header.write(octal(0, 8), 108)
  header.write(octal(0, 8), 116)
  header.write(octal(bytes, 12), 124)
  header.write(octal(0, 12), 136)
  header.write(' '.repeat(8), 148)
  header.write('0', 156)
  header.write('ustar\x0000', 257)
  header.write(
    `${octal(
      header.reduce((sum, byte) => sum + byte, 0),
      7,
    )} `,
    148,
  )
  return header
}

/** gzip with stored blocks (RFC 1951 §3.2.4): no compressor whose next version might give other bytes. */
function* gzipStored(parts: Iterable<Buffer>): Generator<Buffer> {
  yield Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])
  let checksum = 0
  let bytes = 0
  for (const part of parts) {
    checksum = crc32(part, checksum)
    bytes += part.length
    const pieces: Buffer[] = []
    for (let at = 0; at < part.length; at += 0xffff) {
      const piece = part.subarray(at, at + 0xffff)
      pieces.push(storedHeader(piece.length, false), piece)
    }
    yield Buffer.concat(pieces)
  }
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(checksum, 0)
  trailer.writeUInt32LE(bytes % 2 ** 32, 4)
  yield Buffer.concat([storedHeader(0, true), trailer])
}

function storedHeader(length: number, last: boolean): Buffer {
  const header = Buffer.alloc(5)
  header.writeUInt8(last ? 1 : 0, 0)
  header.writeUInt16LE(length, 1)
  header.writeUInt16LE(0xffff - length, 3)
  return header
}
