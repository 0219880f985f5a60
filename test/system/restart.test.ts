import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fetchFrom } from '../../src/testbed/fetch.ts'
import { output } from '../../src/testbed/process.ts'
import { Cluster } from '../../src/testbed/cluster.ts'
import { eventually } from '../support/daemons.ts'

const pullTimeoutMs = 60_000

describe.each(['containerdOld', 'containerdNew'] as const)('life of a daemon beside %s', (containerd) => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await Cluster.create({ nodes: 2, containerd })
  })
  afterAll(() => cluster.close())

  const ask = async (node: number, path: string, headers: Record<string, string> = {}) => {
    const url = `http://127.0.0.1:5000/v2/${path}?ns=${cluster.registry}`
    return (await fetchFrom(cluster.node(node).host, url, { method: 'HEAD', headers })).status
  }
  const fromPeer = { 'x-spegel-mirrored': 'true' }
  const small = { sizeBytes: 4 * 1024 * 1024, layers: 2 }

  it('offers again what is there within 5 s after containerd was killed and started, and did not exit', async () => {
    const [holder, asker] = [cluster.node(1), cluster.node(2)]
    const { reference, image } = await cluster.publish('restart:v1', { ...small, seed: 'restart' })
    await holder.cri.pull(reference, pullTimeoutMs)
    await eventually(async () => expect(await ask(2, `restart/blobs/${image.config.digest}`)).toBe(200))
    const { pid } = holder.daemon

    await holder.stopContainerd('SIGKILL')
    await eventually(async () =>
      expect((await fetchFrom(holder.host, 'http://127.0.0.1:5000/readyz')).status).toBe(503),
    )
    // Its files are still there to be served meanwhile.
    expect(await ask(1, `restart/blobs/${image.config.digest}`, fromPeer)).toBe(200)

    await holder.startContainerd()
    const returnedMs = performance.now()
    await eventually(
      async () => expect((await fetchFrom(holder.host, 'http://127.0.0.1:5000/readyz')).status).toBe(200),
      5_000,
    )
    await cluster.upstream.stop()
    await asker.cri.pull(reference, pullTimeoutMs)
    process.stderr.write(`hit again ${Math.round(performance.now() - returnedMs)} ms after containerd was back\n`)
    await cluster.upstream.start()
    expect(holder.daemon.pid).toBe(pid)
    expect(holder.daemon.exitCode).toBeNull()

    // What comes after the restart is seen too.
    const later = await cluster.publish('later:v1', { ...small, seed: 'later' })
    await holder.cri.pull(later.reference, pullTimeoutMs)
    await eventually(async () => expect(await ask(2, 'later/manifests/v1')).toBe(200), 5_000)
  })

  it('does not offer an image that was removed, 5 s later', async () => {
    const [holder] = [cluster.node(1)]
    const { reference, image } = await cluster.publish('removed:v1', { ...small, seed: 'removed' })
    await holder.cri.pull(reference, pullTimeoutMs)
    const paths = [
      'removed/manifests/v1',
      `removed/manifests/${image.manifest.digest}`,
      ...[image.config, ...image.layers].map(({ digest }) => `removed/blobs/${digest}`),
    ]
    for (const path of paths) await eventually(async () => expect(await ask(2, path)).toBe(200))
    const before = await providedKeys()
    await holder.cri.remove(reference)
    for (const path of paths) {
      await eventually(async () => expect(await ask(1, path, fromPeer), path).toBe(404), 5_000)
      await eventually(async () => expect(await ask(2, path), path).toBe(404), 5_000)
    }
    expect(await providedKeys()).toBe(before - paths.length)
  })

  async function providedKeys(): Promise<number> {
    const { body } = await fetchFrom(cluster.node(1).host, 'http://127.0.0.1:9090/metrics')
    return Number(/^spegel_provided_keys (\d+)$/m.exec(body.toString())?.[1])
  }

  it('offers images that were imported, not pulled', async () => {
    const { reference, image } = await cluster.publish('imported:v1', { ...small, seed: 'imported' })
    const archive = join(cluster.folder, 'imported.tar')
    await output(cluster.client.spawn('tar', ['-C', cluster.layoutOf('imported:v1'), '-cf', archive, '.']))
    await cluster.node(1).ctr(cluster.tools.ctr, ['images', 'import', '--no-unpack', archive])
    await cluster.upstream.stop()
    await eventually(async () => expect(await ask(2, `imported/blobs/${image.layers[0]?.digest}`)).toBe(200))
    await eventually(async () => expect(await ask(2, 'imported/manifests/v1')).toBe(200))
    await cluster.node(2).cri.pull(reference, pullTimeoutMs)
    await cluster.upstream.start()
  })

  it('keeps content of other namespaces to itself', async () => {
    const { image } = await cluster.publish('other:v1', { ...small, seed: 'other' })
    const archive = join(cluster.folder, 'other.tar')
    await output(cluster.client.spawn('tar', ['-C', cluster.layoutOf('other:v1'), '-cf', archive, '.']))
    await cluster.node(1).ctr(cluster.tools.ctr, ['--namespace', 'moby', 'images', 'import', '--no-unpack', archive])
    const layer = image.layers[0]?.digest ?? ''
    expect(await readFile(join(cluster.node(1).contentPath, 'blobs', ...layer.split(':')))).toBeDefined()
    expect(await ask(1, `other/blobs/${layer}`, fromPeer)).toBe(404)
    expect(await ask(2, `other/blobs/${layer}`)).toBe(404)
  })

  it('joins again with its own identity after a restart, and finds what others have', async () => {
    const { reference, image } = await cluster.publish('again:v1', { ...small, seed: 'again' })
    await cluster.node(1).cri.pull(reference, pullTimeoutMs)
    const ids = async () =>
      (await cluster.node(2).daemonLines()).filter(({ msg }) => msg === 'started').map(({ id }) => id)
    await cluster.node(2).stopDaemon()
    expect(cluster.node(2).daemon.exitCode).toBe(0)
    await cluster.node(2).startDaemon(cluster.peers)
    await eventually(async () => expect(await ask(2, `again/blobs/${image.config.digest}`)).toBe(200))
    const [first, second] = await ids()
    expect(second).toBe(first)
  })
})
