/** Images of every kind that registries hold, made from a seed. For the demo and the tests: they cannot be run. */
import type { Digest } from '../oci/digest.ts'
import { type Descriptor, addToIndex, writeJson, writeLayer } from './layout.ts'
import { mediaTypes } from './media-types.ts'
import { seededBytes } from './seeded-bytes.ts'
import { tar } from './tar.ts'

export interface ImageSpec {
  /** `registry/repository:tag` */
  name: string
  sizeBytes: number
  layers: number
  seed: string
  /** Docker's image manifest v2 schema 2 instead of OCI's. */
  docker?: boolean
  /** An index around the manifest, as multi-platform images have. */
  index?: boolean
}

export interface WrittenImage {
  /** What the tag stands for: the manifest, or the index around it. */
  target: Descriptor
  manifest: Descriptor
  config: Descriptor
  layers: Descriptor[]
}

/** Adds the image to the layout folder, which is made if it is not there. */
export async function writeImage(layout: string, spec: ImageSpec): Promise<WrittenImage> {
  const types = spec.docker === true ? mediaTypes.docker : mediaTypes.oci
  const layers: Descriptor[] = []
  const diffIds: Digest[] = []
  const layerBytes = Math.floor(spec.sizeBytes / spec.layers)
  for (let number = 0; number < spec.layers; number++) {
    const content = seededBytes(`${spec.seed}/${number}`, layerBytes)
    const archive = tar([{ path: `layer-${number}`, mode: 0o644, sizeBytes: layerBytes, content }])
    const { blob, diffId } = await writeLayer(layout, archive)
    layers.push({ mediaType: types.layer, ...blob })
    diffIds.push(diffId)
  }
  const config = await writeJson(layout, types.config, {
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['/none'] },
    rootfs: { type: 'layers', diff_ids: diffIds },
  })
  const manifest = await writeJson(layout, types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config,
    layers,
  })
  const target =
    spec.index === true
      ? await writeJson(layout, types.index, {
          schemaVersion: 2,
          mediaType: types.index,
          manifests: [{ ...manifest, platform: { architecture: 'amd64', os: 'linux' } }],
        })
      : manifest
  await addToIndex(layout, target, spec.name)
  return { target, manifest, config, layers }
}
