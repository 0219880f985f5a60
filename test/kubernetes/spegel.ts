/** spegel-ts in a cluster, as its users install it. */
import { join } from 'node:path'
import { readLayoutImage } from '../../src/benchmark/local/layout-image.ts'
import { UserError } from '../../src/lib/errors.ts'
import { waitUntil } from '../../src/testbed/process.ts'
import { type Pod, hasCondition } from './api.ts'
import type { Cluster } from './cluster.ts'
import type { ClusterNode } from './node.ts'

const release = 'spegel-ts'
const namespace = 'spegel-ts'
const chart = join(import.meta.dirname, '../../charts/spegel-ts')
const mirrorLabels = 'app.kubernetes.io/component=mirror'
const sampleMs = 100

/** Puts the image into the registry, under the name that the chart asks for. */
export async function publishSpegel(cluster: Cluster): Promise<void> {
  const [, repository = '', tag = ''] =
    /image: "?[^/"]+\/([^:"]+):([^"\s]+)/.exec(await cluster.helm('template', release, chart, '--validate')) ?? []
  const layout = await spegelImage()
  const { target } = await readLayoutImage(layout)
  await cluster.place(layout, { digest: target, mediaType: '', size: 0 }, `${repository}:${tag}`)
}

/** An OCI layout with the image under test. */
function spegelImage(): Promise<string> {
  const layout = process.env['SPEGEL_TS_IMAGE']
  if (layout === undefined) {
    throw new UserError('SPEGEL_TS_IMAGE is not set: give the folder of an OCI layout with the image')
  }
  return Promise.resolve(layout)
}

/** What README says. `options`: further ones for Helm. */
export async function installSpegel(cluster: Cluster, ...options: string[]): Promise<void> {
  await cluster.kubectl('create', 'namespace', namespace)
  await cluster.helm('install', release, chart, '--namespace', namespace, ...options)
  await untilRolledOut(cluster)
}

export async function upgradeSpegel(cluster: Cluster, ...options: string[]): Promise<void> {
  await cluster.helm('upgrade', release, chart, '--namespace', namespace, '--reuse-values', ...options)
  await untilRolledOut(cluster)
}

export async function uninstallSpegel(cluster: Cluster): Promise<void> {
  await cluster.helm('uninstall', release, '--namespace', namespace)
  await cluster.kubectl('delete', 'namespace', namespace)
}

async function untilRolledOut(cluster: Cluster): Promise<void> {
  await cluster.kubectl('rollout', 'status', `daemonset/${release}`, '--namespace', namespace, '--timeout=120s')
}

/** Until the daemon of a node is ready. */
export async function untilMirrored(cluster: Cluster, node: ClusterNode): Promise<void> {
  const ready = async () => (await readyNodes(cluster)).has(node.name)
  await waitUntil(`spegel-ts on ${node.name}`, ready, { timeoutMs: 120_000 })
}

/** Those of the daemons. */
export function mirrorPods({ api }: Cluster): Promise<Pod[]> {
  return api.pods(namespace, mirrorLabels)
}

/** Nodes with a daemon that is ready and stays. */
async function readyNodes(cluster: Cluster): Promise<ReadonlySet<string>> {
  const staying = (await mirrorPods(cluster)).filter(
    ({ metadata, status }) => metadata.deletionTimestamp === undefined && hasCondition(status.conditions, 'Ready'),
  )
  return new Set(staying.map(({ spec }) => spec.nodeName ?? ''))
}

/** Remembers when which node's daemon was ready. */
export class DaemonWatch {
  readonly #samples: { atMs: number; ready: ReadonlySet<string> }[] = []
  readonly #cluster: Cluster
  readonly #stop = new AbortController()
  readonly #ended: Promise<void>

  constructor(cluster: Cluster) {
    this.#cluster = cluster
    this.#ended = this.#run(this.#stop.signal)
  }

  /** Before and after that moment. */
  wasReady(node: string, atMs: number): boolean {
    const before = this.#samples.findLast((sample) => sample.atMs <= atMs)
    const after = this.#samples.find((sample) => sample.atMs > atMs)
    return before?.ready.has(node) === true && after?.ready.has(node) !== false
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#ended
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const atMs = Date.now()
      // Without an API server nothing is known, and nothing changes that Kubernetes has a part in.
      const ready = await readyNodes(this.#cluster).catch(() => undefined)
      if (ready !== undefined) this.#samples.push({ atMs, ready })
      await new Promise((resolve) => setTimeout(resolve, sampleMs))
    }
  }
}
