/** A new image on eight nodes at once, behind a slow link: it crosses the link once. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Cluster } from './cluster.ts'
import { workingSetBytes } from './memory.ts'
import { waitDaemonSet } from './objects.ts'
import { installSpegel, mirrorPods, publishSpegel } from './spegel.ts'

const MiB = 1024 * 1024
const imageBytes = 100 * MiB
const upstreamRatioMax = 1.02
const sampleMs = 200

describe('eight nodes behind 100 Mbit', () => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 8, containerd: ['new', 'old'], upstreamRate: '100mbit' })
    await publishSpegel(cluster)
    await installSpegel(cluster)
  })
  afterAll(() => cluster.stop())
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') process.stderr.write(await cluster.lastWords())
  })

  it('get a new image once, and all pods run', async () => {
    const { reference, image } = await cluster.publish('cold:v1', { sizeBytes: imageBytes, layers: 4, seed: 'cold' })
    const idle = await mirrorMemoryMiB()
    const peak = new Map(idle)
    const requestsBefore = cluster.upstream.requests().length
    const startMs = Date.now()
    await cluster.apply(waitDaemonSet('cold', reference))
    const watch = setInterval(() => {
      void mirrorMemoryMiB().then((now) => {
        for (const [node, mib] of now) peak.set(node, Math.max(peak.get(node) ?? 0, mib))
      })
    }, sampleMs)
    try {
      await cluster.kubectl('rollout', 'status', 'daemonset/cold', '--timeout=120s')
    } finally {
      clearInterval(watch)
    }
    const seconds = (Date.now() - startMs) / 1000
    const gets = cluster.upstream.requests().slice(requestsBefore)
    const sentBytes = gets.reduce((sum, { method, bytes }) => sum + (method === 'GET' ? bytes : 0), 0)
    const [manifest, config] = [image.manifests[0], image.configs[0]]
    const sizeBytes = [image.target, manifest, config, ...image.layers].reduce(
      (sum, blob) => sum + (blob?.size ?? 0),
      0,
    )
    const say = (values: Map<string, number>) => [...values.values()].map((mib) => mib.toFixed(0)).join(' ')
    process.stderr.write(
      `all pods run after ${seconds.toFixed(1)} s; registry bytes ${(sentBytes / sizeBytes).toFixed(3)} × image; ` +
        `working sets in MiB: idle ${say(idle)}, peak ${say(peak)}\n`,
    )
    expect(sentBytes / sizeBytes).toBeLessThanOrEqual(upstreamRatioMax)
    expect(await cluster.api.podEvents('default')).not.toContainEqual(expect.objectContaining({ reason: 'Failed' }))
  })

  /** Of each node's daemon. */
  async function mirrorMemoryMiB(): Promise<Map<string, number>> {
    const pods = await mirrorPods(cluster)
    return new Map(
      pods.flatMap(({ metadata, spec }) => {
        const node = cluster.nodes.find(({ name }) => name === spec.nodeName)
        const bytes = node === undefined ? undefined : workingSetBytes(node, metadata.uid)
        return node === undefined || bytes === undefined ? [] : [[node.name, bytes / MiB]]
      }),
    )
  }
})
