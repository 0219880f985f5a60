import { describe, expect, it } from 'vitest'
import { explainAgent } from '../../../../src/benchmark/kubernetes/network.ts'
import { networkAgent, networkRun, networkService } from '../../../../src/benchmark/kubernetes/network-objects.ts'
import { type MeasuredNode, choosePair } from '../../../../src/benchmark/kubernetes/nodes.ts'

const node = (name: string): MeasuredNode => ({
  name,
  hostname: `${name}.host`,
  runtime: 'containerd 2.3.4',
  instanceType: undefined,
  cpu: undefined,
  memory: undefined,
})
const [n1, n2, n3] = [node('n1'), node('n2'), node('n3')]
const plan = { namespace: 'measured', image: 'spegel-ts:1', port: 5010, nodes: { here: n1, there: n2 } }

describe('the two nodes', () => {
  const all = { nodes: [n1, n2, n3], leftOut: [{ name: 'n4', why: 'it has taints' }] }

  it('are the first two, or those that are named', () => {
    expect(choosePair(all, [])).toEqual({ here: n1, there: n2 })
    expect(choosePair(all, ['n3', 'n1'])).toEqual({ here: n3, there: n1 })
  })

  it.each([
    [['n1'], /name two/],
    [['n1', 'n1'], /name two/],
    [['n1', 'n9'], /n9: the cluster has no such node: n1, n2, n3/],
    [['n4', 'n1'], /n4: it has taints/],
  ])('cannot be %j', (names, message) => {
    expect(() => choosePair(all, names)).toThrow(message)
  })

  it('must be there', () => {
    expect(() => choosePair({ nodes: [n1], leftOut: all.leftOut }, [])).toThrow(
      /two nodes that take pods are needed, and there is only n1; n4: it has taints/,
    )
  })
})

it('agents stand where their path ends, without rights, on the network that it is about', () => {
  const where = (place: 'host' | 'pod' | 'same-node') => {
    const { spec } = networkAgent(plan, place)
    return { nodes: JSON.stringify(spec?.template.spec?.affinity), host: spec?.template.spec?.hostNetwork }
  }
  expect(where('host')).toMatchObject({ nodes: expect.stringContaining('n2.host'), host: true })
  expect(where('pod')).toMatchObject({ nodes: expect.stringContaining('n2.host'), host: false })
  expect(where('same-node')).toMatchObject({ nodes: expect.stringContaining('n1.host'), host: false })
  const run = networkRun(plan, [], 60)
  expect(run.spec).toMatchObject({ nodeSelector: { 'kubernetes.io/hostname': 'n1.host' }, activeDeadlineSeconds: 60 })
  expect(run.spec?.containers[0]?.securityContext).toMatchObject({
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  })
  expect(networkService(plan).spec).toMatchObject({ sessionAffinity: 'ClientIP' })
})

it.each([
  ['a-1: ErrImagePull: not found', /the image spegel-ts:1 cannot be pulled: .*--agent-image/],
  ['a-1: listen EADDRINUSE: address already in use', /port 5010 is taken on the node: .*--agent-port/],
  ['a-1: FailedScheduling', /an agent does not get ready: a-1: FailedScheduling/],
])('an agent that does not start is explained: %s', (trouble, message) => {
  expect(explainAgent(trouble, plan)).toMatch(message)
})
