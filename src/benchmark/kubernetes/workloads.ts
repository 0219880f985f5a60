/** DaemonSets: made, changed, waited for, removed. */
import type { V1DaemonSet } from '@kubernetes/client-node'
import { systemClock } from '../../lib/clock.ts'
import { formatDuration } from '../../lib/duration.ts'
import { UserError } from '../../lib/errors.ts'
import type { KubernetesClient } from './client.ts'
import type { PodEvent } from './pull-events.ts'

const goneTimeoutMs = 5 * 60_000
const lookMs = 250
/** Pods are looked at as often, for reasons why nothing moves. */
const diagnoseMs = 5_000

/** What is read of a pod. */
export interface Pod {
  metadata: { name: string; uid: string; deletionTimestamp?: string }
  spec: { nodeName?: string }
  status: {
    phase?: string
    reason?: string
    message?: string
    podIP?: string
    conditions?: { type: string; status: string; reason?: string; message?: string }[]
    initContainerStatuses?: ContainerStatus[]
    containerStatuses?: ContainerStatus[]
  }
}

interface ContainerStatus {
  name: string
  ready?: boolean
  restartCount: number
  state?: {
    waiting?: { reason?: string; message?: string }
    running?: object
    terminated?: { message?: string; reason?: string }
  }
  lastState?: { terminated?: { message?: string; reason?: string } }
}

export interface RolledOut {
  /** On this machine's clock, when Kubernetes said so. */
  atMs: number
  pods: number
}

export function daemonSetPath(namespace: string, name: string): string {
  return `/apis/apps/v1/namespaces/${namespace}/daemonsets/${name}`
}

export async function podsOf(
  client: KubernetesClient,
  namespace: string,
  labels: Readonly<Record<string, string>>,
): Promise<Pod[]> {
  const labelSelector = Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
  const { items } = await client.ask<{ items: Pod[] }>({
    path: `/api/v1/namespaces/${namespace}/pods`,
    query: { labelSelector },
  })
  return items
}

/** Makes it, or gives it another form. Returns it as it is now. */
export async function apply(client: KubernetesClient, object: V1DaemonSet): Promise<V1DaemonSet> {
  const { namespace = '', name = '' } = object.metadata ?? {}
  const path = daemonSetPath(namespace, name)
  const isThere = (await client.find({ path })) !== undefined
  return isThere
    ? client.ask<V1DaemonSet>({ method: 'PUT', path, body: object })
    : client.ask<V1DaemonSet>({ method: 'POST', path: daemonSetPath(namespace, '').slice(0, -1), body: object })
}

/**
 * Until all pods of this form are available. Rejects with a UserError after the time, and at once when `isHopeless` says so
 * of what the pods show.
 */
export async function untilRolledOut(
  client: KubernetesClient,
  wanted: V1DaemonSet,
  options: { timeoutMs: number; signal: AbortSignal; isHopeless?: (troubles: readonly string[]) => boolean },
): Promise<RolledOut> {
  const { namespace = '', name = '', generation = 0 } = wanted.metadata ?? {}
  const { timeoutMs, signal, isHopeless = () => false } = options
  const ended = new AbortController()
  const watching = AbortSignal.any([signal, ended.signal])
  const troubles = async () =>
    troublesOf(await podsOf(client, namespace, wanted.spec?.selector.matchLabels ?? {})).map(
      (trouble) => `${name} ${trouble}`,
    )
  try {
    return await new Promise<RolledOut>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
      const look = (object: V1DaemonSet) => {
        const { observedGeneration = 0, desiredNumberScheduled: desired = 0 } = object.status ?? {}
        const { updatedNumberScheduled: updated = 0, numberAvailable: available = 0 } = object.status ?? {}
        const isDone = observedGeneration >= generation && desired > 0 && updated === desired && available === desired
        if (isDone) resolve({ atMs: Date.now(), pods: desired })
      }
      const request = {
        path: daemonSetPath(namespace, '').slice(0, -1),
        query: { fieldSelector: `metadata.name=${name}` },
      }
      client
        .watch<V1DaemonSet>(request, ({ type, object }) => type !== 'DELETED' && look(object), watching)
        .catch(reject)
      const warning = () => lastWarning(client, namespace, name)
      void diagnose(timeoutMs, watching, troubles, isHopeless, warning).catch(reject)
    })
  } finally {
    ended.abort()
  }
}

