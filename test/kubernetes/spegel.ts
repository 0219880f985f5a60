/** spegel-ts in a cluster, as its users install it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { errorMessage } from '../../src/lib/errors.ts'
import { output, waitUntil } from '../../src/testbed/process.ts'
import { prepareImage } from '../support/image.ts'
import { type Pod, hasCondition } from './api.ts'
import type { Cluster } from './cluster.ts'
import type { ClusterNode } from './node.ts'

const release = 'spegel-ts'
const namespace = 'spegel-ts'
const root = join(import.meta.dirname, '../..')
const chart = join(root, 'charts/spegel-ts')
const mirrorLabels = 'app.kubernetes.io/component=mirror'
const sampleMs = 100

/** Puts the image into the registry, under the name that the chart asks for. */
export async function publishSpegel(cluster: Cluster): Promise<void> {
  const rendered = await cluster.helm('template', release, chart, '--validate')
  const [, repository = '', tag = ''] = /image: "?[^/"]+\/([^:"]+):([^"\s]+)/.exec(rendered) ?? []
  const { layout, image } = await prepareImage((line) => process.stderr.write(`set-up: ${line}\n`))
  await cluster.place(layout, image.target, `${repository}:${tag}`)
}

/** What README tells its readers to type, in this order. */
export function readmeCommands(): { install: string[]; seeThatItWorks: string; uninstall: string[] } {
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  const section = /^## On Kubernetes\n(.*?)^## /ms.exec(readme)?.[1] ?? ''
  const install = /^```\n(.*?)^```/ms.exec(section)?.[1]?.trim().split('\n') ?? []
  const inText = [...section.matchAll(/`((?:helm|kubectl) [^`]+)`/g)].map(([, command = '']) => command)
  const [seeThatItWorks = '', ...uninstall] = inText
  return { install, seeThatItWorks, uninstall }
}

/** As README says, with further options of helm, and a command that prepares the namespace. */
export async function installSpegel(
  cluster: Cluster,
  { options = [], before }: { options?: readonly string[]; before?: string | undefined } = {},
): Promise<void> {
  for (const command of readmeCommands().install) {
    const isInstall = command.startsWith('helm install ')
    if (isInstall && before !== undefined) await inCheckout(cluster, before)
    await inCheckout(cluster, isInstall ? [command, ...options].join(' ') : command)
  }
}

/** As README says. */
export async function uninstallSpegel(cluster: Cluster): Promise<void> {
  for (const command of readmeCommands().uninstall) await inCheckout(cluster, command)
}

/** Runs a command of README, from where its readers are. Returns what it prints. */
export function inCheckout(cluster: Cluster, command: string): Promise<string> {
  return output(cluster.spawn('sh', ['-c', command], { cwd: root }))
}

export async function upgradeSpegel(cluster: Cluster, ...options: string[]): Promise<void> {
  await cluster.helm('upgrade', release, chart, '--namespace', namespace, '--reuse-values', ...options)
  await cluster.kubectl('rollout', 'status', `daemonset/${release}`, '--namespace', namespace, '--timeout=120s')
}

/**
 * Until the daemon of a node is ready that started after that moment: of a node that reboots the API server tells for a
 * while what was before.
 */
export async function untilMirrored(cluster: Cluster, node: ClusterNode, afterMs = 0): Promise<void> {
  const ready = async () => (await readyPods(cluster)).some((pod) => isOn(node, pod) && startedMs(pod) >= afterMs)
  await waitUntil(`spegel-ts on ${node.name}`, ready, { timeoutMs: 120_000 })
}

function isOn({ name }: ClusterNode, { spec }: Pod): boolean {
  return spec.nodeName === name
}

/** To the second. */
function startedMs({ status }: Pod): number {
  return Date.parse(status.containerStatuses?.[0]?.state.running?.startedAt ?? '')
}

/** What the daemons have written lately: for a test that failed. */
export function mirrorLogs(cluster: Cluster): Promise<string> {
  const options = ['--prefix', '--tail=-1', '--since=60s', '--max-log-requests=20']
  return cluster.kubectl('logs', '--namespace', namespace, '--selector', mirrorLabels, ...options).catch(errorMessage)
}

/** Those of the daemons. */
export function mirrorPods({ api }: Cluster): Promise<Pod[]> {
  return api.pods(namespace, mirrorLabels)
}

/** Of the daemons that are ready and stay. */
async function readyPods(cluster: Cluster): Promise<Pod[]> {
  return (await mirrorPods(cluster)).filter(
    ({ metadata, status }) => metadata.deletionTimestamp === undefined && hasCondition(status.conditions, 'Ready'),
  )
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
      const pods = await readyPods(this.#cluster).catch(() => undefined)
      if (pods !== undefined) {
        this.#samples.push({ atMs, ready: new Set(pods.map(({ spec }) => spec.nodeName ?? '')) })
      }
      await new Promise((resolve) => setTimeout(resolve, sampleMs))
    }
  }
}
