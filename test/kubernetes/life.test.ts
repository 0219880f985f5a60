/**
 * What happens to a cluster, while pods pull new images on all nodes. Upstream is healthy: no pull may fail, except on a
 * node whose own containerd or kubelet is down, in those seconds; and what a living peer has is not asked of upstream.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { waitUntil } from '../../src/testbed/process.ts'
import { prepareGoPeer } from '../../src/testbed/tools.ts'
import { GoNode } from '../support/interop-node.ts'
import { NamespaceClient } from '../support/namespace-client.ts'
import { Churn, type ChurnInit } from './churn.ts'
import { Cluster, busyboxImage } from './cluster.ts'
import { hostFiles } from './host-files.ts'
import type { ClusterNode } from './node.ts'
import { imageVolumePod, waitDaemonSet } from './objects.ts'
import {
  DaemonWatch,
  inCheckout,
  mirrorLogs,
  mirrorPods,
  publishSpegel,
  readmeCommands,
  untilMirrored,
  upgradeSpegel,
} from './spegel.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 60_000
const say = (line: string) => process.stderr.write(`${line}\n`)

/** Says how long something took. */
async function timed(what: string, action: () => Promise<unknown>): Promise<void> {
  const startMs = Date.now()
  await action()
  say(`${((Date.now() - startMs) / 1000).toFixed(1)} s: ${what}`)
}

/** Somebody else's, who sends pulls of docker.io to another registry. */
const foreignHosts = `server = "https://registry-1.docker.io"

[host."https://registry.test"] # ours since 2024
  capabilities = ["pull", "resolve"]
`

/** A node on which pulls may fail, and when. */
interface Excuse {
  node: ClusterNode
  fromMs: number
  toMs: number
  /** Its daemon is down as well, whatever the API server says. */
  isDown: boolean
}

