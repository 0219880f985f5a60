/** What measuring the network makes in a cluster: an agent at the end of each path, a service, and who measures. */
import type { V1DaemonSet, V1Pod, V1Service } from '@kubernetes/client-node'
import { type NodePair, hostnameLabel } from './nodes.ts'
import { daemonSet, ownLabels, readiness, tool, withoutRights } from './objects.ts'

/** Ends of paths. Each agent is a DaemonSet of one pod. */
export const agentPlaces = ['host', 'pod', 'same-node'] as const
type AgentPlace = (typeof agentPlaces)[number]

/** The first is what the others are compared with. */
export const pathNames = ['host', 'pod', 'service', 'same-node'] as const
export type PathName = (typeof pathNames)[number]

/** Leads to the agent `pod`. */
export const networkServiceName = `${tool}-network-service`
export const networkRunName = `${tool}-network-run`
/** It writes what it has when it is asked to stop. */
export const runStopSeconds = 15

export interface NetworkPlan {
  namespace: string
  image: string
  /** Of all agents, and of the service. */
  port: number
  nodes: NodePair
}

export function networkAgentName(place: AgentPlace): string {
  return `${tool}-network-${place}`
}

const nameLabel = 'app.kubernetes.io/name'

/** What pods of that name are found by. */
export function labelsOf(name: string): Record<string, string> {
  return { [nameLabel]: name }
}

export function networkAgent({ namespace, image, port, nodes }: NetworkPlan, place: AgentPlace): V1DaemonSet {
  const { hostname } = place === 'same-node' ? nodes.here : nodes.there
  return daemonSet(namespace, networkAgentName(place), [hostname], {
    maxUnavailable: '100%',
    spec: {
      hostNetwork: place === 'host',
      terminationGracePeriodSeconds: 5,
      containers: [
        {
          name: 'agent',
          image,
          imagePullPolicy: 'IfNotPresent',
          // On the host's network no port is declared: the agent itself finds out whether it is taken, and says so.
          args: ['benchmark', 'network', 'serve', `--listen-addr=:${port}`],
          readinessProbe: readiness(port, '/livez'),
          terminationMessagePolicy: 'FallbackToLogsOnError',
          securityContext: withoutRights(nobodysGroup),
        },
      ],
    },
  })
}

const nobodysGroup = 65532

export function networkService({ namespace, port }: NetworkPlan): V1Service {
  const metadata = { namespace, name: networkServiceName, labels: { ...ownLabels, ...labelsOf(networkServiceName) } }
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: {
      selector: labelsOf(networkAgentName('pod')),
      // Streams, questions and datagrams of one measurement belong to one agent.
      sessionAffinity: 'ClientIP',
      ports: (['TCP', 'UDP'] as const).map((protocol) => ({
        name: protocol.toLowerCase(),
        protocol,
        port,
        targetPort: port,
      })),
    },
  }
}

/** The one who measures, once. `args` of `benchmark network run`. It ends by itself, also when nobody is there any more. */
export function networkRun(
  { namespace, image, nodes }: NetworkPlan,
  args: readonly string[],
  mostSeconds: number,
): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace, name: networkRunName, labels: { ...ownLabels, ...labelsOf(networkRunName) } },
    spec: {
      nodeSelector: { [hostnameLabel]: nodes.here.hostname },
      restartPolicy: 'Never',
      activeDeadlineSeconds: mostSeconds,
      terminationGracePeriodSeconds: runStopSeconds,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      containers: [
        {
          name: 'run',
          image,
          imagePullPolicy: 'IfNotPresent',
          args: ['benchmark', 'network', 'run', ...args],
          securityContext: withoutRights(nobodysGroup),
        },
      ],
    },
  }
}
