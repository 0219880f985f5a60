/** Writes into an OCI image layout (image-layout.md): blobs under their digests, names in `index.json`. */
import { createHash, randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { writeFileAtomic } from '../lib/atomic-file.ts'
import { expecting, isNotFound } from '../lib/errors.ts'
import { makeDirectory } from '../lib/make-directory.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { gzipStored } from './gzip.ts'

export interface Descriptor {
  mediaType: string
  digest: Digest
  size: number
}

interface IndexEntry extends Descriptor {
  annotations?: Record<string, string>
}

export interface WrittenLayer {
  blob: { digest: Digest; size: number }
  /** Of the archive before compression, for the image's configuration. */
  diffId: Digest
}

const nameAnnotation = 'io.containerd.image.name'
const bufferedBytesMax = 1 * 1024 * 1024

export function blobPath(layout: string, digest: Digest): string {
  return join(layout, 'blobs', ...digest.split(':'))
}

/** Puts bytes in place the way stores do: filled elsewhere, then renamed. */
export async function writeBlob(layout: string, bytes: Uint8Array): Promise<{ digest: Digest; size: number }> {
  const digest = digestOf(bytes)
  await makeBlobFolder(layout)
  await writeFileAtomic(blobPath(layout, digest), Buffer.from(bytes), 0o644)
  return { digest, size: bytes.byteLength }
}

export async function writeJson(layout: string, mediaType: string, document: unknown): Promise<Descriptor> {
  return { mediaType, ...(await writeBlob(layout, Buffer.from(JSON.stringify(document)))) }
}

/** Compresses an archive into a blob as it comes, in constant memory. */
export async function writeLayer(
  layout: string,
  archive: Iterable<Buffer>,
  options: { onBytes?: (bytes: number) => void; signal?: AbortSignal } = {},
): Promise<WrittenLayer> {
  const tarHash = createHash('sha256')
  const blobHash = createHash('sha256')
  let size = 0
  await makeBlobFolder(layout)
  const temporary = join(layout, 'blobs', 'sha256', `.${randomUUID()}.tmp`)
  function* counted() {
    for (const part of gzipStored(tapped(archive, tarHash))) {
      blobHash.update(part)
      size += part.length
      options.onBytes?.(part.length)
      yield part
    }
  }
  try {
    await pipeline(
      Readable.from(counted(), { objectMode: false, highWaterMark: bufferedBytesMax }),
      createWriteStream(temporary),
      options.signal === undefined ? {} : { signal: options.signal },
    )
    const digest: Digest = `sha256:${blobHash.digest('hex')}`
    await rename(temporary, blobPath(layout, digest))
    return { blob: { digest, size }, diffId: `sha256:${tarHash.digest('hex')}` }
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
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
  const text = await readFile(path, 'utf8').catch(expecting(isNotFound, '{"schemaVersion":2,"manifests":[]}'))
  const index = JSON.parse(text) as { manifests: IndexEntry[] }
  index.manifests = [...index.manifests.filter((entry) => entry.annotations?.[nameAnnotation] !== name), ...entries]
  await writeFileAtomic(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}', 0o644)
  await writeFileAtomic(path, JSON.stringify(index), 0o644)
}

async function makeBlobFolder(layout: string): Promise<void> {
  await makeDirectory(join(layout, 'blobs', 'sha256'))
}

function* tapped(parts: Iterable<Buffer>, hash: { update: (part: Buffer) => unknown }): Generator<Buffer> {
  for (const part of parts) {
    hash.update(part)
    yield part
  }
}
