/**
 * A node of the cluster: pid, mount, uts, ipc and network namespaces of its own, a disk of its own, and on it
 * containerd, kubelet and kube-proxy. Turning it off ends all that runs on it; its disk stays.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CriClient } from '../../src/containerd/cri.ts'
import type { Host } from '../../src/testbed/network.ts'
import { end, logTo, output, waitUntil } from '../../src/testbed/process.ts'
import type { KubernetesTools } from '../../src/testbed/tools.ts'
import type { Authority } from '../support/authority.ts'
import { flags } from './flags.ts'
import { makeCgroup, removeCgroup } from './cgroups.ts'
import { cniConfig, containerdConfig, kubeletConfig, proxyConfig } from './node-config.ts'

const initScript = fileURLToPath(new URL('node-init.sh', import.meta.url))
const startTimeoutMs = 60_000

/** As `ctr version` and Kubernetes say it: the distribution's, or the recent one that is built. */
export type Containerd = 'old' | 'new'

export interface NodeInit {
  name: string
  host: Host
  /** Of its pods, such as `10.88.1`. */
  podSubnet: string
  containerd: Containerd
  tools: KubernetesTools
  authority: Authority
  /** URL of the API server. */
  server: string
  dnsIp: string
  /** Lines for /etc/hosts. */
  hosts: readonly string[]
  sandboxImage: string
  /** Everything of the node goes below it. */
  folder: string
  /** For its pods. */
  cgroup: string
}

type Component = 'containerd' | 'kubelet' | 'kube-proxy'

export class ClusterNode {
  readonly name: string
  readonly host: Host
  /** Its root file system, also when it is off. What is mounted on it (`/run`, `/tmp`) is not seen from outside. */
  readonly disk: string
  /** Of its pods. */
  readonly cgroup: string
  readonly #init: NodeInit
  readonly #components = new Map<Component, ChildProcess>()
  #first: ChildProcess | undefined
  #cri: CriClient | undefined

  private constructor(init: NodeInit) {
    this.#init = init
    this.name = init.name
    this.host = init.host
    this.disk = join(init.folder, 'disk')
    this.cgroup = init.cgroup
  }

  /** Makes its disk. It is off. */
  static async install(init: NodeInit): Promise<ClusterNode> {
    const node = new ClusterNode(init)
    await node.#makeDisk()
    return node
  }

  /** Pulls and lists images as the kubelet would. */
  get cri(): CriClient {
    this.#cri ??= new CriClient(this.#containerdSocket)
    return this.#cri
  }

  // --- Power ---

  /** Resolves when containerd answers and the rest is started; the node is not Ready yet. */
  async boot(): Promise<void> {
    const { tools, host, folder, name } = this.#init
    await makeCgroup(this.cgroup)
    const args = [initScript, name, this.disk, tools.nodePackages, dirname(tools.nodePackages)]
    const log = openSync(join(folder, 'init.log'), 'a')
    const namespaces = ['--mount', '--propagation', 'private', '--uts', '--ipc', '--pid', '--fork', '--kill-child']
    const child = host.spawn('unshare', [...namespaces, 'bash', ...args], {
      stdio: ['ignore', 'pipe', log],
      // Ctrl-C in a terminal is for us: we turn nodes off in order.
      detached: true,
    })
    this.#first = child
    const ready = await Promise.race([once(child.stdout!, 'data').then(String), once(child, 'exit').then(() => '')])
    if (!ready.startsWith('ready'))
      throw new Error(`${name} did not boot: ${readFileSync(this.logOf('init'), 'utf8')}`)
    await this.startContainerd()
    this.startKubelet()
    const proxy = { config: '/etc/kubernetes/kube-proxy.json', 'hostname-override': name }
    this.#start('kube-proxy', [tools.kubernetes, 'kube-proxy', ...flags(proxy)])
  }

