import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { V1DaemonSet } from '@kubernetes/client-node'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { growth, parseCounters } from '../../../../src/benchmark/kubernetes/counters.ts'
import { readKubeconfig } from '../../../../src/benchmark/kubernetes/kubeconfig.ts'
import { describePhase, waveSizeOf } from '../../../../src/benchmark/kubernetes/kubernetes-target.ts'
import { asMirror, refuseForeignSecrets } from '../../../../src/benchmark/kubernetes/mirror.ts'
import { type NodeObject, chooseNodes } from '../../../../src/benchmark/kubernetes/nodes.ts'
import { type AgentPlan, agentDaemonSet, rolloutDaemonSet } from '../../../../src/benchmark/kubernetes/objects.ts'
import { troublesOf } from '../../../../src/benchmark/kubernetes/workloads.ts'
import { registryImageSet, registrySuiteImageSets } from '../../../../src/benchmark/measure/images.ts'
import { mirrorsInCluster } from '../../../../src/cli/benchmark-kubernetes.ts'

const MiB = 2 ** 20

describe('a kubeconfig', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'kubeconfig-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  const file = async (name: string, content: object | string) => {
    const path = join(folder, name)
    await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content))
    return path
  }
  const read = (files: string | undefined, context?: string) => readKubeconfig({ files, context, home: folder })
  const config = (name: string, more: object = {}) => ({
    'current-context': name,
    clusters: [{ name, cluster: { server: `https://${name}.test:6443` } }],
    users: [{ name, user: { token: 'secret' } }],
    contexts: [{ name, context: { cluster: name, user: name } }],
    ...more,
  })

  it('names the cluster of its context', async () => {
    const path = await file('one', config('one'))
    expect(read(path).getCurrentCluster()?.server).toBe('https://one.test:6443')
  })

  it('may be several files: all contexts, and the first one that names the current one', async () => {
    const [one, two] = [await file('one', config('one')), await file('two', config('two'))]
    expect(read(`${one}:${two}`).getCurrentCluster()?.server).toBe('https://one.test:6443')
    expect(read(`${one}:${two}`, 'two').getCurrentCluster()?.server).toBe('https://two.test:6443')
  })

  it.each<[string, object | string, RegExp]>([
    ['no YAML', '{', /cannot be read as a kubeconfig: /],
    ['something else', 'hello', /has no current-context: it has none at all$/],
    ['no context', config('one', { 'current-context': '' }), /has no current-context: it has one$/],
    ['no cluster', config('one', { clusters: [] }), /context one names cluster "one", which is not in it/],
    ['no user', config('one', { users: [] }), /context one names user "one", which is not in it/],
  ])('with %s is refused, with its path', async (_name, content, message) => {
    const path = await file('bad', content)
    expect(() => read(path)).toThrow(message)
    expect(() => read(path)).toThrow(path)
  })

  it('that is not there, and a context that is not in it, are named', async () => {
    expect(() => read('/no/config')).toThrow('--kubeconfig: /no/config does not exist')
    expect(() => read(undefined)).toThrow(`${folder}/.kube/config does not exist: give the path of yours`)
    const path = await file('one', config('one'))
    expect(() => read(path, 'three')).toThrow(`--context: --kubeconfig ${path} has no "three": it has one`)
  })
})

describe('nodes', () => {
  const node = (name: string, more: { spec?: NodeObject['spec']; labels?: object; ready?: string } = {}) => ({
    metadata: { name, labels: { 'kubernetes.io/hostname': name, ...more.labels } },
    spec: more.spec ?? {},
    status: {
      conditions: [{ type: 'Ready', status: more.ready ?? 'True' }],
      nodeInfo: {
        containerRuntimeVersion: 'containerd://2.3.4',
        operatingSystem: 'linux',
        kubeletVersion: 'v1.35.4',
      },
      capacity: { cpu: '8', memory: '32863240Ki' },
    },
  })

  it('that take ordinary pods are measured, in the order of their numbers; why others are not is said', () => {
    const { nodes, leftOut } = chooseNodes([
      node('n10'),
      node('n2', { labels: { 'node.kubernetes.io/instance-type': 'Standard_D8ds_v5' } }),
      node('n3', { spec: { taints: [{ key: 'gpu', effect: 'NoSchedule' }] } }),
      node('n4', { spec: { taints: [{ key: 'spot', effect: 'PreferNoSchedule' }] } }),
      node('n5', { spec: { unschedulable: true } }),
      node('n6', { ready: 'Unknown' }),
    ])
    expect(nodes.map(({ name }) => name)).toEqual(['n2', 'n4', 'n10'])
    expect(nodes[0]).toMatchObject({ runtime: 'containerd 2.3.4', instanceType: 'Standard_D8ds_v5', cpu: '8' })
    expect(leftOut).toEqual([
      { name: 'n3', why: 'it has a taint: gpu' },
      { name: 'n5', why: 'it is cordoned' },
      { name: 'n6', why: 'it is not Ready' },
    ])
  })

  it('are updated 20 % at a time, as Kubernetes rounds it', () => {
    expect([1, 3, 5, 6, 8, 10].map(waveSizeOf)).toEqual([1, 1, 1, 2, 2, 2])
  })
})

