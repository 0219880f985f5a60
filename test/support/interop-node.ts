/**
 * Nodes of both kinds for the interop tests, with their images in OCI layouts: our daemon, and the Go peer that stands
 * for Spegel (test/interop/go-peer).
 */
import type { ChildProcess } from 'node:child_process'
import { appendFile, mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Fetched } from '../../src/testbed/fetch.ts'
import { writeImage } from '../../src/images/image.ts'
import { blobPath, writeBlob } from '../../src/images/layout.ts'
import type { Host } from '../../src/testbed/network.ts'
import { end, logTo, waitUntil } from '../../src/testbed/process.ts'
import type { NamespaceClient } from './namespace-client.ts'

const spegel = fileURLToPath(new URL('../../bin/spegel-ts', import.meta.url))
const registry = 'registry.test'
const identityPort = 5002

/** How a node finds its first peer, in the options of either kind. `alone`: others come to it. */
export type Bootstrap = { kind: 'alone' } | { kind: 'dns' | 'http' | 'static'; source: string }

export interface InteropNodeInit {
  host: Host
  client: NamespaceClient
  folder: string
  /** Stands for the cluster's DNS: bind-mounted over /etc/hosts, for the node's program only. */
  hostsFile: string
}

/** Something that a node has, as others ask for it. */
export interface Item {
  /** Below /v2/ */
  path: string
  digest: string
  bytes: Buffer
}

/** A key, and what it stands for. */
interface Offer {
  key: string
  digest: string
}

export abstract class InteropNode {
  readonly host: Host
  readonly items: Item[] = []
  /** What it announces: digests and tags. */
  readonly keys = new Set<string>()
  protected readonly layout: string
  protected readonly dataDir: string
  readonly #init: InteropNodeInit
  readonly #log: string
  #child: ChildProcess | undefined

  constructor(init: InteropNodeInit) {
    this.#init = init
    this.host = init.host
    const folder = join(init.folder, init.host.name)
    this.layout = join(folder, 'layout')
    this.dataDir = join(folder, 'data')
    this.#log = join(init.folder, `${init.host.name}.log`)
  }

  protected abstract command(bootstrap: Bootstrap): { program: string; args: string[] }

  /** Keys that the other node has announced to this one. */
  abstract recordsOf(other: InteropNode): Promise<number>

  /** It is in the layout: to be announced from now on. */
  protected abstract offer(offers: readonly Offer[]): Promise<void>

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Address of `GET /id`. */
  get identityUrl(): string {
    return `http://${this.host.ip}:${identityPort}/id`
  }

  protected get child(): ChildProcess | undefined {
    return this.#child
  }

  async addImage(repository: string): Promise<void> {
    const name = `${registry}/${repository}:v1`
    const spec = { name, sizeBytes: 1024 * 1024, layers: 2, seed: repository, index: true }
    const image = await writeImage(this.layout, spec)
    const add = async (path: string, digest: string) =>
      this.items.push({ path: `${repository}/${path}`, digest, bytes: await readFile(this.#blob(digest)) })
    await add('manifests/v1', image.target.digest)
    for (const { digest } of [image.target, image.manifest]) await add(`manifests/${digest}`, digest)
    for (const { digest } of [image.config, ...image.layers]) await add(`blobs/${digest}`, digest)
    const digests = [image.target, image.manifest, image.config, ...image.layers].map(({ digest }) => digest)
    await this.#offer([
      ...digests.map((digest) => ({ key: digest, digest })),
      { key: name, digest: image.target.digest },
    ])
  }

  /** Tiny ones: for what it takes to announce them. */
  async addBlobs(count: number): Promise<void> {
    const written = Array.from({ length: count }, (_, number) =>
      writeBlob(this.layout, Buffer.from(`${this.host.name} ${number}`)),
    )
    await this.#offer((await Promise.all(written)).map(({ digest }) => ({ key: digest, digest })))
  }

  async #offer(offers: readonly Offer[]): Promise<void> {
    for (const { key } of offers) this.keys.add(key)
    await this.offer(offers)
  }

