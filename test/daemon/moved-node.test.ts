import { join } from 'node:path'
import { rm } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { WrittenImage } from '../../src/images/image.ts'
import { DaemonGroup, type TestDaemon, eventually } from '../support/daemons.ts'

describe('a node that comes back at another address', () => {
  let group: DaemonGroup
  let seed: TestDaemon
  let holder: TestDaemon
  let puller: TestDaemon
  let image: WrittenImage
  let dataDir: string

  beforeEach(async () => {
    group = new DaemonGroup()
    seed = await group.start()
    dataDir = join(await group.folder(), 'identity')
    holder = await group.start({ dataDir })
    puller = await group.start()
    image = await group.image(holder)
  })
  afterEach(() => group.close())

  const path = (digest: string) => `/v2/app/blobs/${digest}?ns=reg.test`
  const head = async ({ url }: TestDaemon, digest: string) =>
    (await fetch(`${url}${path(digest)}`, { method: 'HEAD' })).status
  const layers = () => image.layers.map(({ digest }) => digest)
  /** A daemon with the holder's identity and layout, at an address of its own. */
  const comeBack = () => group.start({ dataDir, store: { kind: 'layout', path: holder.layout } })
  const knowsPeers = (daemon: TestDaemon, count: number) =>
    eventually(async () =>
      expect(await (await fetch(`${daemon.metricsUrl}/metrics`)).text()).toMatch(
        new RegExp(`^spegel_dht_peers ${count}$`, 'm'),
      ),
    )

  it('is used at once for keys that were looked up before', async () => {
    for (const layer of layers()) await eventually(async () => expect(await head(puller, layer)).toBe(200))
    await holder.daemon.close(0)
    const moved = await comeBack()
    expect(moved.daemon.id).toBe(holder.daemon.id)
    await knowsPeers(moved, 2)
    // Within the seconds for which a lookup is remembered.
    for (const layer of layers()) expect(await head(puller, layer)).toBe(200)
    for (const layer of layers()) expect(await head(seed, layer)).toBe(200)
  })

  it('is used at once though another node has its old address', async () => {
    for (const layer of layers()) await eventually(async () => expect(await head(puller, layer)).toBe(200))
    await holder.daemon.close(0)
    const at = (port: number) => ({ host: holder.ip, port })
    await group.start({ registryListen: at(5000), routerListen: at(5001), metricsListen: at(9090) })
    const moved = await comeBack()
    await knowsPeers(moved, 3)
    for (const layer of layers()) expect(await head(puller, layer)).toBe(200)
    for (const layer of layers()) expect(await head(puller, layer)).toBe(200)
  })

  it('that no longer has the content does not hide another node that has it by now', async () => {
    const [layer = ''] = layers()
    await eventually(async () => expect(await head(puller, layer)).toBe(200))
    await rm(join(holder.layout, 'blobs', ...layer.split(':')))
    await group.image(seed, { seed: `${holder.ip}-` })
    // The announcement of the other node comes in milliseconds, far sooner than the lookup is forgotten.
    await eventually(async () => expect(await head(puller, layer)).toBe(200), 1_000)
  })
})