/** As the chart renders it, shortened. */
function installed(more: { volume?: object; args?: string[] } = {}): V1DaemonSet {
  const labels = { 'app.kubernetes.io/name': 'spegel-ts', 'app.kubernetes.io/component': 'mirror' }
  return {
    metadata: { namespace: 'spegel-ts', name: 'spegel-ts' },
    spec: {
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          initContainers: [
            {
              name: 'configuration',
              image: 'mirror:1',
              imagePullPolicy: 'Always',
              args: more.args ?? ['configuration', '--containerd-registry-config-path=/host/etc/containerd/certs.d'],
              securityContext: { runAsUser: 0 },
              volumeMounts: [{ name: 'parent', mountPath: '/host/etc/containerd' }],
            },
          ],
          containers: [
            {
              name: 'registry',
              image: 'mirror:1',
              args: ['registry'],
              ports: [{ name: 'metrics', containerPort: 9090 }],
            },
          ],
          volumes: [
            { name: 'parent', ...(more.volume ?? { hostPath: { path: '/etc/containerd' } }) },
            { name: 'data', hostPath: { path: '/var/lib/spegel-ts' } },
          ],
        },
      },
    },
  }
}

describe('the mirror that is installed', () => {
  it('is known by the container that writes hosts.toml', () => {
    expect(asMirror(installed())).toMatchObject({
      namespace: 'spegel-ts',
      name: 'spegel-ts',
      isOurs: true,
      image: 'mirror:1',
      metricsPort: 9090,
      writer: { folder: '/host/etc/containerd/certs.d', volumes: [{ name: 'parent' }] },
    })
    expect(asMirror({ spec: { selector: {}, template: { spec: { containers: [{ name: 'x' }] } } } })).toBeUndefined()
  })

  it('may name the folder as Spegel does, or not at all', () => {
    const folder = (args: string[]) => asMirror(installed({ args }))?.writer.folder
    expect(folder(['configuration', '--containerd-registry-config-path', '/etc/certs.d'])).toBe('/etc/certs.d')
    expect(folder(['configuration'])).toBe('/etc/containerd/certs.d')
  })

  it('with a password can be switched in its own namespace only', () => {
    const mirror = asMirror(installed({ volume: { secret: { secretName: 'x' } } }))!
    expect(() => refuseForeignSecrets(mirror, 'benchmark')).toThrow(
      'volume "parent" is needed, which only pods in its own namespace get: give --namespace spegel-ts',
    )
    expect(() => refuseForeignSecrets(mirror, 'spegel-ts')).not.toThrow()
    expect(() => refuseForeignSecrets(asMirror(installed())!, 'benchmark')).not.toThrow()
  })

  it('is compared with none, which switches it off', () => {
    const mirror = asMirror(installed())
    expect(mirrorsInCluster([], 2, mirror)).toEqual([
      { name: 'none', command: undefined, rounds: 2 },
      { name: 'spegel-ts', command: 'mirror:1 registry' },
    ])
    expect(mirrorsInCluster([], 0, undefined)).toEqual([{ name: 'none', command: undefined }])
    expect(mirrorsInCluster(['dragonfly'], 0, undefined)).toEqual([
      { name: 'dragonfly', command: 'as it is installed' },
    ])
  })

  it.each([
    [['none', 'dragonfly'], /no mirror whose hosts.toml we could switch off/],
    [['a', 'b'], /one mirror at a time: measure a, install the other/],
    [['none', 'none'], /one mirror at a time/],
    [['a=run it'], /"a=run it": in a cluster write none, or a name/],
  ])('--mirror %j is refused', (names, message) => {
    expect(() => mirrorsInCluster(names, 0, undefined)).toThrow(message)
  })
})

