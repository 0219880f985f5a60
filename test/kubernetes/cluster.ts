/**
 * A Kubernetes cluster on this machine: control plane, nodes with a containerd and a kubelet each, DNS, and a registry
 * behind a link of its own as everybody's upstream. Nothing of it is seen in the machine's own network.
 */
import type { ChildProcess } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { basename, delimiter, join, relative } from 'node:path'
import {
  type BenchmarkImage,
  type BenchmarkImageSpec,
  writeBenchmarkImage,
} from '../../src/images/benchmark-image.ts'
import type { Descriptor } from '../../src/images/layout.ts'
import { errorMessage } from '../../src/lib/errors.ts'
import { type Host, Network } from '../../src/testbed/network.ts'
import { output, waitUntil } from '../../src/testbed/process.ts'
import { RegistryProcess } from '../../src/testbed/registry-process.ts'
import { type KubernetesTools, prepareKubernetesTools } from '../../src/testbed/tools.ts'
import { type ClusterApi, hasCondition } from './api.ts'
import { Authority } from '../support/authority.ts'
import { removeCgroup } from './cgroups.ts'
import { ControlPlane, serverOf } from './control-plane.ts'
import { clusterFolderPrefix, removeLeftClusters } from './down.ts'
import { writeBusyboxImage } from './images.ts'
import { ClusterNode, type Containerd } from './node.ts'

/** What nodes call the registry, over HTTPS. The public names lead to it too, so that charts work as they are. */
const registryName = 'registry.test'
const publicRegistryNames = ['ghcr.io', 'docker.io', 'registry-1.docker.io']
const sandboxImage = `${registryName}/wait:sandbox`
/** In every node from the start. */
export const busyboxImage = `${registryName}/busybox:1`

const podSubnets = '10.88'
const serviceSubnet = '10.96.0'
const readyTimeoutMs = 120_000

export interface ClusterInit {
  nodes: number
  /** Of the nodes in turn. */
  containerd?: readonly Containerd[]
  /** What the registry's link carries, as tc writes rates; without it: what the machine can. */
  upstreamRate?: string
}

interface Parts {
  folder: string
  tools: KubernetesTools
  network: Network
  authority: Authority
  upstreamHost: Host
  upstream: RegistryProcess
  controlPlane: ControlPlane
}

export class Cluster {
  readonly folder: string
  readonly tools: KubernetesTools
  readonly upstream: RegistryProcess
  readonly upstreamHost: Host
  readonly controlPlane: ControlPlane
  readonly nodes: ClusterNode[] = []
  readonly #network: Network
  readonly #authority: Authority
  readonly #containerd: readonly Containerd[]
  #nodesMade = 0

  private constructor(parts: Parts, containerd: readonly Containerd[]) {
    this.folder = parts.folder
    this.tools = parts.tools
    this.upstream = parts.upstream
    this.upstreamHost = parts.upstreamHost
    this.controlPlane = parts.controlPlane
    this.#network = parts.network
    this.#authority = parts.authority
    this.#containerd = containerd
  }

