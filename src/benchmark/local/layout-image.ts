/** What a node will pull of an image in an OCI layout: the blobs of one platform. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError, errorMessage } from '../../lib/errors.ts'
import type { Digest } from '../../oci/digest.ts'
import { parseManifest } from '../../oci/manifest.ts'
import { blobPath } from '../../images/layout.ts'

export interface PulledBlob {
  digest: Digest
  size: number
  isLayer: boolean
}

export interface LayoutImage {
  /** What the tag stands for. */
  target: Digest
  blobs: PulledBlob[]
}

const architectures: Record<string, string> = { x64: 'amd64', arm64: 'arm64' }

/** Reads the only image of a layout. Throws a UserError that names the layout. */
export async function readLayoutImage(layout: string, nodeArch: string = process.arch): Promise<LayoutImage> {
  try {
    const index = parseManifest(await readFile(join(layout, 'index.json')))
    const [target, ...others] = index?.manifests ?? []
    if (target === undefined) throw new Error('there is no image in it')
    if (others.length > 0) throw new Error('there is more than one image in it')
    const blobs: PulledBlob[] = []
    let digest = target.digest as Digest
    for (;;) {
      const bytes = await readFile(blobPath(layout, digest))
      const document = parseManifest(bytes)
      blobs.push({ digest, size: bytes.length, isLayer: false })
      if (document?.manifests === undefined) {
        const { config, layers = [] } = document ?? {}
        if (config !== undefined) blobs.push({ ...described(config), isLayer: false })
        blobs.push(...layers.map((layer) => ({ ...described(layer), isLayer: true })))
        return { target: target.digest as Digest, blobs }
      }
      const wanted = architectures[nodeArch] ?? nodeArch
      const child = document.manifests.find(({ platform }) => platform?.architecture === wanted)
      if (child === undefined) throw new Error(`it has nothing for ${wanted}`)
      digest = child.digest as Digest
    }
  } catch (error) {
    throw new UserError(`${layout}: not a layout of one image: ${errorMessage(error)}`)
  }
}

function described({ digest, size }: { digest: string; size: number }) {
  return { digest: digest as Digest, size }
}
