/** A real registry (docker-registry) on a host of the test-bed, filled from OCI layouts, with its access log. */
import type { ChildProcess } from 'node:child_process'
import { copyFile, link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Digest } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import { fetchFrom } from './fetch.ts'
import type { WrittenImage } from '../images/image.ts'
import { blobPath } from '../images/layout.ts'
import type { Host } from './network.ts'
import { end, logTo, waitUntil } from './process.ts'

const usualPort = 5000

export interface AccessLogEntry {
  client: string
  method: string
  path: string
  status: number
  bytes: number
}

/** An answer with status 2xx or 3xx. */
export interface TimedAnswer {
  client: string
  method: string
  path: string
  /** Of this machine's clock. */
  startedMs: number
  endedMs: number
}

export interface RegistryOptions {
  /** Lines of who may ask it, with bcrypt; without them: everybody. */
  htpasswd?: string
  /** Who may ask it is said by a token service at this URL, which calls itself so and signs with this certificate. */
  tokens?: { url: string; service: string; certificate: string }
  /** Another one than usual, when something else is to be asked in its place. */
  port?: number
  /** HTTPS: paths of its certificate and key, and of who signed it. */
  tls?: { certificate: string; key: string; authority: string }
}

export class RegistryProcess {
  readonly url: string
  readonly #host: Host
  readonly #binary: string
  readonly #folder: string
  readonly #options: RegistryOptions
  readonly #port: number
  #child: ChildProcess | undefined

  constructor(host: Host, binary: string, folder: string, options: RegistryOptions = {}) {
    this.#host = host
    this.#binary = binary
    this.#folder = folder
    this.#options = options
    this.#port = options.port ?? usualPort
    this.url = `${options.tls === undefined ? 'http' : 'https'}://${host.ip}:${this.#port}`
  }

  async start(): Promise<void> {
    const { htpasswd, tokens, tls } = this.#options
    await mkdir(join(this.#folder, 'data'), { recursive: true })
    const config = join(this.#folder, 'config.yml')
    const users = join(this.#folder, 'htpasswd')
    if (htpasswd !== undefined) await writeFile(users, htpasswd)
    const signers = join(this.#folder, 'signers.pem')
    if (tokens !== undefined) await writeFile(signers, tokens.certificate)
    await writeFile(
      config,
      `version: 0.1
log: { level: info, accesslog: { disabled: false } }
storage: { filesystem: { rootdirectory: ${join(this.#folder, 'data')} } }
http: { addr: ${this.#host.ip}:${this.#port}${tls === undefined ? '' : `, tls: { certificate: ${tls.certificate}, key: ${tls.key} }`} }
${htpasswd === undefined ? '' : `auth: { htpasswd: { realm: testbed, path: ${users} } }`}
${
  tokens === undefined
    ? ''
    : `auth: { token: { realm: "${tokens.url}", service: ${tokens.service}, issuer: ${tokens.service}, rootcertbundle: ${signers} } }`
}
`,
    )
    const child = this.#host.spawn(this.#binary, ['serve', config], { stdio: logTo(this.#log) })
    this.#child = child
    const ready = htpasswd === undefined && tokens === undefined ? 200 : 401
    const trusted = tls === undefined ? {} : { authority: tls.authority }
    const answers = async () => (await fetchFrom(this.#host, `${this.url}/v2/`, trusted)).status === ready
    await waitUntil('docker-registry', answers, { timeoutMs: 60_000, child, log: this.#log })
  }

  async stop(): Promise<void> {
    if (this.#child !== undefined) await end(this.#child)
  }

  /**
   * Puts an image of a layout into the registry's storage, by links to its blobs: instant, also while it runs.
   * The image's tag is the part of its name after the registry.
   */
  async place(layout: string, image: Pick<WrittenImage, 'target'>, repository: string, tag: string): Promise<void> {
    const root = join(this.#folder, 'data', 'docker/registry/v2')
    const repositoryRoot = join(root, 'repositories', repository)
    const addBlob = async (digest: Digest) => {
      const hex = digest.replace('sha256:', '')
      const target = join(root, 'blobs/sha256', hex.slice(0, 2), hex, 'data')
      await mkdir(dirname(target), { recursive: true })
      await link(blobPath(layout, digest), target).catch(() => copyFile(blobPath(layout, digest), target))
      await writeLink(join(repositoryRoot, '_layers/sha256', hex, 'link'), digest)
    }
    const addManifest = async (digest: Digest): Promise<void> => {
      await addBlob(digest)
      await writeLink(
        join(repositoryRoot, '_manifests/revisions/sha256', digest.replace('sha256:', ''), 'link'),
        digest,
      )
      const document = parseManifest(await readFile(blobPath(layout, digest)))
      for (const child of document?.manifests ?? []) await addManifest(child.digest as Digest)
      for (const child of [
        ...(document?.layers ?? []),
        ...(document?.config === undefined ? [] : [document.config]),
      ]) {
        await addBlob(child.digest as Digest)
      }
    }
    const { digest } = image.target
    await addManifest(digest)
    await writeLink(join(repositoryRoot, '_manifests/tags', tag, 'current/link'), digest)
    await writeLink(
      join(repositoryRoot, '_manifests/tags', tag, 'index/sha256', digest.replace('sha256:', ''), 'link'),
      digest,
    )
  }

  /** Forgets all images. It reads its storage anew for each request, so it may run. */
  async clear(): Promise<void> {
    await rm(join(this.#folder, 'data', 'docker'), { recursive: true, force: true })
  }

  /** Requests so far, probes of the test-bed excepted. */
  requests(): AccessLogEntry[] {
    const lines = readFileSync(this.#log, 'utf8').matchAll(
      /^(\S+) - - \[[^\]]*\] "(GET|HEAD) (\S+) HTTP\/1\.[01]" (\d+) (\d+)/gm,
    )
    return [...lines].flatMap(([, client = '', method = '', path = '', status, bytes]) =>
      path === '/v2/' ? [] : [{ client, method, path, status: Number(status), bytes: Number(bytes) }],
    )
  }

  /** Good answers that have ended so far, in the order in which they ended. */
  answers(): TimedAnswer[] {
    const lines = readFileSync(this.#log, 'utf8')
      .split('\n')
      .filter((line) => line.includes('msg="response completed"'))
    return lines.map((line) => {
      const field = (name: string) => new RegExp(String.raw`\b${name}="?([^" ]*)`).exec(line)?.[1] ?? ''
      const endedMs = Date.parse(field('time'))
      return {
        client: field(String.raw`http\.request\.remoteaddr`).replace(/:\d+$/, ''),
        method: field(String.raw`http\.request\.method`),
        path: field(String.raw`http\.request\.uri`),
        startedMs: endedMs - durationMs(field(String.raw`http\.response\.duration`)),
        endedMs,
      }
    })
  }

  get #log(): string {
    return join(this.#folder, 'log')
  }
}

async function writeLink(path: string, digest: Digest): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, digest)
}

const unitMs: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1, µs: 1e-3, ns: 1e-6 }

/** As Go writes it: `1m2.5s`, `5.155867ms`. */
function durationMs(text: string): number {
  const parts = [...text.matchAll(/([\d.]+)(h|ms|m|s|µs|ns)/g)]
  return parts.reduce((sum, [, value, unit = '']) => sum + Number(value) * (unitMs[unit] ?? 0), 0)
}
