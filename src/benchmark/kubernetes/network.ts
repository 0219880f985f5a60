/**
 * `benchmark network` in a cluster. One who measures on one node, as a pod, since a user's machine is no part of the
 * network of pods; agents on another node and beside it; the result comes back through the log of the pod.
 */
import type { V1Service } from '@kubernetes/client-node'
import { type HostPort, formatHostPort } from '../../lib/address.ts'
import { systemClock } from '../../lib/clock.ts'
import { formatDuration } from '../../lib/duration.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { parseCheckedJson } from '../checked-json.ts'
import { type NetworkResult, networkResultSchema } from '../result/network-schema.ts'
import type { KubernetesClient } from './client.ts'
import { takeDown } from './down.ts'
import { makeNamespace, refuseSecond } from './namespace.ts'
import {
  type NetworkPlan,
  type PathName,
  type agentPlaces,
  labelsOf,
  networkAgent,
  networkAgentName,
  networkRun,
  networkRunName,
  networkService,
  pathNames,
  runStopSeconds,
} from './network-objects.ts'
import { type Pod, apply, cannotStart, podsOf, troublesOf, untilRolledOut } from './workloads.ts'

/** The image may have to be pulled. */
const agentTimeoutMs = 5 * 60_000
/** Here it is on the node. */
const runTimeoutMs = 2 * 60_000
const lookMs = 250
/** Longer than any measurement: something is said after each. */
const silenceMs = 3 * 60_000
/** The log is lost when it has no line for so long, and cannot be opened. */
const lostMs = 4 * 60_000
/** What kube-proxy needs to know of a service, and more. */
const agentsAnswerTimeout = '30s'

export interface ClusterNetworkInit {
  client: KubernetesClient
  plan: NetworkPlan
  /** Of `benchmark network run`, without paths and where the result goes. */
  args: readonly string[]
  /** The pod that measures ends after this time. */
  mostMs: number
  say: (line: string) => void
  signal: AbortSignal
}

/** Undefined: broken off before there was a result. One that is broken off later is not complete. */
export async function measureClusterNetwork(init: ClusterNetworkInit): Promise<NetworkResult | undefined> {
  const { client, plan, say, signal } = init
  await refuseSecond(client, plan.namespace, signal)
  try {
    await makeNamespace(client, plan.namespace, say, signal)
    const addresses = await startAgents(init)
    return await runOnce(init, addresses)
  } finally {
    for (const line of await takeDown(client, plan.namespace)) say(line)
  }
}

async function startAgents({ client, plan, say, signal }: ClusterNetworkInit): Promise<Record<PathName, HostPort>> {
  const { namespace, port } = plan
  const ended = new AbortController()
  const options = {
    timeoutMs: agentTimeoutMs,
    signal: AbortSignal.any([signal, ended.signal]),
    isHopeless: cannotStart,
  }
  const start = async (place: (typeof agentPlaces)[number]) => {
    await untilRolledOut(client, await apply(client, networkAgent(plan, place)), options)
    const [pod] = await podsOf(client, namespace, labelsOf(networkAgentName(place)))
    return { host: pod?.status.podIP ?? '', port }
  }
  try {
    const [host, pod, sameNode] = await Promise.all([start('host'), start('pod'), start('same-node')])
    const path = `/api/v1/namespaces/${namespace}/services`
    const service = await client.ask<V1Service>({ method: 'POST', path, body: networkService(plan) }, signal)
    say('the agents are ready')
    return { host, pod, service: { host: service.spec?.clusterIP ?? '', port }, 'same-node': sameNode }
  } catch (error) {
    signal.throwIfAborted()
    throw error instanceof UserError ? new UserError(explainAgent(error.message, plan)) : error
  } finally {
    ended.abort()
  }
}

/** What to do about an agent that does not get ready. */
export function explainAgent(trouble: string, { port, image }: Pick<NetworkPlan, 'port' | 'image'>): string {
  if (/ImagePull|InvalidImageName/.test(trouble)) {
    return `the image ${image} cannot be pulled: ${trouble}: name another with --agent-image`
  }
  if (trouble.includes('EADDRINUSE')) {
    return `port ${port} is taken on the node: ${trouble}: choose another with --agent-port`
  }
  return `an agent does not get ready: ${trouble}`
}

