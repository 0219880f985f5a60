/** The test-bed itself: what the other tests rely on. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { fetchFrom } from '../../src/testbed/fetch.ts'
import { end, waitUntil } from '../../src/testbed/process.ts'
import type { Pod } from './api.ts'
import { Churn } from './churn.ts'
import { Cluster, busyboxImage } from './cluster.ts'
import { removeLeftClusters } from './down.ts'
import { busyboxContainer, waitDaemonSet } from './objects.ts'
import { stillRunning, tracesOf } from './traces.ts'

const MiB = 1024 * 1024
const patienceMs = 60_000
const webPort = 8080
const [hostPort, nodePort] = [30_100, 30_101]

describe('the cluster', () => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 3, containerd: ['old', 'new'] })
  })
  afterAll(() => cluster.stop())
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') process.stderr.write(await cluster.lastWords())
  })

  const until = (what: string, probe: () => Promise<boolean>) => waitUntil(what, probe, { timeoutMs: patienceMs })
  const podsOf = (app: string) => cluster.api.pods('default', `app=${app}`)
  const rollout = (name: string) => cluster.kubectl('rollout', 'status', `daemonset/${name}`, '--timeout=60s')

  it('has nodes with both generations of containerd', async () => {
    const versions = (await cluster.api.nodes()).map(({ status }) => status.nodeInfo.containerRuntimeVersion)
    expect(versions).toEqual([
      expect.stringMatching(/^containerd:\/\/1\.[67]\./),
      expect.stringMatching(/^containerd:\/\/2\.3\./),
      expect.stringMatching(/^containerd:\/\/1\.[67]\./),
    ])
  })

  it('runs a pod on each node, from the registry, which knows who asked for what', async () => {
    const { reference, image } = await cluster.publish('wait:v1', { sizeBytes: MiB, layers: 2, seed: 'v1' })
    await cluster.apply(waitDaemonSet('wait', reference))
    await rollout('wait')
    expect(new Set((await podsOf('wait')).map(({ spec }) => spec.nodeName))).toEqual(new Set(['n1', 'n2', 'n3']))
    for (const { digest, size } of image.layers) {
      const gets = cluster.upstream.requests().filter(({ method, path }) => method === 'GET' && path.endsWith(digest))
      expect(gets.map(({ client }) => client).sort()).toEqual(cluster.nodes.map(({ host }) => host.ip).sort())
      expect(gets.every(({ bytes }) => bytes === size)).toBe(true)
    }
    const pulled = (await cluster.api.podEvents('default')).filter(({ reason }) => reason === 'Pulled')
    expect(new Set(pulled.map(({ source }) => source.host))).toEqual(new Set(['n1', 'n2', 'n3']))
    expect(pulled[0]?.message).toMatch(/^Successfully pulled image .* in [\d.]+m?s /)
  })

  it('leads pods to each other, to Services by name, to the API, and from ports of nodes', async () => {
    const labels = { app: 'web' }
    const script = `/busybox mkdir /www; /busybox hostname > /www/index.html; /busybox httpd -f -p ${webPort} -h /www`
    const ports = [{ containerPort: webPort, hostPort }]
    const readinessProbe = { tcpSocket: { port: webPort }, periodSeconds: 1 }
    await cluster.apply(
      {
        apiVersion: 'apps/v1',
        kind: 'DaemonSet',
        metadata: { name: 'web' },
        spec: {
          selector: { matchLabels: labels },
          template: {
            metadata: { labels },
            spec: { containers: [busyboxContainer(busyboxImage, script, { ports, readinessProbe })] },
          },
        },
      },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web' },
        spec: { type: 'NodePort', selector: labels, ports: [{ port: 80, targetPort: webPort, nodePort }] },
      },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'webs' },
        spec: { clusterIP: 'None', selector: labels },
      },
    )
    await rollout('web')
    const [first, ...others] = await podsOf('web')
    const name = first?.metadata.name ?? ''
    const inFirst = (...args: string[]) => cluster.kubectl('exec', name, '--', '/busybox', ...args)

    for (const { metadata, status } of others) {
      const page = await inFirst('wget', '-qO-', `http://${status.podIP}:${webPort}/`)
      expect(page.trim()).toBe(metadata.name)
    }
    expect(await inFirst('wget', '-qO-', 'http://web.default.svc.cluster.local/')).toMatch(/^web-/)
    const answer = await inFirst('nslookup', 'webs.default.svc.cluster.local')
    for (const { status } of [first, ...others] as Pod[]) expect(answer).toContain(status.podIP)
    expect(await inFirst('nc', '-w', '5', 'kubernetes.default', '443', '-e', '/busybox', 'true')).toBe('')

    for (const { host, name: node } of cluster.nodes) {
      const own = await fetchFrom(host, `http://127.0.0.1:${hostPort}/`)
      const podOfNode = [first, ...others].find((pod) => pod?.spec.nodeName === node)
      expect(own.body.toString().trim()).toBe(podOfNode?.metadata.name)
      expect((await fetchFrom(host, `http://127.0.0.1:${nodePort}/`)).status).toBe(200)
    }
  })

  it('has pods that outlive containerd and the kubelet', async () => {
    const node = cluster.node(2)
    const before = await podsOf('wait')
    await node.stopContainerd('SIGKILL')
    await node.stopKubelet('SIGKILL')
    await node.startContainerd()
    node.startKubelet()
    const { reference } = await cluster.publish('again:v1', { sizeBytes: MiB, layers: 1, seed: 'again' })
    await cluster.apply(waitDaemonSet('again', reference))
    await rollout('again')
    const restarts = (await podsOf('wait')).flatMap(({ status }) => status.containerStatuses ?? [])
    expect(restarts.map(({ restartCount }) => restartCount)).toEqual([0, 0, 0])
    expect((await podsOf('wait')).map(({ metadata }) => metadata.name)).toEqual(
      before.map(({ metadata }) => metadata.name),
    )
  })

  it('has nodes that boot again, with their disk and without what was mounted', async () => {
    const node = cluster.node(1)
    await node.run('touch', '/var/lib/kept', '/run/forgotten')
    await node.reboot()
    expect((await node.run('bash', '-c', 'ls -d /var/lib/kept /run/forgotten 2>/dev/null || true')).trim()).toBe(
      '/var/lib/kept',
    )
    // Its pods run again: the kubelet has counted a restart.
    await until('pods of the booted node', async () => {
      const pods = (await podsOf('wait')).filter(({ spec }) => spec.nodeName === node.name)
      const states = pods.flatMap(({ status }) => status.containerStatuses ?? [])
      return (
        states.length === 1 && states.every(({ restartCount, state }) => restartCount === 1 && 'running' in state)
      )
    })
    await cluster.untilNodesReady()
  })

  it('pulls when the API server is down, and goes on when it is up', async () => {
    const { reference } = await cluster.publish('later:v1', { sizeBytes: MiB, layers: 1, seed: 'later' })
    await cluster.controlPlane.stopApiServer()
    try {
      await expect(cluster.api.nodes()).rejects.toThrow('connection refused')
      for (const { cri } of cluster.nodes) await cri.pull(reference, patienceMs)
    } finally {
      await cluster.controlPlane.startApiServer()
    }
    await cluster.apply(waitDaemonSet('later', reference))
    await rollout('later')
  })

  it('can be cut off from upstream', async () => {
    const { reference } = await cluster.publish('cut:v1', { sizeBytes: MiB, layers: 1, seed: 'cut' })
    await cluster.setUpstreamReachable(false)
    try {
      await Promise.all(
        cluster.nodes.map(({ cri }) => expect(cri.pull(reference, patienceMs)).rejects.toThrow('no route to host')),
      )
    } finally {
      await cluster.setUpstreamReachable(true)
    }
    for (const { cri } of cluster.nodes) await cri.pull(reference, patienceMs)
  })

  it.each(['pods', 'cri'] as const)('is pulled on by %s without a pause; what went wrong is known', async (by) => {
    const churn = await Churn.start(cluster, { by, sizeBytes: MiB, layers: 2 })
    await churn.untilShared(2)
    const [cutOff, ...others] = cluster.nodes
    const fromMs = Date.now()
    await cluster.setUpstreamReachable(false, [cutOff!])
    try {
      // A pull that only waits for a route when there is one again succeeds.
      await Promise.all([churn.untilShared(2, patienceMs, others), churn.untilFailed(cutOff!, patienceMs)])
    } finally {
      await cluster.setUpstreamReachable(true, [cutOff!])
    }
    const { pulls, failures, avoidable } = await churn.stop()
    expect([...new Set(failures.map(({ node }) => node))]).toEqual([cutOff?.name])
    // Events are cut to seconds.
    expect(failures.every(({ atMs }) => atMs >= fromMs - 1_000)).toBe(true)
    // There is no mirror: for each further node everything comes from upstream, a manifest, the config and the layers.
    const further = pulls.filter((pull, index) => {
      const before = pulls.slice(0, index)
      return before.some(({ image, doneMs }) => image === pull.image && (doneMs ?? Infinity) < pull.askedMs)
    })
    const good = further.filter(({ doneMs }) => doneMs !== undefined)
    expect(good.length).toBeGreaterThanOrEqual(6)
    for (const { image, node } of good) {
      const gets = avoidable.filter((get) => get.image === image && get.node === node)
      expect(gets.filter(({ path }) => path.includes('/blobs/'))).toHaveLength(3)
      expect(gets.filter(({ path }) => path.includes('/manifests/')).length).toBeGreaterThanOrEqual(1)
    }
  })

  it('grows and shrinks', async () => {
    const node = await cluster.addNode()
    await cluster.untilNodesReady()
    await until('a pod on the new node', async () => {
      const pods = await podsOf('wait')
      return pods.some(({ spec, status }) => spec.nodeName === node.name && status.phase === 'Running')
    })
    await cluster.removeNode(node)
    await cluster.untilNodesReady()
  })

  it('leaves nothing', async () => {
    const before = tracesOf(process.pid, cluster.folder)
    expect(before.namespaces.length).toBeGreaterThanOrEqual(6)
    expect(before.cgroups).toHaveLength(1)
    expect(before.processes.map(({ command }) => command)).toEqual(
      expect.arrayContaining(['kubernetes', 'containerd', `wait-${process.arch === 'x64' ? 'amd64' : 'arm64'}`]),
    )
    await cluster.stop()
    const after = tracesOf(process.pid, cluster.folder)
    expect(after).toEqual({ namespaces: [], cgroups: [], mounts: [], folders: [], processes: [] })
    expect(stillRunning(before.processes)).toEqual([])
  })
})

describe('a cluster whose process was killed', () => {
  it('is found and removed', async () => {
    const script = join(import.meta.dirname, 'shell.ts')
    const child = spawn(process.execPath, [script, '1', 'sh', '-c', 'echo "$KUBECONFIG"; sleep infinity'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      const kubeconfig = String(await once(child.stdout, 'data'))
      const folder = join(kubeconfig.trim(), '../..')
      child.kill('SIGKILL')
      await once(child, 'exit')
      const pid = child.pid ?? 0
      const before = tracesOf(pid, folder)
      expect(before.processes.length).toBeGreaterThan(8)
      const removed = await removeLeftClusters()
      expect(removed).toEqual(expect.arrayContaining([`folder ${folder}`]))
      expect(tracesOf(pid, folder)).toEqual({ namespaces: [], cgroups: [], mounts: [], folders: [], processes: [] })
      expect(stillRunning(before.processes)).toEqual([])
    } finally {
      await end(child, 'SIGKILL')
    }
  })
})
