/** A cluster for system tests: real containerd nodes in namespaces, a real registry as upstream, our daemons. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ContainerdNode } from './containerd-node.ts'
import { type ImageSpec, type WrittenImage, writeImage } from '../images/image.ts'
import { type Host, Network } from './network.ts'
import { RegistryProcess } from './registry-process.ts'
import { type Tools, prepareTools } from './tools.ts'

export interface ClusterInit {
  nodes: number
  containerd: keyof Pick<Tools, 'containerdOld' | 'containerdNew'>
  /** More lines for a node's config.toml; nodes are counted from 1. */
  extraConfig?: (node: number) => string
  /** Folders with containerd's shim and runc, to run pods. */
  programFolders?: readonly string[]
  /** Without daemons: a test starts them in its own way. */
  withoutDaemons?: boolean
  /** Further flags of the daemons; the argument is the registry part of image names. */
  daemonOptions?: (registry: string) => readonly string[]
}

export class Cluster {
  readonly nodes: ContainerdNode[]
  readonly upstream: RegistryProcess
  readonly upstreamHost: Host
  readonly folder: string
  /** Where nothing but the test's own client runs. */
  readonly client: Host
  readonly tools: Tools
  readonly #network: Network

  private constructor(
    tools: Tools,
    network: Network,
    folder: string,
    nodes: ContainerdNode[],
    upstream: { host: Host; registry: RegistryProcess },
    client: Host,
  ) {
    this.tools = tools
    this.#network = network
    this.folder = folder
    this.nodes = nodes
    this.upstream = upstream.registry
    this.upstreamHost = upstream.host
    this.client = client
  }

  static async create(init: ClusterInit): Promise<Cluster> {
    const tools = await prepareTools((line) => process.stderr.write(`set-up: ${line}\n`))
    const folder = await mkdtemp(join(tmpdir(), 'spegel-ts-test-'))
    const network = await Network.create()
    const nodes: ContainerdNode[] = []
    for (let number = 1; number <= init.nodes; number++) {
      nodes.push(
        new ContainerdNode({
          host: await network.addHost(`n${number}`),
          containerd: tools[init.containerd],
          folder: join(folder, `n${number}`),
          ...(init.extraConfig === undefined ? {} : { extraConfig: init.extraConfig(number) }),
          ...(init.programFolders === undefined ? {} : { programFolders: init.programFolders }),
        }),
      )
    }
    const upstreamHost = await network.addHost('upstream')
    const upstream = new RegistryProcess(upstreamHost, tools.registry, join(folder, 'upstream'))
    const client = await network.addHost('client')
    const cluster = new Cluster(tools, network, folder, nodes, { host: upstreamHost, registry: upstream }, client)
    try {
      await upstream.start()
      await Promise.all(
        nodes.map(async (node) => {
          await node.startContainerd()
          if (init.withoutDaemons === true) return
          await node.configure(upstream.url)
          await node.startDaemon(cluster.peers, init.daemonOptions?.(cluster.registry))
        }),
      )
    } catch (error) {
      await cluster.close()
      throw error
    }
    return cluster
  }

  /** Where each node finds a first peer: the first node. */
  get peers(): string[] {
    return [`${this.node(1).host.ip}:5001`]
  }

  /** Nodes are counted from 1. */
  node(number: number): ContainerdNode {
    const node = this.nodes[number - 1]
    if (node === undefined) throw new Error(`there is no node ${number}`)
    return node
  }

  /** The registry part of image names: upstream's own address, so that containerd finds it without DNS. */
  get registry(): string {
    return new URL(this.upstream.url).host
  }

  /** Makes an image and puts it upstream. `name` is repository:tag. Returns the name to pull. */
  async publish(name: string, spec: Omit<ImageSpec, 'name'>): Promise<{ reference: string; image: WrittenImage }> {
    const reference = `${this.registry}/${name}`
    const layout = this.layoutOf(name)
    const image = await writeImage(layout, { name: reference, ...spec })
    const [repository = '', tag = ''] = name.split(':')
    await this.upstream.place(layout, image, repository, tag)
    return { reference, image }
  }

  /** Where `publish` made the image. */
  layoutOf(name: string): string {
    return join(this.folder, 'images', name.replaceAll(/[:/]/g, '-'))
  }

  /** What the daemons said beside hits: for a test that failed. */
  async complaints(): Promise<string> {
    const ofNodes = await Promise.all(
      this.nodes.map(async (node) => {
        const lines = (await node.daemonLines()).filter(({ outcome, level }) => outcome !== 'hit' || level !== 'INFO')
        return lines.slice(-20).map((line) => `${node.host.ip} ${JSON.stringify(line)}`)
      }),
    )
    return ofNodes.flat().join('\n')
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.remove()))
    await this.upstream.stop()
    await this.#network.close()
    await rm(this.folder, { recursive: true, force: true })
  }
}
