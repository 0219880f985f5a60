/** The cold batch with real containerd: nobody has the image, all pull it at once, one copy comes from upstream. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { Cluster, type ClusterInit } from '../../src/testbed/cluster.ts'
import type { ContainerdNode } from '../../src/testbed/containerd-node.ts'
import type { AccessLogEntry } from '../../src/testbed/registry-process.ts'
import { eventually } from '../support/daemons.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 120_000
const nodes = 4

interface Case {
  name: string
  containerd: ClusterInit['containerd']
  options: readonly string[]
  extraConfig?: string
}

const cases: Case[] = [
  { name: 'containerd 2.3, leases by redirect', containerd: 'containerdNew', options: [] },
  {
    name: 'containerd 2.3, leases by 404',
    containerd: 'containerdNew',
    options: ['--containerd-registry-config-path', '/nowhere'],
  },
  {
    name: 'containerd 2.3, parallel layer fetch',
    containerd: 'containerdNew',
    options: [],
    extraConfig: `[plugins."io.containerd.transfer.v1.local"]\n  concurrent_layer_fetch_buffer = ${4 * MiB}\n`,
  },
  { name: "the distribution's containerd", containerd: 'containerdOld', options: [] },
]

describe.each(cases)('a cold batch: $name', ({ containerd, options, extraConfig }) => {
  let cluster: Cluster
  let seen = 0
  let images = 0

  beforeAll(async () => {
    cluster = await Cluster.create({
      nodes,
      containerd,
      daemonOptions: () => options,
      ...(extraConfig === undefined ? {} : { extraConfig: () => extraConfig }),
    })
    await cluster.upstreamHost.setRate('200mbit')
  })
  afterAll(() => cluster.close())
  beforeEach(() => (seen = cluster.upstream.requests().length))
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') process.stderr.write(`${await cluster.complaints()}\n`)
  })

  const publish = (sizeMiB: number, layers: number) => {
    images += 1
    return cluster.publish(`cold-${images}:v1`, { sizeBytes: sizeMiB * MiB, layers, seed: `cold-${images}` })
  }
  const pull = (node: ContainerdNode, reference: string) =>
    node.cri.pull(reference, pullTimeoutMs).then(() => 'pulled', String)
  const asked = () => cluster.upstream.requests().slice(seen)
  const blobGets = () => asked().filter(({ method, path }) => method === 'GET' && path.includes('/blobs/'))

  it('fetches each blob from upstream once, and feeds all', async () => {
    const { reference, image } = await publish(48, 4)
    expect(await Promise.all(cluster.nodes.map((node) => pull(node, reference)))).toEqual(
      cluster.nodes.map(() => 'pulled'),
    )
    for (const { digest } of image.layers) expect(askers(blobGets(), digest), digest).toBe(1)
    const bytes = blobGets().reduce((sum, entry) => sum + entry.bytes, 0)
    // Parts that containerd left are counted by what was sent of them.
    expect(bytes).toBeLessThan(1.05 * 48 * MiB)
    await eventually(async () => {
      const lines = (await Promise.all(cluster.nodes.map((node) => node.daemonLines()))).flat()
      const layerLines = lines.filter(
        ({ msg, key }) => msg === 'flight' && image.layers.some(({ digest }) => digest === key),
      )
      expect(layerLines.filter(({ role }) => role === 'leading')).toHaveLength(4)
      expect(layerLines.filter(({ role }) => role === 'following').length).toBeGreaterThan(0)
    })
  })

  it('feeds who comes later from what is there', async () => {
    const { reference, image } = await publish(64, 1)
    const [first, ...others] = cluster.nodes
    if (first === undefined) throw new Error('there is no node')
    const pulled = pull(first, reference)
    await eventually(async () => {
      expect(await first.ingestBytes(image.layers[0]?.digest ?? '')).toBeGreaterThan(16 * MiB)
    })
    expect(await Promise.all([pulled, ...others.map((node) => pull(node, reference))])).toEqual(
      cluster.nodes.map(() => 'pulled'),
    )
    expect(askers(blobGets(), image.layers[0]?.digest ?? '')).toBe(1)
  })

  it('goes on when the mirror of the leader is killed in mid-blob', async () => {
    const { reference, image } = await publish(64, 1)
    const layer = image.layers[0]?.digest ?? ''
    const pulls = cluster.nodes.map((node) => pull(node, reference))
    // Who has most: the access log tells of a request when it has ended.
    const leader = await eventually(async () => {
      const ingests = await Promise.all(cluster.nodes.map((node) => node.ingestBytes(layer)))
      expect(Math.max(...ingests)).toBeGreaterThan(20 * MiB)
      return cluster.nodes[ingests.indexOf(Math.max(...ingests))]
    })
    await leader?.stopDaemon('SIGKILL')
    try {
      expect(await Promise.all(pulls)).toEqual(cluster.nodes.map(() => 'pulled'))
    } finally {
      await leader?.startDaemon(cluster.peers, options)
    }
  })
})

describe('flights that are switched off', () => {
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await Cluster.create({
      nodes: 2,
      containerd: 'containerdNew',
      daemonOptions: () => ['--flights=false'],
    })
    await cluster.upstreamHost.setRate('100mbit')
  })
  afterAll(() => cluster.close())

  it('send every node upstream', async () => {
    const { reference, image } = await cluster.publish('off:v1', { sizeBytes: 16 * MiB, layers: 1, seed: 'off' })
    await Promise.all(cluster.nodes.map(({ cri }) => cri.pull(reference, pullTimeoutMs)))
    expect(askers(cluster.upstream.requests(), image.layers[0]?.digest ?? '')).toBe(2)
  })
})

/** How many nodes asked for it. */
function askers(entries: readonly AccessLogEntry[], digest: string): number {
  return new Set(
    entries.filter(({ method, path }) => method === 'GET' && path.includes(digest)).map(({ client }) => client),
  ).size
}
