/** Where a measurement puts its objects. Two at once would disturb, and take down, each other. */
import { UserError } from '../../lib/errors.ts'
import type { KubernetesClient } from './client.ts'
import { agentPlaces, networkAgentName } from './network-objects.ts'
import { agentName, namespaceObject, rolloutName } from './objects.ts'
import { daemonSetPath } from './workloads.ts'

/** Throws a UserError when another measurement is there. */
export async function refuseSecond(client: KubernetesClient, namespace: string, signal: AbortSignal): Promise<void> {
  for (const name of [agentName, rolloutName, ...agentPlaces.map(networkAgentName)]) {
    if ((await client.find({ path: daemonSetPath(namespace, name) }, signal)) === undefined) continue
    throw new UserError(
      `${namespace} has a DaemonSet ${name}: another measurement runs there, or one was killed (then: spegel-ts benchmark kubernetes down)`,
    )
  }
}

/** Unless it is there. */
export async function makeNamespace(
  client: KubernetesClient,
  namespace: string,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  if ((await client.find({ path: `/api/v1/namespaces/${namespace}` }, signal)) !== undefined) return
  await client.ask({ method: 'POST', path: '/api/v1/namespaces', body: namespaceObject(namespace) }, signal)
  say(`made namespace ${namespace}`)
}
