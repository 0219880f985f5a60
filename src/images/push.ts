/** Pushes an image of a layout to a registry: blobs first, what refers to them after them, the tag last. */
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { UserError, errorCode, errorMessage } from '../lib/errors.ts'
import { parseManifest } from '../oci/manifest.ts'
import { dockerConfigPath, readDockerCredentials } from './docker-credentials.ts'
import { type Descriptor, blobPath } from './layout.ts'
import { parsePushTarget } from './push-target.ts'
import { RegistryClient } from './registry-client.ts'

/** A registry that moves a finished upload to a slow store says nothing meanwhile. */
const defaultStallTimeoutMs = 120_000
const readBytes = 256 * 1024

export interface PushInit {
  layout: string
  image: { target: Descriptor }
  /** `http://host:port/repository:tag`, or `host/repository:tag` for TLS. */
  url: string
  /** For DOCKER_CONFIG and HOME: where credentials are. */
  env: Readonly<Record<string, string | undefined>>
  onProgress?: (doneBytes: number, totalBytes: number) => void
  signal?: AbortSignal
  /** A request in which nothing moves for so long has failed. */
  stallTimeoutMs?: number
}

export interface Pushed {
  sentBytes: number
  /** Of blobs and manifests that the registry had. */
  skippedBytes: number
}

/** Throws a UserError. After a failure it can be called again: what is there is not sent twice. */
export async function pushImage(init: PushInit): Promise<Pushed> {
  try {
    return await push(init)
  } catch (error) {
    init.signal?.throwIfAborted()
    if (errorCode(error) === undefined) throw error
    throw new UserError(`cannot read the image in ${init.layout}: ${errorMessage(error)}`, { cause: error })
  }
}

async function push(init: PushInit): Promise<Pushed> {
  const target = parsePushTarget(init.url)
  const client = new RegistryClient({
    target,
    credentials: await readDockerCredentials(init.env, target.registry),
    credentialsPath: dockerConfigPath(init.env),
    stallTimeoutMs: init.stallTimeoutMs ?? defaultStallTimeoutMs,
    signal: init.signal,
  })
  const { blobs, manifests } = await contentOf(init.layout, init.image.target)
  const totalBytes = [...blobs, ...manifests].reduce((sum, { size }) => sum + size, 0)
  const pushed: Pushed = { sentBytes: 0, skippedBytes: 0 }
  const report = (runningBytes: number) =>
    init.onProgress?.(pushed.sentBytes + pushed.skippedBytes + runningBytes, totalBytes)
  const count = (sent: boolean, { size }: Descriptor) => {
    pushed[sent ? 'sentBytes' : 'skippedBytes'] += size
    report(0)
  }
  for (const blob of blobs) count(await pushBlob(client, init.layout, blob, report), blob)
  for (const manifest of manifests) {
    const name = manifest.digest === init.image.target.digest ? target.tag : manifest.digest
    count(await pushManifest(client, init.layout, manifest, name), manifest)
  }
  return pushed
}

/** Each blob and manifest once; a manifest comes after all that it names. */
async function contentOf(
  layout: string,
  target: Descriptor,
): Promise<{ blobs: Descriptor[]; manifests: Descriptor[] }> {
  const blobs = new Map<string, Descriptor>()
  const manifests = new Map<string, Descriptor>()
  const visit = async (manifest: Descriptor): Promise<void> => {
    const document = parseManifest(await readFile(blobPath(layout, manifest.digest)))
    if (document === undefined) throw new UserError(`${blobPath(layout, manifest.digest)} is not a manifest`)
    for (const child of document.manifests ?? []) await visit(child as Descriptor)
    const config = document.config === undefined ? [] : [document.config]
    for (const blob of [...config, ...(document.layers ?? [])]) blobs.set(blob.digest, blob as Descriptor)
    manifests.set(manifest.digest, manifest)
  }
  await visit(target)
  return { blobs: [...blobs.values()], manifests: [...manifests.values()] }
}

/** False when the registry has it. */
async function pushBlob(
  client: RegistryClient,
  layout: string,
  { digest }: Descriptor,
  onBytes: (sentBytes: number) => void,
): Promise<boolean> {
  const what = `blob ${digest}`
  const there = await client.ask(what, `blobs/${digest}`, { method: 'HEAD' })
  if (there.status === 200) return false
  if (there.status !== 404) throw client.unexpected(what, there)
  const begun = await client.ask(what, 'blobs/uploads/', { method: 'POST' })
  const { location } = begun.headers
  if (begun.status !== 202 || location === undefined) throw client.unexpected(what, begun)
  const path = blobPath(layout, digest)
  const body = {
    sizeBytes: (await stat(path)).size,
    open: () => {
      let sentBytes = 0
      return createReadStream(path, { highWaterMark: readBytes }).on('data', (chunk) => {
        sentBytes += chunk.length
        onBytes(sentBytes)
      })
    },
  }
  const place = `${location}${location.includes('?') ? '&' : '?'}digest=${encodeURIComponent(digest)}`
  const headers = { 'content-type': 'application/octet-stream' }
  const done = await client.ask(what, place, { method: 'PUT', headers, body })
  if (done.status !== 201) throw client.unexpected(what, done)
  return true
}

/** `name`: a tag or its digest. False when the registry has it under this name. */
async function pushManifest(
  client: RegistryClient,
  layout: string,
  { digest, mediaType }: Descriptor,
  name: string,
): Promise<boolean> {
  const what = `manifest ${name}`
  const there = await client.ask(what, `manifests/${name}`, { method: 'HEAD', headers: { accept: mediaType } })
  if (there.status === 200 && (there.headers['docker-content-digest'] ?? name) === digest) return false
  const bytes = await readFile(blobPath(layout, digest))
  const body = { sizeBytes: bytes.length, open: () => Readable.from([bytes]) }
  const done = await client.ask(what, `manifests/${name}`, {
    method: 'PUT',
    headers: { 'content-type': mediaType },
    body,
  })
  if (done.status !== 201) throw client.unexpected(what, done)
  return true
}
