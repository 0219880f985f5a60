/** The mirror that is installed: found by what it does, which is to write hosts.toml in an init container `configuration`. */
import type { V1DaemonSet } from '@kubernetes/client-node'
import { UserError } from '../../lib/errors.ts'
import { ApiError, type KubernetesClient } from './client.ts'
import { type MirrorCounters, parseCounters } from './counters.ts'
import type { HostsWriter } from './objects.ts'
import { type Pod, daemonSetPath, podsOf } from './workloads.ts'

const writerName = 'configuration'
const defaultFolder = '/etc/containerd/certs.d'
const folderFlag = '--containerd-registry-config-path'
/** Of pods of our chart. */
const componentLabel = 'app.kubernetes.io/component'
const nameLabel = 'app.kubernetes.io/name'

export interface InstalledMirror {
  namespace: string
  /** Of its DaemonSet. */
  daemonSet: string
  /** As its chart calls it: `spegel-ts`. */
  name: string
  image: string
  args: readonly string[]
  isOurs: boolean
  /** Of its pods. */
  labels: Readonly<Record<string, string>>
  metricsPort: number | undefined
  writer: HostsWriter
}

/** Undefined: there is none. `wanted`: `namespace/name` of its DaemonSet. Throws a UserError when it cannot be told. */
export async function findMirror(
  client: KubernetesClient,
  wanted: string | undefined,
): Promise<InstalledMirror | undefined> {
  if (wanted !== undefined) {
    const [namespace = '', name = ''] = wanted.split('/')
    const object = await client.find<V1DaemonSet>({ path: daemonSetPath(namespace, name) })
    if (object === undefined) throw new UserError(`--mirror-daemonset: there is no DaemonSet ${wanted}`)
    const mirror = asMirror(object)
    if (mirror === undefined) {
      throw new UserError(
        `--mirror-daemonset: ${wanted} has no init container "${writerName}" that writes hosts.toml`,
      )
    }
    return mirror
  }
  const [first, ...others] = await installedMirrors(client)
  if (first !== undefined && others.length > 0) {
    const names = [first, ...others].map(({ namespace, daemonSet }) => `${namespace}/${daemonSet}`)
    throw new UserError(`more than one mirror is installed: choose with --mirror-daemonset ${names.join(' or ')}`)
  }
  return first
}

export async function installedMirrors(client: KubernetesClient): Promise<InstalledMirror[]> {
  const { items } = await client.ask<{ items: V1DaemonSet[] }>({ path: '/apis/apps/v1/daemonsets' })
  return items.map(asMirror).filter((mirror) => mirror !== undefined)
}

/** Undefined: its DaemonSet is gone. */
export async function readMirror(client: KubernetesClient, path: string): Promise<InstalledMirror | undefined> {
  const [namespace = '', name = ''] = path.split('/')
  const object = await client.find<V1DaemonSet>({ path: daemonSetPath(namespace, name) })
  return object === undefined ? undefined : asMirror(object)
}

export function mirrorPath({ namespace, daemonSet }: InstalledMirror): string {
  return `${namespace}/${daemonSet}`
}

export function asMirror({ metadata, spec }: V1DaemonSet): InstalledMirror | undefined {
  const pod = spec?.template.spec
  const container = pod?.initContainers?.find(({ name, args }) => name === writerName && args?.[0] === writerName)
  const [main] = pod?.containers ?? []
  if (pod === undefined || container === undefined || main === undefined) return undefined
  const mounted = new Set(container.volumeMounts?.map(({ name }) => name))
  const labels = spec?.template.metadata?.labels ?? {}
  return {
    namespace: metadata?.namespace ?? '',
    daemonSet: metadata?.name ?? '',
    name: labels[nameLabel] ?? metadata?.name ?? '',
    image: main.image ?? '',
    args: main.args ?? [],
    isOurs: labels[componentLabel] === 'mirror',
    labels: spec?.selector.matchLabels ?? labels,
    metricsPort: main.ports?.find(({ name }) => name === 'metrics')?.containerPort,
    writer: {
      container,
      volumes: (pod.volumes ?? []).filter(({ name }) => mounted.has(name)),
      folder: folderOf(container.args ?? []),
    },
  }
}

/** Throws a UserError when agents in another namespace could not write hosts.toml as the mirror does. */
export function refuseForeignSecrets({ namespace, writer }: InstalledMirror, own: string): void {
  const elsewhere = writer.volumes.find(({ hostPath, emptyDir }) => hostPath === undefined && emptyDir === undefined)
  if (elsewhere === undefined || namespace === own) return
  throw new UserError(
    `to switch the mirror off and on, its volume "${elsewhere.name}" is needed, which only pods in its own namespace get: give --namespace ${namespace}`,
  )
}

/** Of its pods, by their uids. Empty: it has no metrics. */
export async function readCounters(
  client: KubernetesClient,
  { namespace, labels, metricsPort }: InstalledMirror,
): Promise<Map<string, MirrorCounters>> {
  if (metricsPort === undefined) return new Map()
  const pods = (await podsOf(client, namespace, labels)).filter(isRunning)
  const read = pods.map(async ({ metadata: { uid, name } }): Promise<[string, MirrorCounters][]> => {
    const path = `/api/v1/namespaces/${namespace}/pods/${name}:${metricsPort}/proxy/metrics`
    try {
      return [[uid, parseCounters(await client.text({ path }))]]
    } catch (error) {
      // It ends this moment, or has no metrics there. A right that is missing is worth an error.
      if (error instanceof ApiError && error.status !== 403) return []
      throw error
    }
  })
  return new Map((await Promise.all(read)).flat())
}

export async function mirrorNodes(
  client: KubernetesClient,
  { namespace, labels }: InstalledMirror,
): Promise<Set<string>> {
  const pods = (await podsOf(client, namespace, labels)).filter(isRunning)
  const ready = pods.filter(({ status }) =>
    status.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True'),
  )
  return new Set(ready.map(({ spec }) => spec.nodeName ?? ''))
}

function isRunning({ metadata, status }: Pod): boolean {
  return metadata.deletionTimestamp === undefined && status.phase === 'Running'
}

function folderOf(args: readonly string[]): string {
  for (const [index, arg] of args.entries()) {
    if (arg === folderFlag) return args[index + 1] ?? defaultFolder
    if (arg.startsWith(`${folderFlag}=`)) return arg.slice(folderFlag.length + 1)
  }
  return defaultFolder
}