  /** Until it has found a peer, or if it starts alone, until it answers. */
  async start(bootstrap: Bootstrap): Promise<void> {
    const { hostsFile, client } = this.#init
    const { program, args } = this.command(bootstrap)
    const mounted = ['--mount', 'sh', '-c', 'mount --bind "$0" /etc/hosts && exec "$@"', hostsFile, program, ...args]
    const child = this.host.spawn('unshare', mounted, { stdio: logTo(this.#log) })
    this.#child = child
    const probe = `http://${this.host.ip}:5000/${bootstrap.kind === 'alone' ? 'livez' : 'readyz'}`
    const answers = async () => (await client.ask(probe)).status === 200
    await waitUntil(this.host.name, answers, { timeoutMs: 30_000, child, log: this.#log })
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child !== undefined) await end(this.#child, signal)
    this.#child = undefined
  }

  /** Asks the node's mirror for content, as containerd does. */
  ask(path: string, init: { method?: string; headers?: Record<string, string> } = {}): Promise<Fetched> {
    return this.#init.client.ask(`http://${this.host.ip}:5000/v2/${path}?ns=${registry}`, init)
  }

  /** Who it says it is. */
  async identity(): Promise<{ ID: string; Addrs: string[] }> {
    return [JSON.parse(await this.page(identityPort, 'id'))].flat()[0] as { ID: string; Addrs: string[] }
  }

  /** Something else that it serves. */
  protected async page(port: number, path: string): Promise<string> {
    const { body } = await this.#init.client.ask(`http://${this.host.ip}:${port}/${path}`)
    return body.toString()
  }

  /** Its log, parsed. */
  async lines(): Promise<Record<string, unknown>[]> {
    const text = await readFile(this.#log, 'utf8')
    return text
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  #blob(digest: string): string {
    return blobPath(this.layout, digest as `sha256:${string}`)
  }
}

export class OurNode extends InteropNode {
  protected override command(bootstrap: Bootstrap): { program: string; args: string[] } {
    const sourceFlag = {
      dns: '--dns-bootstrap-domain',
      http: '--http-bootstrap-url',
      static: '--static-bootstrap-peers',
    }
    const first =
      bootstrap.kind === 'alone'
        ? ['--bootstrap-kind', 'static']
        : ['--bootstrap-kind', bootstrap.kind, sourceFlag[bootstrap.kind], bootstrap.source]
    const identity = ['--http-bootstrap-addr', `:${identityPort}`]
    const args = ['registry', '--oci-layout', this.layout, '--data-dir', this.dataDir, ...identity, ...first]
    return { program: spegel, args }
  }

  /** Does not tell whose they are: true as long as there are two nodes. */
  override async recordsOf(): Promise<number> {
    return Number(/^spegel_provider_records (\d+)$/m.exec(await this.page(9090, 'metrics'))?.[1])
  }

  /** It watches its layout. */
  protected override offer(): Promise<void> {
    return Promise.resolve()
  }
}

export class GoNode extends InteropNode {
  readonly #program: string
  /** Answers `GET /id` with an array, as newer versions of Spegel do. */
  identityArray = false

  constructor(program: string, init: InteropNodeInit) {
    super(init)
    this.#program = program
  }

  protected override command(bootstrap: Bootstrap): { program: string; args: string[] } {
    const first =
      bootstrap.kind === 'alone' ? [] : [`--bootstrap-kind=${bootstrap.kind}`, `--bootstrap=${bootstrap.source}`]
    const args = [
      `--blobs=${join(this.layout, 'blobs/sha256')}`,
      `--keys=${this.#keysFile}`,
      `--data-dir=${this.dataDir}`,
      `--id-addr=:${identityPort}`,
      ...(this.identityArray ? ['--id-array'] : []),
      ...first,
    ]
    return { program: this.#program, args }
  }

  override async recordsOf(other: InteropNode): Promise<number> {
    const { ID } = await other.identity()
    const query = new URLSearchParams({ of: ID })
    for (const key of other.keys) query.append('key', key)
    return Number(await this.page(identityPort, `records?${query.toString()}`))
  }

  /** Where it would look for the other node. */
  async addressesOf(other: InteropNode): Promise<string[]> {
    const { ID } = await other.identity()
    return JSON.parse(await this.page(identityPort, `addresses?of=${ID}`)) as string[]
  }

  /** What it was asked: by which address, and the X-Spegel-Mirrored of the question. */
  async questions(): Promise<{ by: string; mirrored: string }[]> {
    return (await this.lines())
      .filter(({ msg }) => msg === 'asked')
      .map(({ by, 'X-Spegel-Mirrored': mirrored }) => ({
        by: String(by).replace(/:\d+$/, ''),
        mirrored: String(mirrored),
      }))
  }

  protected override async offer(offers: readonly Offer[]): Promise<void> {
    await mkdir(this.layout, { recursive: true })
    await appendFile(this.#keysFile, offers.map(({ key, digest }) => `${key} ${digest}\n`).join(''))
    this.child?.kill('SIGHUP')
  }

  get #keysFile(): string {
    return join(this.layout, '..', 'keys')
  }
}