describe('spegel-ts in a cluster', () => {
  let cluster: Cluster
  const filesBefore = new Map<string, Record<string, string>>()

  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 3, containerd: ['old', 'new'] })
    await publishSpegel(cluster)
    const folder = join(cluster.node(2).disk, 'etc/containerd/certs.d/docker.io')
    await mkdir(folder)
    await writeFile(join(folder, 'hosts.toml'), foreignHosts)
    for (const node of cluster.nodes) filesBefore.set(node.name, await hostFiles(node))
  })
  afterAll(() => cluster.stop())
  afterEach(async ({ task }) => {
    if (task.result?.state !== 'fail') return
    process.stderr.write(await cluster.lastWords())
    process.stderr.write(await mirrorLogs(cluster))
  })

  /** Pulls go on before, during and after the action, which returns what is excused. */
  async function whilePulling(
    action: (churn: Churn) => Promise<Excuse[] | void>,
    by: ChurnInit['by'] = 'pods',
  ): Promise<void> {
    const daemons = new DaemonWatch(cluster)
    const churn = await Churn.start(cluster, { by, sizeBytes: MiB, layers: 2 })
    const startMs = Date.now()
    let excuses: Excuse[] = []
    let [actionMs, afterMs] = [0, 0]
    try {
      await churn.untilShared(1)
      actionMs = Date.now()
      excuses = (await action(churn)) ?? []
      afterMs = Date.now()
      await churn.untilShared(1)
    } finally {
      const endMs = Date.now()
      const { pulls, failures, avoidable } = await churn.stop()
      await daemons.stop()
      const excusesOf = (name: string, atMs: number) =>
        // Events are cut to seconds.
        excuses.filter(({ node, fromMs, toMs }) => node.name === name && atMs >= fromMs - 1_000 && atMs <= toMs)
      const isExcused = (name: string, atMs: number) => excusesOf(name, atMs).length > 0
      const isDown = (name: string, atMs: number) => excusesOf(name, atMs).some((excuse) => excuse.isDown)
      const living = avoidable.filter(({ holders, startedMs }) =>
        holders.some(({ node }) => daemons.wasReady(node, startedMs) && !isDown(node, startedMs)),
      )
      const done = pulls.filter(({ doneMs }) => doneMs !== undefined)
      const seconds = [actionMs - startMs, afterMs - actionMs, endMs - afterMs].map((ms) => (ms / 1000).toFixed(1))
      say(
        `${done.length} pulls before, during and after (${seconds.join(', ')} s), ${failures.length} failed; ` +
          `GETs upstream of what another node had: ${avoidable.length}, ${living.length} with its daemon ready`,
      )
      expect(failures.filter(({ node, atMs }) => !isExcused(node, atMs))).toEqual([])
      expect(living).toEqual([])
    }
  }

  /** The node's pulls may fail until the action has ended. */
  async function excusing(
    node: ClusterNode,
    action: (fromMs: number) => Promise<void>,
    { isDown = false } = {},
  ): Promise<Excuse[]> {
    const fromMs = Date.now()
    await action(fromMs)
    return [{ node, fromMs, toMs: Date.now(), isDown }]
  }

  it('is installed by the commands of README, and the next pull goes through a peer', async () => {
    const { install, seeThatItWorks } = readmeCommands()
    expect(install).toContainEqual(expect.stringMatching(/^helm install /))
    for (const command of install) await timed(command, () => inCheckout(cluster, command))

    const { reference, image } = await cluster.publish('first:v1', { sizeBytes: MiB, layers: 2, seed: 'first' })
    for (const { cri, name } of cluster.nodes)
      await timed(`pull on ${name}`, () => cri.pull(reference, pullTimeoutMs))
    for (const { digest } of [...image.layers, ...image.configs.slice(0, 1)]) {
      const gets = cluster.upstream.requests().filter(({ method, path }) => method === 'GET' && path.endsWith(digest))
      expect(gets.map(({ client }) => client)).toEqual([cluster.node(1).host.ip])
    }
    expect(await inCheckout(cluster, seeThatItWorks)).toContain(image.layers[0]?.digest)
  })

  it('stands before what somebody else has written to hosts.toml', async () => {
    const text = await readFile(join(cluster.node(2).disk, 'etc/containerd/certs.d/docker.io/hosts.toml'), 'utf8')
    const hosts = [...text.matchAll(/^\[host\.['"](.*)['"]\]/gm)].map(([, url]) => url)
    expect(hosts).toEqual([`http://${cluster.node(2).host.ip}:30020`, 'https://registry.test'])
  })

  it('is upgraded with other values, node by node', async () => {
    await whilePulling(() => upgradeSpegel(cluster, '--set', 'spegel.logLevel=DEBUG'))
  })

  it('outlives restarts of containerd of either generation', async () => {
    await whilePulling(async (churn) => {
      const excuses: Excuse[] = []
      for (const node of [cluster.node(1), cluster.node(2)]) {
        const restart = excusing(node, async () => {
          await node.stopContainerd('SIGKILL')
          await node.startContainerd()
          await cluster.untilNodesReady()
        })
        excuses.push(...(await restart))
        await churn.untilShared(1)
      }
      return excuses
    })
  })

  it('outlives a node that is drained and comes back', async () => {
    const node = cluster.node(3)
    await whilePulling(async (churn) => {
      await churn.remove(node)
      await cluster.kubectl('drain', node.name, '--ignore-daemonsets', '--force', '--delete-emptydir-data')
      await churn.untilShared(1)
      await cluster.kubectl('uncordon', node.name)
      churn.add(node)
    })
  })

  it('outlives a reboot', async () => {
    const node = cluster.node(1)
    await whilePulling(() =>
      excusing(
        node,
        async (fromMs) => {
          await node.reboot()
          await untilMirrored(cluster, node, fromMs)
          await cluster.untilNodesReady()
        },
        { isDown: true },
      ),
    )
  })

  it('comes to a new node, and outlives its end', async () => {
    await whilePulling(async (churn) => {
      const node = await cluster.addNode()
      await cluster.untilNodesReady()
      await untilMirrored(cluster, node)
      churn.add(node)
      await churn.untilShared(2)
      await churn.remove(node)
      await cluster.removeNode(node)
    })
  })

  it('does not need the API server', async () => {
    await whilePulling(async (churn) => {
      await cluster.controlPlane.stopApiServer()
      try {
        await churn.untilShared(3)
      } finally {
        await cluster.controlPlane.startApiServer()
      }
    }, 'cri')
  })

  it('starts pods on all nodes with images that one has, by tag, by digest and as volumes, without upstream', async () => {
    const { reference, image } = await cluster.publish('cut:v1', { sizeBytes: MiB, layers: 2, seed: 'cut' })
    const volume = await cluster.publish('volume:v1', { sizeBytes: MiB, layers: 1, seed: 'volume' })
    for (const name of [reference, volume.reference]) await cluster.node(1).cri.pull(name, pullTimeoutMs)
    await cluster.setUpstreamReachable(false)
    try {
      const byDigest = `${reference.replace(/:v1$/, '')}@${image.target.digest}`
      await cluster.apply(waitDaemonSet('by-tag', reference), waitDaemonSet('by-digest', byDigest))
      for (const name of ['by-tag', 'by-digest']) {
        await cluster.kubectl('rollout', 'status', `daemonset/${name}`, '--timeout=60s')
      }
      // containerd 1.x cannot mount images.
      const node = cluster.node(2)
      await cluster.apply(imageVolumePod('image-volume', node.name, busyboxImage, volume.reference))
      await cluster.kubectl('wait', 'pod/image-volume', '--for=condition=Ready', '--timeout=60s')
      const files = await cluster.kubectl('exec', 'image-volume', '--', '/busybox', 'ls', '/data')
      expect(files).toContain('data-0')
      expect(await pullFailures()).toEqual([])
    } finally {
      await cluster.setUpstreamReachable(true)
    }
  })

  it('shares a swarm with a node of Spegel, for which a program in Go stands', async () => {
    const host = cluster.controlPlane.host
    const folder = join(cluster.folder, 'go-peer')
    const hostsFile = join(folder, 'hosts')
    await mkdir(folder)
    const mirrors = await mirrorPods(cluster)
    await writeFile(hostsFile, mirrors.map(({ status }) => `${status.podIP} mirrors.test\n`).join(''))
    const client = new NamespaceClient(host)
    const peer = new GoNode(await prepareGoPeer(say), { host, client, folder, hostsFile })
    try {
      await peer.addImage('made-by-go')
      await peer.start({ kind: 'dns', source: 'mirrors.test' })
      // Upstream has no such image.
      for (const { cri, name } of cluster.nodes) {
        const pulled = async () => (await cri.pull('registry.test/made-by-go:v1', pullTimeoutMs)) !== ''
        await waitUntil(`the pull on ${name}`, pulled, { timeoutMs: 60_000 })
      }
      const { image } = await cluster.publish('for-go:v1', { sizeBytes: MiB, layers: 1, seed: 'for-go' })
      await cluster.node(1).cri.pull('registry.test/for-go:v1', pullTimeoutMs)
      const path = `for-go/blobs/${image.layers[0]?.digest}`
      const served = async () => (await peer.ask(path)).body.length === image.layers[0]?.size
      await waitUntil('what a node of ours has', served, { timeoutMs: 60_000 })
    } finally {
      await peer.stop()
      await client.close()
    }
  })

  it('is uninstalled, and nothing is left on any node', async () => {
    const { uninstall } = readmeCommands()
    expect(uninstall).toContainEqual(expect.stringMatching(/^helm uninstall /))
    for (const command of uninstall) await timed(command, () => inCheckout(cluster, command))
    for (const node of cluster.nodes) {
      expect(await hostFiles(node), node.name).toEqual(filesBefore.get(node.name))
    }
    const { reference } = await cluster.publish('last:v1', { sizeBytes: MiB, layers: 1, seed: 'last' })
    for (const { cri } of cluster.nodes) await cri.pull(reference, pullTimeoutMs)
  })

  async function pullFailures(): Promise<string[]> {
    const events = await cluster.api.podEvents('default')
    return events.filter(({ reason }) => reason === 'Failed').map(({ message }) => message)
  }
})