  /** As when the plug is pulled. */
  async powerOff(): Promise<void> {
    this.#cri?.close()
    this.#cri = undefined
    if (this.#first !== undefined) await end(this.#first, 'SIGKILL')
    this.#first = undefined
    this.#components.clear()
    await removeCgroup(this.cgroup)
  }

  async reboot(): Promise<void> {
    await this.powerOff()
    await this.boot()
  }

  /** Off, and its disk is gone. */
  async remove(): Promise<void> {
    await this.powerOff()
    await rm(this.#init.folder, { recursive: true, force: true })
  }

  // --- Components ---

  async startContainerd(): Promise<void> {
    const child = this.#start('containerd', ['containerd', '--config', '/etc/containerd/config.toml'])
    // Its part for the kubelet comes last, and a kubelet that starts before that ends.
    const answers = () =>
      this.cri.images().then(
        () => true,
        () => false,
      )
    await waitUntil(`containerd of ${this.name}`, answers, {
      timeoutMs: startTimeoutMs,
      child,
      log: this.logOf('containerd'),
    })
  }

  /** Containers go on without it. */
  async stopContainerd(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#cri?.close()
    this.#cri = undefined
    await this.#stop('containerd', signal)
  }

  startKubelet(): void {
    const { tools, name, host } = this.#init
    const values = {
      config: '/etc/kubernetes/kubelet.json',
      kubeconfig: '/etc/kubernetes/kubelet.kubeconfig',
      'hostname-override': name,
      'node-ip': host.ip,
    }
    this.#start('kubelet', [tools.kubernetes, 'kubelet', ...flags(values)])
  }

  async stopKubelet(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#stop('kubelet', signal)
  }

  // --- From outside ---

  /** Starts a program on the node. It ends with the node at the latest. */
  spawn(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const inside = ['--target', String(this.#pid), '--mount', '--uts', '--ipc', '--pid', '--net', '--']
    return spawn('nsenter', [...inside, command, ...args], { ...options, env: { ...process.env, PATH: this.#path } })
  }

  /** Runs a program on the node to its end. Returns what it prints. */
  run(command: string, ...args: string[]): Promise<string> {
    return output(this.spawn(command, args))
  }

  /** Puts all images of an OCI layout into containerd. */
  async importImages(layout: string): Promise<void> {
    const archive = join(this.disk, 'root/import.tar')
    await output(spawn('tar', ['-C', layout, '-cf', archive, '.']))
    await this.run('ctr', '--namespace', 'k8s.io', 'images', 'import', '/root/import.tar')
    await rm(archive)
  }

  logOf(what: Component | 'init'): string {
    return join(this.#init.folder, `${what}.log`)
  }

  // --- Inside ---

  /** Of its first process, as it is seen from outside. */
  get #pid(): number {
    if (this.#first === undefined) throw new Error(`${this.name} is off`)
    return childOf(this.#first)
  }

  /** Below /run, which is seen through the process only. */
  get #containerdSocket(): string {
    return `/proc/${this.#pid}/root/run/containerd/containerd.sock`
  }

  get #path(): string {
    const { containerd, tools } = this.#init
    const recent = [dirname(tools.containerdNew), dirname(tools.shimNew)]
    return [...(containerd === 'new' ? recent : []), '/usr/sbin', '/usr/bin'].join(':')
  }

  #start(name: Component, [command = '', ...args]: readonly string[]): ChildProcess {
    const child = this.spawn(command, args, { stdio: logTo(this.logOf(name)), detached: true })
    this.#components.set(name, child)
    return child
  }

  async #stop(name: Component, signal: NodeJS.Signals): Promise<void> {
    const child = this.#components.get(name)
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    // nsenter stays outside and waits for the program.
    process.kill(childOf(child), signal)
    await ended
  }

  async #makeDisk(): Promise<void> {
    const { name, host, podSubnet, authority, server, dnsIp, hosts, sandboxImage } = this.#init
    const emptyFolders = ['usr', 'proc', 'sys', 'dev', 'run', 'tmp', 'mnt', 'root', 'opt', 'var/log', 'var/lib']
    for (const folder of emptyFolders) await mkdir(join(this.disk, folder), { recursive: true })
    for (const folder of ['bin', 'sbin', 'lib', 'lib64']) await symlink(`usr/${folder}`, join(this.disk, folder))
    await symlink('../run', join(this.disk, 'var/run'))

    const identity = await authority.issue(name, `/O=system:nodes/CN=system:node:${name}`, [
      `IP:${host.ip}`,
      `DNS:${name}`,
    ])
    const proxy = await authority.issue(`${name}-proxy`, '/CN=system:kube-proxy')
    const files: Record<string, string> = {
      'etc/hostname': `${name}\n`,
      'etc/hosts': ['127.0.0.1 localhost', `${host.ip} ${name}`, ...hosts, ''].join('\n'),
      'etc/resolv.conf': `nameserver ${dnsIp}\n`,
      'etc/passwd': 'root:x:0:0:root:/root:/bin/bash\n',
      'etc/group': 'root:x:0:\n',
      'etc/nsswitch.conf': 'hosts: files dns\n',
      'etc/containerd/config.toml': containerdConfig(sandboxImage),
      'etc/cni/net.d/10-bridge.conflist': cniConfig(podSubnet),
      'etc/kubernetes/kubelet.json': kubeletConfig({ cgroup: this.cgroup, dnsIp }),
      'etc/kubernetes/kubelet.kubeconfig': await authority.kubeconfig(identity, server),
      'etc/kubernetes/kube-proxy.json': proxyConfig(),
      'etc/kubernetes/kube-proxy.kubeconfig': await authority.kubeconfig(proxy, server),
    }
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(this.disk, path)), { recursive: true })
      await writeFile(join(this.disk, path), text)
    }
    await mkdir(join(this.disk, 'etc/containerd/certs.d'))
    await mkdir(join(this.disk, 'etc/ssl/certs'), { recursive: true })
    await copyFile(authority.certificate, join(this.disk, 'etc/kubernetes/authority.crt'))
    await copyFile(identity.certificate, join(this.disk, 'etc/kubernetes/kubelet.crt'))
    await copyFile(identity.key, join(this.disk, 'etc/kubernetes/kubelet.key'))
    // Where Go looks for whom to trust.
    await copyFile(authority.certificate, join(this.disk, 'etc/ssl/certs/ca-certificates.crt'))
  }
}

/** The only child of a program that started one and waits for it. */
function childOf({ pid }: ChildProcess): number {
  const child = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim())
  if (!(child > 0)) throw new Error(`process ${pid} has no child`)
  return child
}
