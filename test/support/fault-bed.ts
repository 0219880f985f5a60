/**
 * Where faults are played: two holders of an image behind slow links, two pullers (one fetches layers in parallel
 * parts), and pulls in whose middle something happens to the node that is serving.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ChildProcess } from 'node:child_process'
import { type Random, seededRandom } from '../../src/lib/random.ts'
import { awakeMs } from '../../src/testbed/awake-clock.ts'
import { Cluster } from '../../src/testbed/cluster.ts'
import type { ContainerdNode } from '../../src/testbed/containerd-node.ts'
import type { WrittenImage } from '../../src/images/image.ts'
import { end, output, waitUntil } from '../../src/testbed/process.ts'
import { eventually } from './daemons.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 150_000
/** A layer of this size takes two seconds: time for something to happen in its middle. */
const holderRate = '200mbit'
export const layerBytes = 50 * MiB
/** Parts in which the parallel puller fetches a layer, three at a time. */
const partBytes = 4 * MiB

export interface Published {
  repository: string
  reference: string
  image: WrittenImage
}

export interface Pulled {
  ms: number
  /** Why it failed. */
  error: string | undefined
  /** Of this image, by anybody, from the begin of the pull to its end. */
  upstreamPaths: string[]
  upstreamBytes: number
}

export type PullerName = 'plain' | 'parallel'

export class FaultBed {
  readonly cluster: Cluster
  readonly random: Random
  readonly holders: readonly [ContainerdNode, ContainerdNode]
  readonly pullers: Record<PullerName, ContainerdNode>
  #images = 0

  private constructor(cluster: Cluster, random: Random) {
    this.cluster = cluster
    this.random = random
    this.holders = [cluster.node(1), cluster.node(2)]
    this.pullers = { plain: cluster.node(3), parallel: cluster.node(4) }
  }

  static async create(seed: number): Promise<FaultBed> {
    const cluster = await Cluster.create({
      nodes: 4,
      containerd: 'containerdNew',
      // CRI pulls through the transfer service, whose settings these are (CRI's own count for use_local_image_pull).
      extraConfig: (node) =>
        node === 4
          ? `[plugins."io.containerd.transfer.v1.local"]\n  concurrent_layer_fetch_buffer = ${partBytes}\n`
          : '',
    })
    const bed = new FaultBed(cluster, seededRandom(seed))
    for (const { host } of bed.holders) await host.setRate(holderRate)
    return bed
  }

  close(): Promise<void> {
    return this.cluster.close()
  }

  // --- Images and who has them ---

  /** Makes an image of one layer and puts it upstream. */
  async publish(sizeBytes: number): Promise<Published> {
    this.#images += 1
    const repository = `image${this.#images}`
    const { reference, image } = await this.cluster.publish(`${repository}:v1`, {
      sizeBytes,
      layers: 1,
      seed: repository,
    })
    return { repository, reference, image }
  }

  /** Pulls the image on these nodes, and waits until both pullers have heard of all of it from each. */
  async give(published: Published, nodes: readonly ContainerdNode[]): Promise<void> {
    await this.announced(nodes.length, async () => {
      await Promise.all(nodes.map(({ cri }) => cri.pull(published.reference, pullTimeoutMs)))
    })
  }

  /** Waits until both pullers have heard of so many images more than before the action. */
  async announced(images: number, action: () => Promise<void>): Promise<void> {
    const pullers = Object.values(this.pullers)
    const before = await Promise.all(pullers.map((puller) => metric(puller, 'spegel_provider_records')))
    await action()
    // Tag, manifest, configuration and layer of each.
    const added = 4 * images
    for (const [index, puller] of pullers.entries()) {
      await eventually(async () => {
        const records = await metric(puller, 'spegel_provider_records')
        if (records < (before[index] ?? 0) + added) throw new Error(`${puller.host.name} knows ${records} records`)
      }, 60_000)
    }
  }

  // --- Pulls ---