describe('objects', () => {
  const plan: AgentPlan = {
    image: 'agent:1',
    hostnames: ['n1', 'n2'],
    containerdSock: '/run/k3s/containerd/containerd.sock',
    images: ['r/i:v1', 'r/i:v2'],
    mirror: 'spegel-ts/spegel-ts',
  }
  const { writer } = asMirror(installed())!
  const podOf = (hosts: Parameters<typeof agentDaemonSet>[2]['hosts']) =>
    agentDaemonSet('ns', plan, { turn: 't', hosts }).spec?.template.spec

  it('pin pods to the nodes that were chosen', () => {
    const { spec } = rolloutDaemonSet('ns', 'r/i:v1', plan.hostnames)
    expect(JSON.stringify(spec?.template.spec?.affinity)).toContain('"values":["n1","n2"]')
    expect(spec?.updateStrategy?.rollingUpdate).toEqual({ maxUnavailable: '20%' })
  })

  it('clear images without any right but the group of the socket', () => {
    const clear = podOf('untouched')?.containers[0]
    expect(clear?.args).toEqual([
      'benchmark',
      'kubernetes',
      'clear',
      '--addr=:8080',
      '--containerd-sock=/run/k3s/containerd/containerd.sock',
      '--images',
      'r/i:v1',
      'r/i:v2',
    ])
    expect(clear?.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsGroup: 0,
      capabilities: { drop: ['ALL'] },
    })
    expect(podOf('untouched')?.volumes).toHaveLength(1)
  })

  it('switch hosts.toml off as clean-up does, and on by the very container of the mirror', () => {
    const off = podOf({ off: writer })
    expect(off?.initContainers).toEqual([])
    expect(off?.containers[1]).toMatchObject({
      image: 'agent:1',
      args: [
        'cleanup',
        '--addr=:8081',
        '--keep-folder=true',
        '--containerd-registry-config-path=/host/etc/containerd/certs.d',
      ],
      securityContext: { runAsUser: 0 },
      volumeMounts: [{ name: 'parent', mountPath: '/host/etc/containerd' }],
    })
    const on = podOf({ on: writer })
    expect(on?.containers).toHaveLength(1)
    const own = { name: 'configuration', args: writer.container.args, imagePullPolicy: 'IfNotPresent' }
    expect(on?.initContainers).toMatchObject([own])
    expect(on?.volumes?.map(({ name }) => name)).toEqual(['agent-containerd-state', 'parent'])
  })

  it('carry all that is needed to undo them', () => {
    const { metadata } = agentDaemonSet('ns', plan, { turn: 't', hosts: { off: writer } })
    expect(JSON.parse(metadata?.annotations?.['spegel-ts-benchmark/plan'] ?? '')).toEqual(plan)
  })
})

describe('pods that do not start', () => {
  it('say why', () => {
    const pods = [
      {
        metadata: { name: 'a', uid: 'a' },
        spec: { nodeName: 'n1' },
        status: {
          containerStatuses: [
            {
              name: 'clear',
              restartCount: 2,
              state: { waiting: { reason: 'CrashLoopBackOff', message: 'back-off' } },
              lastState: { terminated: { message: 'spegel-ts: "benchmark" is not a command\n' } },
            },
            { name: 'hosts-off', restartCount: 0, state: { waiting: { reason: 'ContainerCreating' } } },
          ],
        },
      },
    ]
    expect(troublesOf(pods)).toEqual(['on n1: clear: CrashLoopBackOff: spegel-ts: "benchmark" is not a command'])
  })
})

