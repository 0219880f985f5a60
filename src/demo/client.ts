/**
 * A client that pulls an image into an OCI layout the way containerd does: each request goes to the mirror first and
 * to upstream when the mirror says no; a body that ends early is resumed with a range, from the first host again.
 */
import { createHash, randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, readFile, rename, rm } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Digest, isDigest } from '../oci/digest.ts'
import { manifestMediaTypes, parseManifest } from '../oci/manifest.ts'
import { addToIndex, blobPath } from '../images/layout.ts'

/** As containerd's default. */
const downloadsMax = 3
/** containerd gives up after this many tries that bring no byte. */
const triesMax = 3

export interface ClientInit {
  layout: string
  /** Origins in the order of hosts.toml: the mirror, then upstream. */
  hosts: { origin: string; kind: 'mirror' | 'upstream' }[]
  registry: string
  repository: string
  tag: string
  /** Reads no faster than this. */
  bytesPerSecondMax: number
  onBytes: (kind: 'mirror' | 'upstream', bytes: number) => void
}

/** Resolves when all blobs are in the layout, verified, and the tag names them. */
export async function pullImage(init: ClientInit): Promise<void> {
  const head = await firstAnswer(init, 'HEAD', `manifests/${init.tag}`, {})
  const digest = head.response.headers['docker-content-digest']
  head.response.resume()
  if (typeof digest !== 'string' || !isDigest(digest)) throw new Error('the tag did not resolve to a digest')
  await fetchBlob(init, `manifests/${digest}`, digest)
  const bytes = await readFile(blobPath(init.layout, digest))
  const manifest = parseManifest(bytes)
  const blobs = [...(manifest?.config === undefined ? [] : [manifest.config]), ...(manifest?.layers ?? [])]
  const left = blobs.map((blob) => blob.digest as Digest)
  const downloads = Array.from({ length: downloadsMax }, async () => {
    for (let blob = left.shift(); blob !== undefined; blob = left.shift())
      await fetchBlob(init, `blobs/${blob}`, blob)
  })
  await Promise.all(downloads)
  const mediaType = manifest?.mediaType ?? 'application/vnd.oci.image.manifest.v1+json'
  const name = `${init.registry}/${init.repository}:${init.tag}`
  await addToIndex(init.layout, { mediaType, digest, size: bytes.length }, name)
}

/** Fills a file beside the layout, verifies it, renames it into place. */
async function fetchBlob(init: ClientInit, path: string, digest: Digest): Promise<void> {
  const ingest = join(init.layout, 'ingest')
  await mkdir(ingest, { recursive: true })
  await mkdir(join(init.layout, 'blobs', 'sha256'), { recursive: true })
  const temporary = join(ingest, randomUUID())
  const file = createWriteStream(temporary)
  const hash = createHash('sha256')
  try {
    let receivedBytes = 0
    for (let triesLeft = triesMax; ;) {
      const headers = receivedBytes === 0 ? {} : { range: `bytes=${receivedBytes}-` }
      const { response, kind } = await firstAnswer(init, 'GET', path, headers)
      const before = receivedBytes
      const complete = await readBody(response, init.bytesPerSecondMax, async (chunk) => {
        receivedBytes += chunk.length
        hash.update(chunk)
        init.onBytes(kind, chunk.length)
        await new Promise<void>((resolve, reject) =>
          file.write(chunk, (error) => (error ? reject(error) : resolve())),
        )
      })
      if (complete) break
      triesLeft = receivedBytes > before ? triesMax : triesLeft - 1
      if (triesLeft === 0) throw new Error(`${path} broke off ${triesMax} times at byte ${receivedBytes}`)
    }
    await new Promise<void>((resolve) => file.end(resolve))
    if (`sha256:${hash.digest('hex')}` !== digest) throw new Error(`${path} has another digest`)
    await rename(temporary, blobPath(init.layout, digest))
  } catch (error) {
    file.destroy()
    await rm(temporary, { force: true })
    throw error
  }
}

/** The first host that answers 2xx. */
async function firstAnswer(
  { hosts, registry, repository }: ClientInit,
  method: 'GET' | 'HEAD',
  path: string,
  headers: Record<string, string>,
): Promise<{ response: IncomingMessage; kind: 'mirror' | 'upstream' }> {
  const failures: string[] = []
  for (const { origin, kind } of hosts) {
    const url = `${origin}/v2/${repository}/${path}?ns=${registry}`
    try {
      const response = await send(url, method, { accept: `${manifestMediaTypes.join(', ')}, */*`, ...headers })
      const status = response.statusCode ?? 0
      if (status >= 200 && status < 300) return { response, kind }
      response.resume()
      failures.push(`${origin} answered ${status}`)
    } catch (error) {
      failures.push(`${origin}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  throw new Error(`${method} ${path}: ${failures.join('; ')}`)
}

function send(url: string, method: string, headers: Record<string, string>): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request(url, { method, headers, agent: false }, resolve).on('error', reject).end()
  })
}

/** False when the body ended before its announced length. */
async function readBody(
  response: IncomingMessage,
  bytesPerSecondMax: number,
  take: (chunk: Buffer) => Promise<void>,
): Promise<boolean> {
  const length = Number(response.headers['content-length'])
  const startedMs = performance.now()
  let receivedBytes = 0
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      receivedBytes += chunk.length
      await take(chunk)
      const dueMs = (receivedBytes / bytesPerSecondMax) * 1000 - (performance.now() - startedMs)
      if (dueMs > 1) await sleep(dueMs)
    }
  } catch (error) {
    if (receivedBytes >= length) throw error
  }
  return receivedBytes === length
}