  /** Pulls, and never rejects: what came of it is in the result. The image is on the node afterwards, if it could. */
  async pull(puller: ContainerdNode, published: Published): Promise<Pulled> {
    const seen = this.#upstreamRequests(published).length
    const startedMs = awakeMs()
    const error = await puller.cri.pull(published.reference, pullTimeoutMs).then(
      () => undefined,
      (reason: unknown) => String(reason),
    )
    const ms = awakeMs() - startedMs
    const upstream = this.#upstreamRequests(published).slice(seen)
    return {
      ms,
      error,
      upstreamPaths: upstream.map(({ path }) => path.replace(/\?.*/, '')),
      upstreamBytes: upstream.filter(({ method }) => method === 'GET').reduce((sum, { bytes }) => sum + bytes, 0),
    }
  }

  /**
   * Pulls, and calls `fault` when this part of the layer is there, with the holder that sends it. Rejects when the
   * fault came too late to be one in mid-blob.
   */
  async pullWith(
    puller: ContainerdNode,
    published: Published,
    part: number,
    fault: (serving: ContainerdNode) => Promise<void>,
  ): Promise<Pulled> {
    let over = false
    const pull = this.pull(puller, published).finally(() => (over = true))
    const isOver = () => over
    await this.received(puller, published, part, isOver)
    const serving = await this.#sending()
    if (over) throw new Error(`the pull was over before the fault: ${JSON.stringify(await pull)}`)
    await fault(serving)
    return pull
  }

  /** Until the puller's containerd holds this part of the layer. */
  async received(
    puller: ContainerdNode,
    { image }: Published,
    part: number,
    isOver: () => boolean = () => false,
  ): Promise<void> {
    const { digest, size } = layerOf(image)
    await waitUntil(
      `${Math.round(part * 100)} % of the layer`,
      async () => isOver() || (await puller.ingestBytes(digest)) >= part * size,
      { timeoutMs: pullTimeoutMs, pollMs: 10 },
    )
  }

  /** The image is gone from the node, and its mirror says so. */
  async remove(node: ContainerdNode, { reference, repository, image }: Published): Promise<void> {
    await node.cri.remove(reference)
    const path = `/v2/${repository}/blobs/${layerOf(image).digest}?ns=${this.cluster.registry}`
    await eventually(async () => {
      const answer = await ask(node, 5000, path, 'X-Spegel-Mirrored: true\r\n')
      if (!answer.startsWith('HTTP/1.1 404'))
        throw new Error(`${node.host.name} still has it: ${answer.split('\r\n')[0]}`)
    }, 30_000)
  }

  /** Until nothing is left of a pull that failed: containerd would start the next one with the same bytes. */
  async forgotten(node: ContainerdNode, { image }: Published): Promise<void> {
    // Sooner or later containerd collects it by itself; a lease that ends in this way makes it do so now.
    const lease = await node.ctr(this.cluster.tools.ctr, ['leases', 'create'])
    await node.ctr(this.cluster.tools.ctr, ['leases', 'rm', '--sync', lease.trim()])
    await eventually(async () => {
      const bytes = await node.ingestBytes(layerOf(image).digest)
      if (bytes > 0) throw new Error(`${node.host.name} still keeps ${bytes} bytes`)
    }, 30_000)
  }

  /** A containerd that was killed keeps what it was pulling for a day. */
  async dropLeases(node: ContainerdNode): Promise<void> {
    const leases = await node.ctr(this.cluster.tools.ctr, ['leases', 'ls', '-q'])
    for (const lease of leases.split('\n').filter((line) => line !== '')) {
      await node.ctr(this.cluster.tools.ctr, ['leases', 'rm', lease])
    }
  }

  // --- Nodes ---

  /** A puller that thinks nothing of its peers yet, and has heard from both holders what they have. */
  async restartAnew(puller: ContainerdNode): Promise<void> {
    await puller.stopDaemon()
    await this.restart(puller)
    await eventually(async () => {
      const provided = await Promise.all(this.holders.map((holder) => metric(holder, 'spegel_provided_keys')))
      const records = await metric(puller, 'spegel_provider_records')
      if (records < provided.reduce((sum, keys) => sum + keys)) throw new Error(`only ${records} records`)
    }, 60_000)
  }

