import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Cluster } from '../support/cluster.ts'

describe.each(['containerdOld', 'containerdNew'] as const)('%s', (containerd) => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await Cluster.create({ nodes: 3, containerd })
  })
  afterAll(() => cluster.close())

  it('pulls from a node that has the image while upstream is gone', async () => {
    const { reference } = await cluster.publish('app:v1', { sizeBytes: 20 * 1024 * 1024, layers: 4, seed: 'app' })
    await cluster.node(1).cri.pull(reference, 60_000)
    await cluster.upstream.stop()
    await cluster.node(2).cri.pull(reference, 60_000)
    await cluster.node(3).cri.pull(reference, 60_000)
    expect(true).toBe(true)
  })
})
