/**
 * Takes away what a measurement made in a cluster, at its end or after it was killed: images and hosts.toml on the nodes
 * are as before, and the objects are gone. What was done is read from the cluster; doing it twice does no harm.
 */
import type { V1DaemonSet, V1Namespace } from '@kubernetes/client-node'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { type KubernetesClient, ApiError } from './client.ts'
import { readMirror } from './mirror.ts'
import { agentPlaces, networkAgentName, networkRunName, networkServiceName } from './network-objects.ts'
import {
  type AgentPlan,
  agentDaemonSet,
  agentName,
  ownLabels,
  ownSelector,
  planAnnotation,
  rolloutName,
} from './objects.ts'
import { apply, daemonSetPath, podsOf, removeDaemonSet, untilGone, untilRolledOut } from './workloads.ts'

const restoreTimeoutMs = 10 * 60_000
/** Containers that wait for one of these never ran. */
const neverRan = new Set(['ErrImagePull', 'ImagePullBackOff', 'InvalidImageName', 'ErrImageNeverPull'])
const managedBy = 'app.kubernetes.io/managed-by'

/** Namespaces with something of ours; `fallback` when the cluster does not let us look. */
export async function findLeftovers(client: KubernetesClient, fallback: string): Promise<string[]> {
  const query = { labelSelector: ownSelector }
  try {
    const [namespaces, daemonSets] = await Promise.all(
      ['/api/v1/namespaces', '/apis/apps/v1/daemonsets'].map((path) =>
        client.ask<{ items: (V1Namespace | V1DaemonSet)[] }>({ path, query }),
      ),
    )
    const names = [
      ...(namespaces?.items ?? []).map(({ metadata }) => metadata?.name ?? ''),
      ...(daemonSets?.items ?? []).map(({ metadata }) => metadata?.namespace ?? ''),
    ]
    return [...new Set(names)].sort()
  } catch (error) {
    if (error instanceof ApiError && error.status === 403) return [fallback]
    throw error
  }
}

/** Returns what was done, one line each. Throws a UserError when a node cannot be restored; then everything that is needed stays. */
export async function takeDown(client: KubernetesClient, namespace: string): Promise<string[]> {
  const done: string[] = []
  // First the pods that use the images.
  if (await removeDaemonSet(client, namespace, rolloutName))
    done.push(`removed DaemonSet ${namespace}/${rolloutName}`)
  const agent = await client.find<V1DaemonSet>({ path: daemonSetPath(namespace, agentName) })
  if (agent !== undefined) {
    done.push(await restoreNodes(client, namespace, agent))
    await removeDaemonSet(client, namespace, agentName)
    done.push(`removed DaemonSet ${namespace}/${agentName}`)
  }
  done.push(...(await removeNetwork(client, namespace)))
  const path = `/api/v1/namespaces/${namespace}`
  const object = await client.find<V1Namespace>({ path })
  // One that somebody else made stays.
  if (object?.metadata?.labels?.[managedBy] === ownLabels[managedBy]) {
    await client.remove(path)
    await untilGone(client, path, `namespace ${namespace}`)
    done.push(`removed namespace ${namespace}`)
  }
  return done
}

/** The agents come first and go last: while there is one, there may be more. */
async function removeNetwork(client: KubernetesClient, namespace: string): Promise<string[]> {
  const agents = agentPlaces.map(networkAgentName)
  const found = await Promise.all(agents.map((name) => client.find({ path: daemonSetPath(namespace, name) })))
  if (found.every((agent) => agent === undefined)) return []
  for (const kind of ['pods', 'services'] as const) {
    const path = `/api/v1/namespaces/${namespace}/${kind}/${kind === 'pods' ? networkRunName : networkServiceName}`
    await client.remove(path)
    await untilGone(client, path, path)
  }
  await Promise.all(agents.map((name) => removeDaemonSet(client, namespace, name)))
  return [`removed the agents of benchmark network from ${namespace}`]
}

async function restoreNodes(client: KubernetesClient, namespace: string, agent: V1DaemonSet): Promise<string> {
  const text = agent.metadata?.annotations?.[planAnnotation]
  if (text === undefined)
    throw new UserError(`${namespace}/${agentName} has no annotation ${planAnnotation}: not ours`)
  const plan = JSON.parse(text) as AgentPlan
  if (await neverStarted(client, namespace, agent)) return 'the agents never ran: nothing to restore on the nodes'
  const mirror = plan.mirror === undefined ? undefined : await readMirror(client, plan.mirror)
  const hosts = mirror === undefined ? ('untouched' as const) : { on: mirror.writer }
  const applied = await apply(client, agentDaemonSet(namespace, plan, { turn: crypto.randomUUID(), hosts }))
  await untilRolledOut(client, applied, {
    timeoutMs: restoreTimeoutMs,
    signal: new AbortController().signal,
  }).catch((error: unknown) => {
    throw new UserError(
      `not all nodes are restored: ${errorMessage(error)}. ${namespace}/${agentName} stays: mend the node, then spegel-ts benchmark kubernetes down`,
    )
  })
  const cleared = `removed ${plan.images.length} images from ${plan.hostnames.length} nodes`
  if (plan.mirror === undefined) return cleared
  return mirror === undefined
    ? `${cleared}; ${plan.mirror} is gone: its own clean-up restored hosts.toml`
    : `${cleared}, and switched ${plan.mirror} on`
}

/** In its first form, and on every node without an image to run. */
async function neverStarted(client: KubernetesClient, namespace: string, agent: V1DaemonSet): Promise<boolean> {
  if ((agent.metadata?.generation ?? 0) > 1) return false
  const pods = await podsOf(client, namespace, agent.spec?.selector.matchLabels ?? {})
  return (
    pods.length > 0 &&
    pods.every(({ status }) =>
      [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])].some(
        ({ restartCount, state }) => restartCount === 0 && neverRan.has(state?.waiting?.reason ?? ''),
      ),
    )
  )
}