  /** Starts a daemon that was killed; any node that is there will do as its first peer. */
  async restart(node: ContainerdNode): Promise<void> {
    await node.startDaemon(this.cluster.nodes.map(({ host }) => `${host.ip}:5001`))
  }

  /**
   * Keeps a holder busy with a transfer to nobody, so that others are asked first. Returns how to end it.
   */
  async occupy(holder: ContainerdNode, { repository, image }: Published): Promise<() => Promise<void>> {
    const path = `/v2/${repository}/blobs/${layerOf(image).digest}?ns=${this.cluster.registry}`
    const request = `GET ${path} HTTP/1.1\\r\\nHost: x\\r\\nX-Spegel-Mirrored: true\\r\\n\\r\\n`
    // One byte is read, so that the transfer is known to run.
    const script = `exec 3<>/dev/tcp/${holder.host.ip}/5000 && printf '${request}' >&3 && head -c 1 <&3 && exec sleep 600`
    const child = this.cluster.client.spawn('bash', ['--norc', '-c', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise((resolve, reject) => {
      child.stdout?.once('data', resolve)
      child.once('exit', () => reject(new Error('the holder could not be occupied')))
    })
    return () => end(child, 'SIGKILL')
  }

  /** A moment in the blob: neither its very begin nor so near its end that the fault may come too late. */
  moment(from = 0.1, to = 0.7): number {
    return from + (to - from) * this.random()
  }

  /** The holder that sends more at this moment. */
  async #sending(): Promise<ContainerdNode> {
    const before = this.holders.map(sentBytes)
    await new Promise((resolve) => setTimeout(resolve, 30))
    const [first = 0, second = 0] = this.holders.map((holder, index) => sentBytes(holder) - (before[index] ?? 0))
    return this.holders[first > second ? 0 : 1]
  }

  #upstreamRequests({ repository }: Published) {
    return this.cluster.upstream.requests().filter(({ path }) => path.startsWith(`/v2/${repository}/`))
  }
}

export function layerOf({ layers: [layer] }: WrittenImage): WrittenImage['layers'][number] {
  if (layer === undefined) throw new Error('an image without a layer')
  return layer
}

/** Where containerd keeps a blob. */
export function blobFile(node: ContainerdNode, digest: string): string {
  return join(node.contentPath, 'blobs', ...digest.split(':'))
}

/** Mends what was broken for the sake of a pull, also when that fails. */
export async function mendedAfter<T>(pull: Promise<T>, mend: () => Promise<unknown>): Promise<T> {
  try {
    return await pull
  } finally {
    await mend()
  }
}

/** Frozen: alive for the kernel, which takes connections for it, and silent. */
export async function frozen<T>(processes: readonly ChildProcess[], action: () => Promise<T>): Promise<T> {
  for (const child of processes) child.kill('SIGSTOP')
  try {
    return await action()
  } finally {
    for (const child of processes) child.kill('SIGCONT')
  }
}

/** One of a node's metrics, all labels added up; 0 when it was never counted. `name` may end in a label. */
export async function metric(node: ContainerdNode, name: string): Promise<number> {
  const text = await ask(node, 9090, '/metrics')
  const lines = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

/** The answer to a GET on this node, head and body. By bash, which costs a fraction of a Node. */
async function ask(node: ContainerdNode, port: number, path: string, headers = ''): Promise<string> {
  const request = `GET ${path} HTTP/1.0\r\nConnection: close\r\n${headers}\r\n`
  const script = `exec 3<>/dev/tcp/127.0.0.1/${port} && printf %s "$0" >&3 && head -c 1000000 <&3`
  return output(node.host.spawn('timeout', ['10', 'bash', '--norc', '-c', script, request]))
}

/** Bytes that the node has sent, from the counters of its network card. */
function sentBytes({ daemon: { pid } }: ContainerdNode): number {
  const line = /^\s*eth0:(.*)$/m.exec(readFileSync(`/proc/${pid}/net/dev`, 'utf8'))?.[1] ?? ''
  return Number(line.trim().split(/\s+/)[8])
}
