/**
 * A node of the test-bed: a real containerd on a host with its own folders, asked over CRI as a kubelet would, and our
 * daemon beside it.
 */
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ContainerdClient } from '../containerd/client.ts'
import { CriClient } from '../containerd/cri.ts'
import { statusFrom } from './fetch.ts'
import type { Host } from './network.ts'
import { end, logTo, output, runningPid, waitUntil } from './process.ts'

const spegel = fileURLToPath(new URL('../../bin/spegel-ts', import.meta.url))

export interface NodeInit {
  host: Host
  containerd: string
  /** Everything of the node goes below it. */
  folder: string
  /** More lines for containerd's config.toml. */
  extraConfig?: string
  /** Paths of further files that containerd reads. */
  imports?: readonly string[]
  /** Where it finds its shim and runc; without them pods cannot be run. */
  programFolders?: readonly string[]
}

/** Name of the image that holds a pod's namespaces: has to be imported before a pod is run. */
export const pauseImage = 'spegel-ts.test/pause:v1'

export class ContainerdNode {
  readonly host: Host
  readonly folder: string
  readonly socket: string
  readonly contentPath: string
  readonly certsFolder: string
  readonly #init: NodeInit
  #containerd: ChildProcess | undefined
  #daemon: ChildProcess | undefined
  #cri: CriClient | undefined

  constructor(init: NodeInit) {
    this.#init = init
    this.host = init.host
    this.folder = init.folder
    this.socket = join(init.folder, 'state/containerd.sock')
    this.contentPath = join(init.folder, 'root/io.containerd.content.v1.content')
    this.certsFolder = join(init.folder, 'certs.d')
  }

  get cri(): CriClient {
    this.#cri ??= new CriClient(this.socket)
    return this.#cri
  }

  get daemonLog(): string {
    return join(this.folder, 'spegel-ts.log')
  }