async function runOnce(
  { client, plan, args, mostMs, say, signal }: ClusterNetworkInit,
  addresses: Record<PathName, HostPort>,
): Promise<NetworkResult | undefined> {
  const { namespace, nodes } = plan
  const paths = pathNames.map((name) => `${name}=${formatHostPort(addresses[name].host, addresses[name].port)}`)
  const all = [...args, '--result-dir=-', `--agents-timeout=${agentsAnswerTimeout}`, '--path', ...paths]
  const pods = `/api/v1/namespaces/${namespace}/pods`
  const body = networkRun(plan, all, Math.ceil(mostMs / 1000))
  await client.ask({ method: 'POST', path: pods, body }, signal)
  await untilRunning(client, namespace, signal)
  const said = new SaidByRun(say)
  await readLog(client, namespace, said, signal).catch(async (error: unknown) => {
    if (!signal.aborted) throw error
    // It is asked to stop, and writes what it has until then.
    await client.remove(`${pods}/${networkRunName}`)
    const rest = AbortSignal.timeout(runStopSeconds * 1000)
    await readLog(client, namespace, said, rest).catch(() => undefined)
  })
  if (said.result !== undefined) {
    return parseCheckedJson(said.result, `the result of ${nodes.here.name}`, networkResultSchema)
  }
  if (signal.aborted) return undefined
  const [pod] = await podsOf(client, namespace, labelsOf(networkRunName))
  const why =
    said.problem ?? pod?.status.message ?? pod?.status.reason ?? (pod === undefined ? 'its pod is gone' : 'it ended')
  throw new UserError(`no result from ${nodes.here.name}: ${why}`)
}

async function untilRunning(client: KubernetesClient, namespace: string, signal: AbortSignal): Promise<void> {
  const untilMs = systemClock.nowMs() + runTimeoutMs
  for (;;) {
    const pods = await podsOf(client, namespace, labelsOf(networkRunName))
    const [pod] = pods
    if (pod !== undefined && pod.status.phase !== 'Pending') return
    const troubles = troublesOf(pods)
    if (cannotStart(troubles) || systemClock.nowMs() > untilMs) {
      const why = troubles.join('; ') || pod?.status.message
      throw new UserError(
        `${networkRunName} does not start: ${why ?? `it waits since ${formatDuration(runTimeoutMs)}`}`,
      )
    }
    await systemClock.sleep(lookMs, signal)
  }
}

/** All that is in the pod's log, as it comes: lines for people, and the result. */
class SaidByRun {
  /** As JSON. */
  result: string | undefined
  /** What it ended with. */
  problem: string | undefined
  readonly #say: (line: string) => void
  /** A log that is opened again begins anew. */
  readonly #said = new Set<string>()

  constructor(say: (line: string) => void) {
    this.#say = say
  }

  add(line: string): void {
    if (line.startsWith('{')) this.result = line
    else if (line.startsWith('spegel-ts: ')) this.problem = line.slice('spegel-ts: '.length)
    else if (line !== '' && !this.#said.has(line)) {
      this.#said.add(line)
      this.#say(line)
    }
  }
}

/** Until there is a result, or the pod has ended and its log is read. */
async function readLog(
  client: KubernetesClient,
  namespace: string,
  said: SaidByRun,
  signal: AbortSignal,
): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/pods/${networkRunName}/log`
  let goodMs = systemClock.nowMs()
  while (said.result === undefined) {
    const wasOver = isOver(await podsOf(client, namespace, labelsOf(networkRunName)))
    try {
      const request = { path, query: { follow: 'true' } }
      await client.lines(
        request,
        (line) => {
          said.add(line)
          goodMs = systemClock.nowMs()
        },
        { silenceMs, signal },
      )
      if (wasOver) return
    } catch (error) {
      signal.throwIfAborted()
      const isLost = systemClock.nowMs() > goodMs + lostMs
      if (wasOver || isLost)
        throw new UserError(`the log of ${networkRunName} cannot be read: ${errorMessage(error)}`)
    }
    if (said.result === undefined) await systemClock.sleep(lookMs, signal)
  }
}

function isOver([pod]: readonly Pod[]): boolean {
  return pod === undefined || pod.status.phase === 'Succeeded' || pod.status.phase === 'Failed'
}
