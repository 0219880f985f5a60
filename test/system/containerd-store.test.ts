import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe } from 'vitest'
import { ContainerdClient } from '../../src/containerd/client.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { systemRandom } from '../../src/lib/random.ts'
import { BlobFolder } from '../../src/store/blob-folder.ts'
import { ContainerdStore } from '../../src/store/containerd/containerd-store.ts'
import { blobPath } from '../../src/images/layout.ts'
import { type StoreFixture, storeSuite } from '../conformance/store.ts'
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

  storeSuite('containerd, content from its folder', () => fixture(true))
  storeSuite('containerd, content through its socket', () => fixture(false))
})