  get containerd(): ChildProcess {
    if (this.#containerd === undefined) throw new Error('containerd was not started')
    return this.#containerd
  }

  get daemon(): ChildProcess {
    if (this.#daemon === undefined) throw new Error('the daemon was not started')
    return this.#daemon
  }

  // --- containerd ---

  async startContainerd(): Promise<void> {
    for (const name of ['root', 'state', 'certs.d']) await mkdir(join(this.folder, name), { recursive: true })
    const config = join(this.folder, 'config.toml')
    await writeFile(config, this.#config())
    const log = join(this.folder, 'containerd.log')
    // Mounts as systemd leaves them: those that containers see come and go with the node's.
    const args = ['--mount', '--propagation', 'shared', this.#init.containerd, '--config', config]
    const path = [...(this.#init.programFolders ?? []), process.env['PATH']].join(':')
    const child = this.host.spawn('unshare', args, {
      stdio: logTo(log),
      env: { ...process.env, PATH: path },
      // Ctrl-C in a terminal is for us: we end containerd when everything else has ended.
      detached: true,
    })
    this.#containerd = child
    const client = new ContainerdClient(this.socket, 'k8s.io')
    try {
      const answers = async () => existsSync(this.socket) && (await client.version()) !== ''
      await waitUntil('containerd', answers, { timeoutMs: 60_000, child, log })
    } finally {
      client.close()
    }
  }

  /** Such as `containerd 2.3.4`. */
  async runtimeVersion(): Promise<string> {
    const client = new ContainerdClient(this.socket, 'k8s.io')
    try {
      return `containerd ${(await client.version()).replace(/^v/, '')}`
    } finally {
      client.close()
    }
  }

  /** The pid is nsenter's, which becomes containerd. */
  get containerdPid(): number | undefined {
    return runningPid(this.#containerd)
  }

  async stopContainerd(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#containerd !== undefined) await end(this.#containerd, signal)
  }

  /** How much of a blob containerd has taken so far; 0 when it is not fetching it. */
  async ingestBytes(digest: string): Promise<number> {
    const ingests = join(this.contentPath, 'ingest')
    for (const name of await readdir(ingests).catch(() => [])) {
      const ref = await readFile(join(ingests, name, 'ref'), 'utf8').catch(() => '')
      if (!ref.endsWith(digest)) continue
      return stat(join(ingests, name, 'data')).then(
        ({ size }) => size,
        () => 0,
      )
    }
    return 0
  }

  // --- Our daemon ---

  /** Writes hosts.toml as a user would: asks the mirror first, then `upstream`. */
  async configure(
    registry: string,
    options: readonly string[] = [],
    target = 'http://127.0.0.1:5000',
  ): Promise<void> {
    await this.spegel([
      'configuration',
      '--containerd-registry-config-path',
      this.certsFolder,
      '--containerd-sock',
      this.socket,
      '--mirrored-registries',
      registry,
      '--mirror-targets',
      target,
      ...options,
    ])
  }

  /** Runs a command of ours on this node to its end. */
  async spegel(args: readonly string[]): Promise<void> {
    const log = join(this.folder, 'commands.log')
    const child = this.host.spawn(spegel, args, { stdio: logTo(log) })
    const code = await new Promise((resolve) => child.once('exit', resolve))
    if (code !== 0)
      throw new Error(`spegel-ts ${args.join(' ')} ended with ${String(code)}: ${await readFile(log, 'utf8')}`)
  }

  async startDaemon(peers: readonly string[], options: readonly string[] = []): Promise<void> {
    const args = [
      'registry',
      '--containerd-sock',
      this.socket,
      '--containerd-content-path',
      this.contentPath,
      '--containerd-registry-config-path',
      this.certsFolder,
      '--data-dir',
      join(this.folder, 'data'),
      '--bootstrap-kind',
      'static',
      ...(peers.length === 0 ? [] : ['--static-bootstrap-peers', ...peers]),
      ...options,
    ]
    this.#daemon = this.host.spawn(spegel, args, { stdio: logTo(this.daemonLog) })
    await this.waitReady()
  }

  /** Until /readyz answers 200. */
  async waitReady(): Promise<void> {
    const probe = async () => (await statusFrom(this.host, 5000, '/readyz')) === 200
    await waitUntil('spegel-ts', probe, { timeoutMs: 60_000, child: this.daemon, log: this.daemonLog })
  }

  async stopDaemon(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#daemon !== undefined) await end(this.#daemon, signal)
  }

  /** The daemon's log lines, parsed. */
  async daemonLines(): Promise<Record<string, unknown>[]> {
    const text = await readFile(this.daemonLog, 'utf8')
    return text
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  /** Runs ctr against this node, from its network. Returns what it prints. */
  async ctr(binary: string, args: readonly string[]): Promise<string> {
    return output(this.host.spawn(binary, ['--address', this.socket, '--namespace', 'k8s.io', ...args]))
  }

  /** Everything down; the folder is gone. */
  async remove(): Promise<void> {
    this.#cri?.close()
    await this.stopDaemon()
    await this.stopContainerd()
    await rm(this.folder, { recursive: true, force: true })
  }

  /** Version 2 is understood by 1.6 to 2.3. */
  #config(): string {
    const disabled = ['btrfs', 'zfs', 'devmapper', 'aufs', 'blockfile', 'erofs'].map(
      (name) => `"io.containerd.snapshotter.v1.${name}"`,
    )
    return `version = 2
imports = ${JSON.stringify(this.#init.imports ?? [])}
root = "${join(this.folder, 'root')}"
state = "${join(this.folder, 'state')}"
disabled_plugins = [${disabled.join(', ')}, "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "${this.socket}"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.internal.v1.opt"]
  path = "${join(this.folder, 'opt')}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "${pauseImage}"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "${this.certsFolder}"
${this.#init.extraConfig ?? ''}
`
  }
}
