/**
 * Pulls on all nodes, without a pause, of images that are new: each image first on one node, then on all others. What
 * went wrong, and what was asked of upstream although another node had it, is known at the end.
 */
import type { ApiError, Pod } from './api.ts'
import type { BenchmarkImage } from '../../src/images/benchmark-image.ts'
import { errorMessage } from '../../src/lib/errors.ts'
import { waitUntil } from '../../src/testbed/process.ts'
import type { Cluster } from './cluster.ts'
import type { ClusterNode } from './node.ts'

const pullTimeoutMs = 120_000
const pollMs = 100
/** A node that finds nothing to pull makes an image; a short pause leaves the machine to others. */
const pauseMs = 200
/**
 * Who made the latest image leaves the next one to another node for so long. Else the fastest one makes all of them, the
 * others have always something to pull, and it never gets one that others had.
 */
const othersTurnMs = 3_000
const namespace = 'churn'

export interface ChurnInit {
  /** `pods`: as users do. `cri`: as the kubelet does, which also works without an API server. */
  by: 'pods' | 'cri'
  sizeBytes: number
  layers: number
}

interface Pull {
  image: string
  node: string
  askedMs: number
  /** The image is there and, for a pod, runs. Undefined: not until the end. */
  doneMs: number | undefined
}

export interface PullFailure {
  image: string
  node: string
  /** Events of Kubernetes know seconds only. */
  atMs: number
  message: string
}

/** A GET of content that other nodes had when it was sent. */
export interface UpstreamGet {
  image: string
  node: string
  path: string
  startedMs: number
  holders: { node: string; sinceMs: number }[]
}

export interface ChurnReport {
  pulls: Pull[]
  failures: PullFailure[]
  avoidable: UpstreamGet[]
}

interface ChurnImage {
  name: string
  reference: string
  digests: ReadonlySet<string>
  pulls: Pull[]
}

export class Churn {
  readonly #cluster: Cluster
  readonly #init: ChurnInit
  readonly #images: ChurnImage[] = []
  readonly #failures: PullFailure[] = []
  readonly #loops = new Map<ClusterNode, { stop: AbortController; ended: Promise<void> }>()
  /** Names of images and pods are not used twice in a cluster. */
  readonly #id = Date.now().toString(36)
  #imageCount = 0

  private constructor(cluster: Cluster, init: ChurnInit) {
    this.#cluster = cluster
    this.#init = init
  }

  /** On all nodes of the cluster. */
  static async start(cluster: Cluster, init: ChurnInit): Promise<Churn> {
    const churn = new Churn(cluster, init)
    if (init.by === 'pods') await makeNamespace(cluster)
    for (const node of cluster.nodes) churn.add(node)
    return churn
  }

  /** Begins to pull on a node. */
  add(node: ClusterNode): void {
    const stop = new AbortController()
    this.#loops.set(node, { stop, ended: this.#loop(node, stop.signal) })
  }

  /** Ends pulling on a node: before it goes away. */
  async remove(node: ClusterNode): Promise<void> {
    const loop = this.#loops.get(node)
    this.#loops.delete(node)
    loop?.stop.abort()
    await loop?.ended
  }

  /** Resolves when each node has pulled so many more images that others had before. */
  async untilShared(
    count: number,
    timeoutMs = pullTimeoutMs,
    nodes: readonly ClusterNode[] = [...this.#loops.keys()],
  ): Promise<void> {
    const fromMs = Date.now()
    const pulledBy = ({ name }: ClusterNode) => {
      const all = this.#images.flatMap(({ pulls }) => pulls.map((pull, index) => ({ ...pull, isShared: index > 0 })))
      const done = all.filter(
        ({ node, askedMs, doneMs }) => node === name && askedMs >= fromMs && doneMs !== undefined,
      )
      const shared = done.filter(({ isShared }) => isShared).length
      return { name, shared, made: done.length - shared }
    }
    const enough = () => Promise.resolve(nodes.every((node) => pulledBy(node).shared >= count))
    const what = `${count} images pulled by every node`
    await waitUntil(what, enough, { timeoutMs }).catch((error: unknown) => {
      const pulled = nodes.map(pulledBy).map(({ name, shared, made }) => `${name} ${shared} and made ${made}`)
      throw new Error(`${errorMessage(error)}; pulled: ${pulled.join(', ')}`)
    })
  }

  /** Resolves when a pull of this node has failed. */
  async untilFailed(node: ClusterNode, timeoutMs = pullTimeoutMs): Promise<void> {
    const hasFailed = async () => (await this.#allFailures()).some((failure) => failure.node === node.name)
    await waitUntil(`a failed pull of ${node.name}`, hasFailed, { timeoutMs })
  }

  async stop(): Promise<ChurnReport> {
    await Promise.all([...this.#loops.keys()].map((node) => this.remove(node)))
    return {
      pulls: this.#images.flatMap(({ pulls }) => pulls),
      failures: await this.#allFailures(),
      avoidable: this.#avoidableGets(),
    }
  }

  // --- Pulling ---

  async #loop(node: ClusterNode, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const wanted = await this.#wantedBy(node, signal)
      if (signal.aborted) return
      const image = wanted ?? (await this.#makeImage())
      const pull: Pull = { image: image.name, node: node.name, askedMs: Date.now(), doneMs: undefined }
      image.pulls.push(pull)
      try {
        await (this.#init.by === 'pods'
          ? this.#runPod(image, node, signal)
          : node.cri.pull(image.reference, pullTimeoutMs))
        pull.doneMs = Date.now()
      } catch (error) {
        // A pod that does not run in time has said why in its events.
        const told = this.#init.by === 'pods' && signal.aborted
        if (!told) {
          const atMs = Date.now()
          this.#failures.push({ image: image.name, node: node.name, atMs, message: errorMessage(error) })
        }
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
  }

  async #wantedBy(node: ClusterNode, signal: AbortSignal): Promise<ChurnImage | undefined> {
    const find = () => this.#images.findLast(isWantedBy(node))
    const hasMadeLatest = () => this.#images.at(-1)?.pulls[0]?.node === node.name
    const deadlineMs = Date.now() + othersTurnMs
    while (find() === undefined && hasMadeLatest() && Date.now() < deadlineMs && !signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, pollMs))
    }
    return find()
  }

  async #makeImage(): Promise<ChurnImage> {
    const name = `image-${this.#id}-${(this.#imageCount += 1)}`
    const { sizeBytes, layers } = this.#init
    const { reference, image } = await this.#cluster.publish(`churn:${name}`, { sizeBytes, layers, seed: name })
    const made = { name, reference, digests: digestsOf(image), pulls: [] }
    this.#images.push(made)
    return made
  }

  /** Resolves when the pod runs; it is deleted then. The API server may be away meanwhile. */
  async #runPod(image: ChurnImage, node: ClusterNode, signal: AbortSignal): Promise<void> {
    const { api } = this.#cluster
    const name = podName(image, node.name)
    const path = `/api/v1/namespaces/${namespace}/pods`
    const until = (what: string, probe: () => Promise<boolean>) =>
      waitUntil(what, probe, { timeoutMs: pullTimeoutMs, pollMs, signal })
    await until(`making the pod ${name}`, async () => {
      await api.create(path, churnPod(name, node.name, image.reference)).catch((error: ApiError) => {
        if (error.status !== 409) throw error
      })
      return true
    })
    try {
      await until(`the pod ${name}`, async () => (await api.get<Pod>(`${path}/${name}`)).status.phase === 'Running')
    } finally {
      await api.delete(`${path}/${name}`).catch(() => undefined)
    }
  }

