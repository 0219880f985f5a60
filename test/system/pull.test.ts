import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { fetchFrom } from '../../src/testbed/fetch.ts'
import { output } from '../../src/testbed/process.ts'
import { prepareHelm } from '../../src/testbed/tools.ts'
import type { WrittenImage } from '../../src/images/image.ts'
import { Cluster } from '../../src/testbed/cluster.ts'
import { eventually } from '../support/daemons.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 120_000

describe.each(['containerdOld', 'containerdNew'] as const)('eight nodes with %s', (containerd) => {
  let cluster: Cluster
  let seen = 0

  beforeAll(async () => {
    cluster = await Cluster.create({
      nodes: 8,
      containerd,
      daemonOptions: (registry) => ['--default-registry', registry],
    })
  })
  afterAll(() => cluster.close())
  beforeEach(() => (seen = cluster.upstream.requests().length))
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') process.stderr.write(`${await cluster.complaints()}\n`)
  })

  /** What upstream was asked since the test began. */
  const upstreamRequests = () => cluster.upstream.requests().slice(seen)
  const others = () => cluster.nodes.slice(1)
  const pullOnOthers = (reference: string) =>
    Promise.all(others().map(({ cri }) => cri.pull(reference, pullTimeoutMs)))

  /** Until the last node's mirror finds the whole image at the first node. */
  async function offered(repository: string, image: WrittenImage): Promise<void> {
    const { target, manifest, config, layers } = image
    await eventually(async () => {
      for (const { digest } of [target, manifest]) expect(await ask(8, `${repository}/manifests/${digest}`)).toBe(200)
      for (const { digest } of [config, ...layers]) expect(await ask(8, `${repository}/blobs/${digest}`)).toBe(200)
    })
  }

  /** What a node's mirror answers to containerd. */
  async function ask(node: number, path: string): Promise<number> {
    const url = `http://127.0.0.1:5000/v2/${path}?ns=${cluster.registry}`
    return (await fetchFrom(cluster.node(node).host, url, { method: 'HEAD' })).status
  }

  it.each([
    ['100 MiB in 4 layers', 'plain', { sizeBytes: 100 * MiB, layers: 4 }],
    ['an index', 'index', { sizeBytes: 8 * MiB, layers: 2, index: true }],
    ['Docker schema 2', 'docker', { sizeBytes: 8 * MiB, layers: 2, docker: true }],
    ['a Docker manifest list', 'list', { sizeBytes: 8 * MiB, layers: 2, docker: true, index: true }],
    ['30 layers', 'many', { sizeBytes: 30 * MiB, layers: 30 }],
  ])(
    '%s: seven nodes pull at once from the one that has it, by tag and by digest, with upstream stopped',
    async (_name, repository, spec) => {
      const { reference, image } = await cluster.publish(`${repository}:v1`, { ...spec, seed: repository })
      await cluster.node(1).cri.pull(reference, pullTimeoutMs)
      await offered(repository, image)
      await cluster.upstream.stop()
      try {
        await pullOnOthers(reference)
        await Promise.all(others().map(({ cri }) => cri.remove(reference)))
        await pullOnOthers(`${cluster.registry}/${repository}@${image.target.digest}`)
      } finally {
        await cluster.upstream.start()
      }
      const fromOthers = upstreamRequests().filter(({ client }) => client !== cluster.node(1).host.ip)
      expect(fromOthers).toEqual([])
    },
  )

  it('fetches exactly the layer that is missing on the holder from upstream', async () => {
    const { reference, image } = await cluster.publish('partial:v1', {
      sizeBytes: 20 * MiB,
      layers: 4,
      seed: 'partial',
    })
    await cluster.node(1).cri.pull(reference, pullTimeoutMs)
    await offered('partial', image)
    const missing = image.layers[1]?.digest ?? ''
    await cluster.node(1).ctr(cluster.tools.ctr, ['content', 'rm', missing])
    await eventually(async () => expect(await ask(8, `partial/blobs/${missing}`)).toBe(404))
    seen = cluster.upstream.requests().length
    await pullOnOthers(reference)
    const paths = new Set(upstreamRequests().map(({ path }) => path.replace(/\?.*/, '')))
    expect([...paths]).toEqual([`/v2/partial/blobs/${missing}`])
  })

  it('passes on a Helm chart to a Helm client that knows nothing of mirrors', async () => {
    const say = (line: string) => process.stderr.write(`set-up: ${line}\n`)
    const helm = await prepareHelm(say)
    const folder = await mkdtemp(join(tmpdir(), 'chart-'))
    try {
      const run = (args: string[]) =>
        output(cluster.client.spawn(helm, args, { cwd: folder, env: { ...process.env, HOME: folder } }))
      await run(['create', 'demo'])
      await writeFile(join(folder, 'demo/templates/NOTES.txt'), 'passed on')
      await run(['package', 'demo', '--version', '1.2.3'])
      await run(['push', 'demo-1.2.3.tgz', `oci://${cluster.registry}/charts`, '--plain-http'])
      const chart = `${cluster.registry}/charts/demo:1.2.3`
      await cluster.node(1).ctr(cluster.tools.ctr, ['content', 'fetch', '--plain-http', chart])
      await cluster.upstream.stop()
      const mirror = cluster.node(2)
      await mkdir(join(folder, 'out'))
      await eventually(async () => {
        await run([
          'pull',
          `oci://${mirror.host.ip}:5000/charts/demo`,
          '--version',
          '1.2.3',
          '--plain-http',
          '--destination',
          'out',
        ])
      })
      const chartText = await output(
        cluster.client.spawn('tar', ['-xzOf', join(folder, 'out/demo-1.2.3.tgz'), 'demo/templates/NOTES.txt']),
      )
      expect(chartText).toBe('passed on')
    } finally {
      await rm(folder, { recursive: true, force: true })
      await cluster.upstream.start()
    }
  })
})