  /** Resolves when all nodes are Ready. */
  static async start({ nodes, containerd = ['old', 'new'], upstreamRate }: ClusterInit): Promise<Cluster> {
    const tools = await prepareKubernetesTools((line) => process.stderr.write(`set-up: ${line}\n`))
    await removeLeftClusters()
    const folder = await mkdtemp(clusterFolderPrefix())
    const network = await Network.create()
    const authority = await Authority.create(join(folder, 'authority'))
    const upstreamHost = await network.addHost('upstream')
    if (upstreamRate !== undefined) await upstreamHost.setRate(upstreamRate)
    const names = [registryName, ...publicRegistryNames].map((name) => `DNS:${name}`)
    const serving = await authority.issue('upstream', '/CN=upstream', [`IP:${upstreamHost.ip}`, ...names])
    const upstream = new RegistryProcess(upstreamHost, tools.registry, join(folder, 'upstream'), {
      port: 443,
      tls: { ...serving, authority: authority.certificate },
    })
    const controlPlane = new ControlPlane({
      host: await network.addHost('control'),
      tools,
      authority,
      folder: join(folder, 'control'),
      serviceSubnet,
    })
    const parts = { folder, tools, network, authority, upstreamHost, upstream, controlPlane }
    const cluster = new Cluster(parts, containerd)
    try {
      await cluster.#linkPrograms()
      await cluster.#writeBaseImages()
      const installed: ClusterNode[] = []
      for (let count = 0; count < nodes; count++) installed.push(await cluster.#installNode())
      // All, also when one fails: nothing starts any more while it is stopped again.
      const started = await Promise.allSettled([
        upstream.start(),
        controlPlane.start(),
        ...installed.map((node) => cluster.#bootFirst(node)),
      ])
      for (const outcome of started) if (outcome.status === 'rejected') throw outcome.reason
      await cluster.untilNodesReady()
    } catch (error) {
      await cluster.stop()
      throw error
    }
    return cluster
  }

  get api(): ClusterApi {
    return this.controlPlane.api
  }

  /** Nodes are counted from 1. */
  node(number: number): ClusterNode {
    const node = this.nodes.find(({ name }) => name === `n${number}`)
    if (node === undefined) throw new Error(`there is no node ${number}`)
    return node
  }

  // --- Nodes ---

  /** A further node; it is not Ready yet. */
  async addNode(): Promise<ClusterNode> {
    const node = await this.#installNode()
    await this.#bootFirst(node)
    return node
  }

  /** As when a cloud takes a machine back: it is off, its disk is gone, and the cluster is told. */
  async removeNode(node: ClusterNode): Promise<void> {
    this.nodes.splice(this.nodes.indexOf(node), 1)
    await node.remove()
    await this.api.delete(`/api/v1/nodes/${node.name}`)
  }

  /** All nodes of the cluster, and no others, are Ready and take pods. */
  async untilNodesReady(): Promise<void> {
    const wanted = this.nodes.map(({ name }) => name).sort()
    const ready = async () => {
      const nodes = await this.api.nodes()
      return (
        nodes.map(({ metadata }) => metadata.name).join() === wanted.join() &&
        nodes.every(({ spec, status }) => spec.taints === undefined && hasCondition(status.conditions, 'Ready'))
      )
    }
    await waitUntil('nodes Ready', ready, { timeoutMs: readyTimeoutMs, pollMs: 100 })
  }

  // --- Programs of users ---

  /** Runs kubectl to its end. Returns what it prints. */
  kubectl(...args: string[]): Promise<string> {
    return output(this.spawn('kubectl', args))
  }

  /** Makes or changes objects. */
  async apply(...objects: object[]): Promise<void> {
    const child = this.spawn('kubectl', ['apply', '-f', '-'])
    child.stdin?.end(objects.map((object) => JSON.stringify(object)).join('\n---\n'))
    await output(child)
  }

  helm(...args: string[]): Promise<string> {
    return output(this.spawn('helm', args))
  }

  /** Starts a program of somebody who may do everything, with kubectl and helm on their PATH. */
  spawn(command: string, args: readonly string[], options: { stdio?: 'inherit'; cwd?: string } = {}): ChildProcess {
    return this.controlPlane.host.spawn(command, args, {
      ...options,
      env: {
        ...process.env,
        PATH: [this.#bin, process.env['PATH']].join(delimiter),
        HOME: join(this.folder, 'home'),
        KUBECONFIG: this.controlPlane.kubeconfig,
      },
    })
  }

  // --- Images ---

  /** Puts an image that waits until it is ended into the registry. `name` is repository:tag. */
  async publish(
    name: string,
    spec: Omit<BenchmarkImageSpec, 'name'>,
  ): Promise<{ reference: string; image: BenchmarkImage }> {
    const reference = `${registryName}/${name}`
    const layout = await mkdtemp(join(this.folder, 'image-'))
    const image = await writeBenchmarkImage(layout, { name: reference, ...spec })
    await this.place(layout, image.target, name)
    await rm(layout, { recursive: true })
    return { reference, image }
  }

  /** Puts an image of an OCI layout into the registry. `name` is repository:tag. */
  async place(layout: string, target: Descriptor, name: string): Promise<void> {
    const [repository = '', tag = ''] = name.split(':')
    await this.upstream.place(layout, { target }, repository, tag)
  }

  /** While nodes are cut off, connecting to the registry fails at once (`upstreamHost.setCable`: not even that). */
  async setUpstreamReachable(reachable: boolean, nodes: readonly ClusterNode[] = this.nodes): Promise<void> {
    for (const { host } of nodes) {
      await output(
        host.spawn('ip', ['route', reachable ? 'del' : 'add', 'unreachable', `${this.upstreamHost.ip}/32`]),
      )
    }
  }

  /** Pods, and the last that every program has said: for a test that failed. */
  async lastWords(): Promise<string> {
    const pods = await this.kubectl('get', 'pods', '--all-namespaces', '--output=wide').catch(errorMessage)
    const logs = globSync(join(this.folder, '{control,n*}/*.log')).map((path) => {
      const tail = readFileSync(path, 'utf8').trimEnd().split('\n').slice(-10).join('\n')
      return `--- ${relative(this.folder, path)}\n${tail}`
    })
    return [pods, ...logs, ''].join('\n')
  }

  // --- End ---

  /** Everything is gone, also when a part of it could not be ended as it should. */
  async stop(): Promise<void> {
    const problems: unknown[] = []
    const steps = [
      ...this.nodes.map((node) => () => node.powerOff()),
      () => this.controlPlane.stop(),
      () => this.upstream.stop(),
      () => this.#network.close(),
      () => removeCgroup(this.#cgroup),
      () => rm(this.folder, { recursive: true, force: true }),
    ]
    for (const step of steps) await step().catch((error: unknown) => problems.push(error))
    if (problems.length > 0) throw new AggregateError(problems, `stopping: ${problems.map(String).join('; ')}`)
  }

  /** Named like the folder, so that both are found again. */
  get #cgroup(): string {
    return `/${basename(this.folder)}`
  }

  get #baseLayout(): string {
    return join(this.folder, 'base-images')
  }

  get #bin(): string {
    return join(this.folder, 'bin')
  }

  async #linkPrograms(): Promise<void> {
    await mkdir(this.#bin)
    await symlink(this.tools.kubernetes, join(this.#bin, 'kubectl'))
    await symlink(this.tools.helm, join(this.#bin, 'helm'))
  }

  async #writeBaseImages(): Promise<void> {
    const wait = { name: sandboxImage, sizeBytes: 64 * 1024, layers: 1, seed: 'sandbox' }
    await writeBenchmarkImage(this.#baseLayout, wait)
    await writeBusyboxImage(this.#baseLayout, busyboxImage, this.tools)
  }

  async #installNode(): Promise<ClusterNode> {
    const number = (this.#nodesMade += 1)
    const name = `n${number}`
    const host = await this.#network.addHost(name)
    const folder = join(this.folder, name)
    await mkdir(folder)
    const node = await ClusterNode.install({
      name,
      host,
      podSubnet: podSubnetOf(number),
      containerd: this.#containerd[(number - 1) % this.#containerd.length] ?? 'new',
      tools: this.tools,
      authority: this.#authority,
      server: serverOf(this.controlPlane.host),
      dnsIp: this.controlPlane.host.ip,
      hosts: [registryName, ...publicRegistryNames].map((registry) => `${this.upstreamHost.ip} ${registry}`),
      sandboxImage,
      folder,
      cgroup: `${this.#cgroup}/${name}`,
    })
    // As the cloud's router would.
    await route(host, `${serviceSubnet}.0/24`)
    await route(this.controlPlane.host, `${podSubnetOf(number)}.0/24`, host)
    for (const other of this.nodes) {
      await route(host, `${podSubnetOf(numberOf(other))}.0/24`, other.host)
      await route(other.host, `${podSubnetOf(number)}.0/24`, host)
    }
    this.nodes.push(node)
    return node
  }

  async #bootFirst(node: ClusterNode): Promise<void> {
    await node.boot()
    await node.importImages(this.#baseLayout)
  }
}

function podSubnetOf(nodeNumber: number): string {
  return `${podSubnets}.${nodeNumber}`
}

function numberOf({ name }: ClusterNode): number {
  return Number(name.slice(1))
}

async function route(host: Host, subnet: string, via?: Host): Promise<void> {
  await output(
    host.spawn('ip', ['route', 'replace', subnet, ...(via === undefined ? [] : ['via', via.ip]), 'dev', 'eth0']),
  )
}
