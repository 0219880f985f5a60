/** Which nodes are measured: those that take ordinary pods. The choice is made once, so that a node that joins changes nothing. */
import { UserError } from '../../lib/errors.ts'

/** What is read of a node. */
export interface NodeObject {
  metadata: { name: string; labels?: Record<string, string> }
  spec: { unschedulable?: boolean; taints?: { key: string; effect: string }[] }
  status: {
    conditions?: { type: string; status: string }[]
    nodeInfo: { containerRuntimeVersion: string; operatingSystem: string; kubeletVersion: string }
    capacity?: { cpu?: string; memory?: string }
  }
}

export interface MeasuredNode {
  name: string
  /** Of its label, by which pods are bound to it. */
  hostname: string
  /** Such as `containerd 2.3.4`. */
  runtime: string
  instanceType: string | undefined
  cpu: string | undefined
  memory: string | undefined
}

export interface LeftOutNode {
  name: string
  why: string
}

/** Between which the network is measured. */
export interface NodePair {
  /** Who measures is here. */
  here: MeasuredNode
  there: MeasuredNode
}

export const hostnameLabel = 'kubernetes.io/hostname'
const instanceTypeLabel = 'node.kubernetes.io/instance-type'
/** Kubernetes sets it where a cloud does not. */
const unknownInstanceType = 'k8s'

export function chooseNodes(objects: readonly NodeObject[]): { nodes: MeasuredNode[]; leftOut: LeftOutNode[] } {
  const judged = objects
    .toSorted((a, b) => a.metadata.name.localeCompare(b.metadata.name, 'en', { numeric: true }))
    .map((object) => ({ object, why: whyNot(object) }))
  return {
    nodes: judged.filter(({ why }) => why === undefined).map(({ object }) => describe(object)),
    leftOut: judged.flatMap(({ object, why }) => (why === undefined ? [] : [{ name: object.metadata.name, why }])),
  }
}

/** Those that are named, here first; else the first two. Throws a UserError. */
export function choosePair(
  { nodes, leftOut }: { nodes: readonly MeasuredNode[]; leftOut: readonly LeftOutNode[] },
  names: readonly string[],
): NodePair {
  if (names.length === 0) {
    const [here, there] = nodes
    if (here !== undefined && there !== undefined) return { here, there }
    const usable = here === undefined ? 'there is none' : `there is only ${here.name}`
    const others = leftOut.map(({ name, why }) => `${name}: ${why}`)
    throw new UserError([`two nodes that take pods are needed, and ${usable}`, ...others].join('; '))
  }
  if (names.length !== 2 || names[0] === names[1]) {
    throw new UserError('--nodes: name two: the one that measures, and the one that answers')
  }
  const [here, there] = names.map((name) => {
    const node = nodes.find((each) => each.name === name)
    if (node !== undefined) return node
    const why = leftOut.find((each) => each.name === name)?.why
    throw new UserError(
      `--nodes: ${name}: ${why ?? `the cluster has no such node: ${nodes.map((each) => each.name).join(', ')}`}`,
    )
  })
  return { here: here!, there: there! }
}

function whyNot({ metadata, spec, status }: NodeObject): string | undefined {
  if (status.nodeInfo.operatingSystem !== 'linux') return `its system is ${status.nodeInfo.operatingSystem}`
  if (metadata.labels?.[hostnameLabel] === undefined) return `it has no label ${hostnameLabel}`
  if (spec.unschedulable === true) return 'it is cordoned'
  const taints = (spec.taints ?? []).filter(({ effect }) => effect !== 'PreferNoSchedule')
  if (taints.length > 0) return `it has a taint: ${taints.map(({ key }) => key).join(', ')}`
  const isReady = status.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True')
  return isReady === true ? undefined : 'it is not Ready'
}

function describe({ metadata, status }: NodeObject): MeasuredNode {
  const instanceType = metadata.labels?.[instanceTypeLabel]
  return {
    name: metadata.name,
    hostname: metadata.labels?.[hostnameLabel] ?? metadata.name,
    runtime: status.nodeInfo.containerRuntimeVersion.replace('://', ' '),
    instanceType: instanceType === unknownInstanceType ? undefined : instanceType,
    cpu: status.capacity?.cpu,
    memory: status.capacity?.memory,
  }
}
