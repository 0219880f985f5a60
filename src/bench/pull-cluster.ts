/** Pulls of real containerd nodes, timed, with what upstream was asked for and which peer gave what. */
import { rm } from 'node:fs/promises'
import { Cluster } from '../testbed/cluster.ts'
import type { ContainerdNode } from '../testbed/containerd-node.ts'
import { fetchFrom } from '../testbed/fetch.ts'
import type { WrittenImage } from '../images/image.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 120_000
const offerTimeoutMs = 60_000

/** Links as in a small cluster; upstream is what everybody shares. */
const nodeRate = '1gbit'
const upstreamRate = '200mbit'

export interface Published {
  reference: string
  repository: string
  image: WrittenImage
}

export interface Pull {
  /** Undefined: it failed. */
  seconds: number | undefined
  error?: string
}

export class PullCluster {
  readonly cluster: Cluster
  readonly #seed: string
  #images = 0

  private constructor(cluster: Cluster, seed: string) {
    this.cluster = cluster
    this.#seed = seed
  }

  static async create(nodes: number, seed: string): Promise<PullCluster> {
    const cluster = await Cluster.create({ nodes, containerd: 'containerdNew' })
    await Promise.all(cluster.nodes.map(({ host }) => host.setRate(nodeRate)))
    await cluster.upstreamHost.setRate(upstreamRate)
    return new PullCluster(cluster, seed)
  }

  /** An image that nobody has. */
  async publish(sizeMiB: number, layers: number): Promise<Published> {
    this.#images += 1
    const repository = `image-${this.#images}`
    const spec = { sizeBytes: sizeMiB * MiB, layers, seed: `${this.#seed}-${repository}` }
    const { reference, image } = await this.cluster.publish(`${repository}:v1`, spec)
    // Upstream has its own links to the blobs.
    await rm(this.cluster.layoutOf(`${repository}:v1`), { recursive: true })
    return { reference, repository, image }
  }

  async pull(node: ContainerdNode, { reference }: Published): Promise<Pull> {
    const startedMs = performance.now()
    try {
      await node.cri.pull(reference, pullTimeoutMs)
      return { seconds: (performance.now() - startedMs) / 1000 }
    } catch (error) {
      return { seconds: undefined, error: String(error) }
    }
  }

  /** Until a node's mirror finds the whole image at somebody's. */
  async offered(node: ContainerdNode, { repository, image }: Published): Promise<void> {
    const paths = [
      `manifests/${image.target.digest}`,
      ...[image.config, ...image.layers].map(({ digest }) => `blobs/${digest}`),
    ]
    const deadlineMs = performance.now() + offerTimeoutMs
    for (const path of paths) {
      const url = `http://127.0.0.1:5000/v2/${repository}/${path}?ns=${this.cluster.registry}`
      while ((await fetchFrom(node.host, url, { method: 'HEAD' })).status !== 200) {
        if (performance.now() > deadlineMs) throw new Error(`${path} is not offered`)
      }
    }
  }

  async removeEverywhere({ reference }: Published): Promise<void> {
    await Promise.all(this.cluster.nodes.map(({ cri }) => cri.remove(reference).catch(() => undefined)))
  }

  /** Where the node's daemon took the blob from: addresses of peers in order. */
  async sources(node: ContainerdNode, digest: string): Promise<string[]> {
    const lines = await node.daemonLines()
    const source = lines.findLast((line) => line['key'] === digest && typeof line['source'] === 'string')?.['source']
    return typeof source === 'string' ? source.split(' ').filter(Boolean) : []
  }

  close(): Promise<void> {
    return this.cluster.close()
  }
}