  // --- Afterwards ---

  async #allFailures(): Promise<PullFailure[]> {
    return this.#init.by === 'pods' ? [...this.#failures, ...(await this.#failuresOfPods())] : this.#failures
  }

  async #failuresOfPods(): Promise<PullFailure[]> {
    const podsOf = new Map(
      this.#images.flatMap((image) => image.pulls.map((pull) => [podName(image, pull.node), pull] as const)),
    )
    const events = await this.#cluster.api.podEvents(namespace)
    const failed = events.filter(
      ({ reason, message }) => reason === 'Failed' && message.startsWith('Failed to pull image'),
    )
    return failed.flatMap(({ involvedObject, firstTimestamp, lastTimestamp, message }) => {
      const pull = podsOf.get(involvedObject.name)
      if (pull === undefined) return []
      // The same failure again is the same event.
      const times = new Set([firstTimestamp, lastTimestamp])
      return [...times].map((time) => ({ image: pull.image, node: pull.node, atMs: Date.parse(time), message }))
    })
  }

  #avoidableGets(): UpstreamGet[] {
    const nodeNames = new Map(this.#cluster.nodes.map(({ host, name }) => [host.ip, name]))
    const answers = this.#cluster.upstream.answers().filter(({ method }) => method === 'GET')
    return answers.flatMap(({ client, path, startedMs }) => {
      const digest = path.slice(path.lastIndexOf('/') + 1)
      const image = this.#images.find(({ digests }) => digests.has(digest))
      const node = nodeNames.get(client) ?? client
      const holders = (image?.pulls ?? []).flatMap(({ node: holder, doneMs }) =>
        holder !== node && doneMs !== undefined && doneMs < startedMs ? [{ node: holder, sinceMs: doneMs }] : [],
      )
      return image === undefined || holders.length === 0
        ? []
        : [{ image: image.name, node, path, startedMs, holders }]
    })
  }
}

/** Somebody has it, and this node has not begun with it. */
function isWantedBy({ name }: ClusterNode): (image: ChurnImage) => boolean {
  return ({ pulls }) => pulls.some(({ doneMs }) => doneMs !== undefined) && pulls.every(({ node }) => node !== name)
}

/** What the kubelet and containerd ask for: the manifests of other platforms are left alone. */
function digestsOf({ target, manifests, configs, layers }: BenchmarkImage): ReadonlySet<string> {
  return new Set([target, ...manifests, ...configs, ...layers].map(({ digest }) => digest))
}

function podName(image: ChurnImage, node: string): string {
  return `${image.name}-${node}`
}

/** Past the scheduler: it is the node that is meant, whatever its state. */
function churnPod(name: string, nodeName: string, image: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: {
      nodeName,
      containers: [{ name: 'wait', image, imagePullPolicy: 'IfNotPresent' }],
      // A node that reboots in between ends it before it was seen to run.
      restartPolicy: 'Always',
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      tolerations: [{ operator: 'Exists' }],
    },
  }
}

async function makeNamespace({ api }: Cluster): Promise<void> {
  if ((await api.find(`/api/v1/namespaces/${namespace}`)) !== undefined) return
  await api.create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } })
  const account = `/api/v1/namespaces/${namespace}/serviceaccounts/default`
  const ready = async () => (await api.find(account)) !== undefined
  await waitUntil('the service account of the namespace', ready, { timeoutMs: 30_000 })
}
