/** Other ways to install spegel-ts: each leads a pull to a peer while upstream is away, and leaves nothing. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { waitUntil } from '../../src/testbed/process.ts'
import { Cluster } from './cluster.ts'
import { hostFiles } from './host-files.ts'
import { inCheckout, installSpegel, publishSpegel, uninstallSpegel } from './spegel.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 60_000
const secret = 'kubectl -n spegel-ts create secret generic shared --from-literal=username=u --from-literal=password=p'

interface Variant {
  name: string
  options: string[]
  /** After the namespace is there. */
  before?: string
}

const variants: Variant[] = [
  { name: 'with a host port', options: ['--set', 'service.registry.hostPort=30020'] },
  { name: 'finding peers by EndpointSlices', options: ['--set', 'spegel.bootstrap.kind=kubernetes'] },
  { name: 'with a password', options: ['--set', 'basicAuthSecretName=shared'], before: secret },
]

describe('spegel-ts', () => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 2, containerd: ['old', 'new'] })
    await publishSpegel(cluster)
  })
  afterAll(() => cluster.stop())
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') process.stderr.write(await cluster.lastWords())
  })

  it.each(variants)('$name', async ({ name, options, before }) => {
    const filesBefore = await Promise.all(cluster.nodes.map(hostFiles))
    await installSpegel(cluster, { options, before })
    const repository = name.replaceAll(' ', '-').toLowerCase()
    const { reference } = await cluster.publish(`${repository}:v1`, { sizeBytes: MiB, layers: 2, seed: name })
    await cluster.node(1).cri.pull(reference, pullTimeoutMs)
    await cluster.setUpstreamReachable(false)
    try {
      // The other node hears of it a moment later.
      const pulled = async () => (await cluster.node(2).cri.pull(reference, pullTimeoutMs)) !== ''
      await waitUntil('the pull from a peer', pulled, { timeoutMs: pullTimeoutMs })
    } finally {
      await cluster.setUpstreamReachable(true)
    }
    await uninstallSpegel(cluster)
    expect(await Promise.all(cluster.nodes.map(hostFiles))).toEqual(filesBefore)
    expect(await inCheckout(cluster, 'kubectl get namespace --output=name')).not.toContain('spegel')
  })
})
