/** The objects that a measurement makes. All carry one label, by which `benchmark kubernetes down` finds them. */
import type { V1Container, V1DaemonSet, V1Namespace, V1PodSpec, V1Volume } from '@kubernetes/client-node'
import { dirname } from 'node:path'
import { hostnameLabel } from './nodes.ts'

export const tool = 'spegel-ts-benchmark'
export const ownLabels = { 'app.kubernetes.io/managed-by': tool }
export const ownSelector = `app.kubernetes.io/managed-by=${tool}`
/** The images are pulled for its pods. */
export const rolloutName = `${tool}-rollout`
/** Its pods remove images from their nodes, and switch the mirror on and off. */
export const agentName = `${tool}-agent`
/** On the agent: all that is needed to undo what it did, also for a process that knows nothing else. */
export const planAnnotation = `${tool}/plan`
const turnAnnotation = `${tool}/turn`

const clearPort = 8080
const restorePort = 8081
/** Not the name of the volume that the installed mirror's writer brings. */
const stateFolder = 'agent-containerd-state'
const nobody = 65532
/** Pods of the published benchmark are updated so. */
export const updatePercent = 20

/** What the agents need to know, from the first turn to the end. */
export interface AgentPlan {
  image: string
  /** Values of the label kubernetes.io/hostname. */
  hostnames: readonly string[]
  containerdSock: string
  /** To be removed from the nodes. */
  images: readonly string[]
  /** `namespace/name` of the mirror's DaemonSet, if it is switched off and on. */
  mirror: string | undefined
}

/** How the mirror's own DaemonSet writes hosts.toml. */
export interface HostsWriter {
  container: V1Container
  volumes: readonly V1Volume[]
  /** certs.d, as the container sees it. */
  folder: string
}

export interface AgentState {
  /** Another one for every turn: the agents start anew. */
  turn: string
  /** hosts.toml: as it is, without the mirror, or with it. */
  hosts: 'untouched' | { off: HostsWriter } | { on: HostsWriter }
}

export function namespaceObject(name: string): V1Namespace {
  return {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: {
      name,
      // The agents mount folders of the host.
      labels: { ...ownLabels, 'pod-security.kubernetes.io/enforce': 'privileged' },
    },
  }
}

/** A pod that waits on each node: the image's own program must wait. */
export function rolloutDaemonSet(namespace: string, image: string, hostnames: readonly string[]): V1DaemonSet {
  return daemonSet(namespace, rolloutName, hostnames, {
    maxUnavailable: `${updatePercent}%`,
    spec: {
      terminationGracePeriodSeconds: 5,
      // Standard input that never comes keeps a shell waiting.
      containers: [{ name: 'wait', image, imagePullPolicy: 'IfNotPresent', stdin: true }],
    },
  })
}

/** Its pods are ready when their node is as the state says. */
export function agentDaemonSet(namespace: string, plan: AgentPlan, { turn, hosts }: AgentState): V1DaemonSet {
  const writer = hosts === 'untouched' ? undefined : 'off' in hosts ? hosts.off : hosts.on
  const isOn = typeof hosts === 'object' && 'on' in hosts
  const socketFolder = dirname(plan.containerdSock)
  return daemonSet(namespace, agentName, plan.hostnames, {
    maxUnavailable: '100%',
    annotations: { [planAnnotation]: JSON.stringify(plan) },
    podAnnotations: { [turnAnnotation]: turn },
    spec: {
      // Nodes that were chosen get their files back, whatever became of them.
      tolerations: [{ operator: 'Exists' }],
      terminationGracePeriodSeconds: 5,
      initContainers: isOn && writer !== undefined ? [writeContainer(writer)] : [],
      containers: [
        clearContainer(plan, socketFolder),
        ...(isOn || writer === undefined ? [] : [restoreContainer(plan.image, writer)]),
      ],
      volumes: [
        { name: stateFolder, hostPath: { path: socketFolder, type: 'Directory' } },
        ...(writer?.volumes ?? []),
      ],
    },
  })
}

/** The mirror's own, whose image is on the node. */
function writeContainer({ container }: HostsWriter): V1Container {
  const own = structuredClone(container)
  own.imagePullPolicy = 'IfNotPresent'
  return own
}

/** As the daemon: nobody, in the group that containerd's socket belongs to. */
function clearContainer({ image, containerdSock, images }: AgentPlan, socketFolder: string): V1Container {
  return {
    name: 'clear',
    image,
    imagePullPolicy: 'IfNotPresent',
    args: [
      'benchmark',
      'kubernetes',
      'clear',
      `--addr=:${clearPort}`,
      `--containerd-sock=${containerdSock}`,
      '--images',
      ...images,
    ],
    readinessProbe: readiness(clearPort),
    terminationMessagePolicy: 'FallbackToLogsOnError',
    securityContext: withoutRights(0),
    // The folder and not the socket: containerd makes a new one each time it starts.
    volumeMounts: [
      { name: stateFolder, mountPath: socketFolder, readOnly: true, mountPropagation: 'HostToContainer' },
    ],
  }
}

/** With the rights that the mirror's own writer has: the same files are restored that it wrote. */
function restoreContainer(image: string, { container, folder }: HostsWriter): V1Container {
  return {
    name: 'hosts-off',
    image,
    imagePullPolicy: 'IfNotPresent',
    // The daemon runs on, and reads the folder too.
    args: ['cleanup', `--addr=:${restorePort}`, '--keep-folder=true', `--containerd-registry-config-path=${folder}`],
    readinessProbe: readiness(restorePort),
    terminationMessagePolicy: 'FallbackToLogsOnError',
    ...(container.securityContext === undefined ? {} : { securityContext: container.securityContext }),
    ...(container.volumeMounts === undefined ? {} : { volumeMounts: container.volumeMounts }),
  }
}

/** As nobody, in this group. */
export function withoutRights(group: number): NonNullable<V1Container['securityContext']> {
  return {
    runAsNonRoot: true,
    runAsUser: nobody,
    runAsGroup: group,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  }
}

export function readiness(port: number, path = '/readyz'): NonNullable<V1Container['readinessProbe']> {
  return { httpGet: { path, port }, periodSeconds: 1 }
}

interface Pods {
  maxUnavailable: string
  spec: V1PodSpec
  /** Of the DaemonSet. */
  annotations?: Record<string, string>
  podAnnotations?: Record<string, string>
}

export function daemonSet(
  namespace: string,
  name: string,
  hostnames: readonly string[],
  { maxUnavailable, spec, annotations = {}, podAnnotations = {} }: Pods,
): V1DaemonSet {
  const labels = { ...ownLabels, 'app.kubernetes.io/name': name }
  const isMeasured = { key: hostnameLabel, operator: 'In', values: [...hostnames] }
  return {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { namespace, name, labels, annotations },
    spec: {
      selector: { matchLabels: { 'app.kubernetes.io/name': name } },
      updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable } },
      template: {
        metadata: { labels, annotations: podAnnotations },
        spec: Object.assign(spec, {
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          affinity: {
            nodeAffinity: {
              requiredDuringSchedulingIgnoredDuringExecution: {
                nodeSelectorTerms: [{ matchExpressions: [isMeasured] }],
              },
            },
          },
        }),
      },
    },
  }
}
