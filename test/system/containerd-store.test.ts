import { mkdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ContainerdClient } from '../../src/containerd/client.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { systemRandom } from '../../src/lib/random.ts'
import { BlobFolder } from '../../src/store/blob-folder.ts'
import { ContainerdStore } from '../../src/store/containerd/containerd-store.ts'
import { blobPath } from '../../src/images/layout.ts'
import { ContentNotFound } from '../../src/store/store.ts'
import { type StoreFixture, storeSuite } from '../conformance/store.ts'
import { eventually } from '../support/daemons.ts'
import { Cluster } from '../../src/testbed/cluster.ts'
import { layerBytes } from '../support/layout-fixture.ts'

describe.each(['containerdOld', 'containerdNew'] as const)('%s', (containerd) => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await Cluster.create({ nodes: 1, containerd })
    // The suite names its images reg.test/…; containerd finds them at our upstream.
    const folder = join(cluster.node(1).certsFolder, 'reg.test')
    await mkdir(folder, { recursive: true })
    await writeFile(
      join(folder, 'hosts.toml'),
      `[host.'${cluster.upstream.url}']\ncapabilities = ['pull', 'resolve']\n`,
    )
  })
  afterAll(() => cluster.close())

  async function fixture(withFolder: boolean): Promise<StoreFixture> {
    const node = cluster.node(1)
    const store = new ContainerdStore(
      {
        client: new ContainerdClient(node.socket, 'k8s.io'),
        folder: withFolder ? new BlobFolder(node.contentPath, systemClock) : undefined,
        clock: systemClock,
        random: systemRandom,
        logger: pino({ level: 'silent' }),
      },
      'k8s.io',
    )
    await store.start()
    const names = new Set<string>()
    return {
      store,
      async addImage(name, seed) {
        const { image } = await cluster.publish(name.slice('reg.test/'.length), {
          sizeBytes: layerBytes,
          layers: 1,
          seed,
        })
        const [layer] = image.layers
        if (layer === undefined) throw new Error('no layer')
        await node.cri.pull(name, 60_000)
        names.add(name)
        return {
          manifest: image.target.digest,
          config: image.config.digest,
          layer: layer.digest,
          layerBytes: await readFile(blobPath(cluster.layoutOf(name.slice('reg.test/'.length)), layer.digest)),
        }
      },
      async removeImage(name) {
        await node.cri.remove(name)
        names.delete(name)
      },
      async close() {
        await store.close()
        for (const name of names) await node.cri.remove(name)
      },
    }
  }

  it.each([true, false])(
    'withdraws a blob whose file lost its end (content from its folder: %s)',
    async (withFolder) => {
      const { store, addImage, removeImage, close } = await fixture(withFolder)
      const name = 'reg.test/truncated:v1'
      try {
        const seed = `truncated-${withFolder}`
        const { layer, config } = await addImage(name, seed)
        await eventually(async () => (await store.open(layer)).close())
        const path = join(cluster.node(1).contentPath, 'blobs', ...layer.split(':'))
        await truncate(path, 1_000)
        await expect(store.open(layer)).rejects.toBeInstanceOf(ContentNotFound)
        expect(store.isStored(layer)).toBe(false)
        await (await store.open(config)).close()
        // As the warning advises.
        await removeImage(name)
        await eventually(() => expect(store.isStored(config)).toBe(false))
        const again = await addImage(name, seed)
        expect(again.layer).toBe(layer)
        await eventually(async () => (await store.open(layer)).close())
        await eventually(() => expect(store.isStored(layer)).toBe(true))
      } finally {
        await close()
      }
    },
  )

  storeSuite('containerd, content from its folder', () => fixture(true))
  storeSuite('containerd, content through its socket', () => fixture(false))
})