describe("a mirror's counters", () => {
  const text = (toContainerd: number, cpu: number) => `# HELP spegel_sent_bytes_total Bytes
# TYPE spegel_sent_bytes_total counter
spegel_sent_bytes_total{source="peer",to="containerd"} ${toContainerd}
spegel_sent_bytes_total{source="store",to="containerd"} 5
spegel_sent_bytes_total{source="store",to="peer"} 7e3
process_cpu_seconds_total ${cpu}
`

  it('are read from its metrics', () => {
    expect(parseCounters(text(100, 1.5))).toEqual({ toContainerdBytes: 105, toPeersBytes: 7000, cpuSeconds: 1.5 })
    // Spegel's.
    expect(parseCounters('process_cpu_seconds_total 2\n')).toEqual({
      toContainerdBytes: undefined,
      toPeersBytes: undefined,
      cpuSeconds: 2,
    })
    expect(parseCounters('# TYPE spegel_sent_bytes_total counter\n').toPeersBytes).toBe(0)
  })

  it('grow between two readings, also when a mirror began anew', () => {
    const before = new Map([
      ['a', parseCounters(text(100, 1))],
      ['b', parseCounters(text(900, 9))],
      ['gone', parseCounters(text(1, 1))],
    ])
    const after = new Map([
      ['a', parseCounters(text(400, 2))],
      // The same pod, started again.
      ['b', parseCounters(text(45, 1))],
      ['new', parseCounters(text(15, 4))],
    ])
    expect(growth(before, after)).toEqual({ toContainerdBytes: 300 + 50 + 20, toPeersBytes: 7000, cpuSeconds: 6 })
    expect(growth(new Map(), new Map()).toContainerdBytes).toBeUndefined()
  })
})

describe('a phase', () => {
  const pulls = [100, 200, 300].map((startedMs, index) => ({ node: `n${index + 1}`, startedMs, durationMs: 1_000 }))
  const measured = { image: 'r/i:v1', changedMs: 0, rolledOutMs: 2_500, waveSize: 2 }
  const all = { pulls, imageBytes: 10 * MiB, problems: [], remarks: [] }

  it('counts what the nodes got and their mirrors did not give them as upstream', () => {
    const counters = { toContainerdBytes: 20 * MiB, toPeersBytes: 21 * MiB, cpuSeconds: 3 }
    expect(describePhase({ ...measured, pulls: all }, counters)).toMatchObject({
      started: '1970-01-01T00:00:00.100Z',
      duration: 1_200e6,
      rollout: 2_500e6,
      imageBytes: 10 * MiB,
      upstream: { blobBytes: 10 * MiB },
      peerBytes: 21 * MiB,
      mirror: { cpuSeconds: 3, cpuSecondsPerGiB: 3 / (30 / 1024) },
      pulls: [
        { node: 'n1', wave: 1, started: 0, duration: 1e9 },
        { node: 'n2', wave: 1, started: 100e6 },
        { node: 'n3', wave: 2, started: 200e6 },
      ],
    })
  })

  it('leaves out what nobody tells', () => {
    const nothing = { toContainerdBytes: undefined, toPeersBytes: undefined, cpuSeconds: undefined }
    const phase = describePhase({ ...measured, pulls: all }, nothing)
    expect(phase.upstream).toEqual({})
    expect(phase).not.toHaveProperty('peerBytes')
    expect(phase).not.toHaveProperty('mirror')
    const empty = describePhase({ ...measured, pulls: { ...all, pulls: [], imageBytes: undefined } }, nothing)
    expect(empty).toMatchObject({ duration: 0, imageBytes: 0, pulls: [], upstream: {} })
  })
})

describe('images in a cluster', () => {
  it('are those of a registry, called by size and layers', () => {
    const set = registryImageSet('ghcr.io/org/benchmark:v1-10MB-4', 'ghcr.io/org/benchmark:v2-10MB-4')
    expect(set).toEqual({
      name: '10MB-4',
      create: [{ kind: 'reference', reference: 'ghcr.io/org/benchmark:v1-10MB-4' }],
      update: [{ kind: 'reference', reference: 'ghcr.io/org/benchmark:v2-10MB-4' }],
    })
    expect(registryImageSet('r.io/app:1.0', 'r.io/app:1.1').name).toBe('1.0+1.1')
    expect(registrySuiteImageSets('r.io/b', false).map(({ name }) => name)).toEqual([
      '10MB-1',
      '10MB-4',
      '100MB-1',
      '100MB-4',
    ])
    expect(registrySuiteImageSets('r.io/b', true)[5]?.update[0]?.reference).toBe('r.io/b:v2-1GB-4')
  })

  it.each([
    ['v1-10MB-4', 'v2-10MB-4', /"v1-10MB-4" is not an image of a registry: write HOST\/REPOSITORY:TAG/],
    ['r.io/app:1', 'r.io/app:1', /the update must be another image/],
    ['r.io/app:1', 'r.io/app', /"r.io\/app" is not an image/],
  ])('%s and %s are refused', (create, update, message) => {
    expect(() => registryImageSet(create, update)).toThrow(message)
  })
})