/** Rejects when the time is over, or when there is no hope. */
async function diagnose(
  timeoutMs: number,
  signal: AbortSignal,
  troubles: () => Promise<string[]>,
  isHopeless: (troubles: readonly string[]) => boolean,
  warning: () => Promise<string | undefined>,
): Promise<void> {
  const untilMs = systemClock.nowMs() + timeoutMs
  while (systemClock.nowMs() < untilMs) {
    await systemClock.sleep(diagnoseMs, signal).catch(() => undefined)
    if (signal.aborted) return
    const seen = await troubles().catch(() => [])
    if (!signal.aborted && isHopeless(seen)) throw new UserError(seen.join('; '))
  }
  const seen = await troubles().catch(() => [])
  const why = seen.length > 0 ? seen.join('; ') : await warning().catch(() => undefined)
  throw new UserError(`not rolled out after ${formatDuration(timeoutMs)}: ${why ?? 'pods are missing'}`)
}

/** What the kubelet says of its pods before any container is there: of their network, say. */
async function lastWarning(client: KubernetesClient, namespace: string, name: string): Promise<string | undefined> {
  const { items } = await client.ask<{ items: PodEvent[] }>({
    path: `/api/v1/namespaces/${namespace}/events`,
    query: { fieldSelector: 'involvedObject.kind=Pod,type=Warning' },
  })
  const last = items
    .filter(({ involvedObject }) => involvedObject.name.startsWith(`${name}-`))
    .sort((a, b) => a.metadata.creationTimestamp.localeCompare(b.metadata.creationTimestamp))
    .at(-1)
  return last === undefined ? undefined : `${last.involvedObject.name}: ${last.reason}: ${last.message}`
}

/** An image that is not there, or one that does not know its command. */
export function cannotStart(troubles: readonly string[]): boolean {
  return troubles.some((trouble) => /ImagePull|InvalidImageName|CrashLoop/.test(trouble))
}

/** Why pods do not run, one line each. */
export function troublesOf(pods: readonly Pod[]): string[] {
  return pods.flatMap(({ spec, status }) => [
    ...(status.conditions ?? []).flatMap(({ type, status: value, reason, message }) =>
      type === 'PodScheduled' && value === 'False' ? [`waits for a node: ${reason}: ${message}`] : [],
    ),
    ...[...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])].flatMap((container) => {
      const { waiting, terminated } = container.state ?? {}
      const last = terminated ?? container.lastState?.terminated
      const reason = waiting?.reason ?? ''
      const isNormal = reason === 'PodInitializing' || reason === 'ContainerCreating'
      if (container.state?.running !== undefined && container.ready === false) {
        return [`on ${spec.nodeName ?? 'no node'}: ${container.name}: runs and is not ready`]
      }
      if (reason === '' || isNormal) return []
      const words = (last?.message ?? waiting?.message ?? '').trim()
      return [`on ${spec.nodeName ?? 'no node'}: ${container.name}: ${reason}${words === '' ? '' : `: ${words}`}`]
    }),
  ])
}

/** Its pods too. Returns false when there is no such thing. */
export async function removeDaemonSet(client: KubernetesClient, namespace: string, name: string): Promise<boolean> {
  const path = daemonSetPath(namespace, name)
  if ((await client.find({ path })) === undefined) return false
  // Foreground: it is there until its pods are gone.
  await client.remove(path, { propagationPolicy: 'Foreground' })
  await untilGone(client, path, `DaemonSet ${namespace}/${name}`)
  return true
}

/** Throws a UserError when it does not go. */
export async function untilGone(client: KubernetesClient, path: string, what: string): Promise<void> {
  const untilMs = systemClock.nowMs() + goneTimeoutMs
  while ((await client.find({ path })) !== undefined) {
    if (systemClock.nowMs() > untilMs) {
      throw new UserError(`${what} is still there ${formatDuration(goneTimeoutMs)} after it was deleted`)
    }
    await systemClock.sleep(lookMs)
  }
}
