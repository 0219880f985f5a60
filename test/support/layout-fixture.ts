/** A fixture of the store suite over an OCI layout. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/lib/clock.ts'
import { LayoutStore } from '../../src/store/layout/layout-store.ts'
import { type WrittenImage, writeImage } from '../../src/images/image.ts'
import { blobPath, removeFromIndex } from '../../src/images/layout.ts'
import type { StoreFixture } from '../conformance/store.ts'

/** Of several chunks, so that buffers are reused. */
export const layerBytes = 5 * 1024 * 1024

export async function layoutFixture(): Promise<StoreFixture> {
  const folder = await mkdtemp(join(tmpdir(), 'layout-'))
  const store = await LayoutStore.open(folder, systemClock)
  const images = new Map<string, WrittenImage>()
  return {
    store,
    async addImage(name, seed) {
      const image = await writeImage(folder, { name, sizeBytes: layerBytes, layers: 1, seed })
      images.set(name, image)
      const [layer] = image.layers
      if (layer === undefined) throw new Error('no layer')
      return {
        manifest: image.target.digest,
        config: image.config.digest,
        layer: layer.digest,
        layerBytes: await readFile(blobPath(folder, layer.digest)),
      }
    },
    async removeImage(name) {
      const image = images.get(name)
      if (image === undefined) throw new Error(`no image ${name}`)
      await removeFromIndex(folder, name)
      for (const { digest } of [image.target, image.config, ...image.layers]) await rm(blobPath(folder, digest))
    },
    async close() {
      await store.close()
      await rm(folder, { recursive: true, maxRetries: 5 })
    },
  }
}
