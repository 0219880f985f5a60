/** What is pulled: layouts of `benchmark generate`, or names such as `v1-10MB-1`, made on the fly. */
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { UserError } from '../../lib/errors.ts'
import type { ImageSet, ImageSource } from '../target.ts'
import { parseSize } from '../size.ts'

const namePattern = /^(?<version>[\w.]+)-(?<size>\d+[KMG]?B)-(?<layers>\d+)$/

/** Two images of a measurement: what nodes have first, and what replaces it. */
export function imageSet(first: string, second: string, sharedLayers = 0): ImageSet {
  const [create, update] = [imageSource(first, sharedLayers), imageSource(second, sharedLayers)]
  const key = (text: string) => basename(text).replace(/^v\d+-/, '')
  return { name: key(first) === '' ? first : key(first), create: [create], update: [update] }
}

function imageSource(text: string, sharedLayers: number): ImageSource {
  const parts = namePattern.exec(text)?.groups
  if (parts !== undefined) {
    const { size = '', layers = '' } = parts
    return { kind: 'generated', reference: text, sizeBytes: parseSize(size), layers: Number(layers), sharedLayers }
  }
  if (existsSync(join(text, 'index.json'))) return { kind: 'layout', reference: basename(text), layout: text }
  throw new UserError(
    `--images: "${text}" is neither a name such as v1-10MB-1 (version-size-layers) nor the folder of an OCI layout`,
  )
}

const suiteSizes = ['10MB', '100MB', '1GB']
const suiteLayers = [1, 4]

/** The six images of the published benchmark; the large ones only when asked for. */
export function suiteImageSets(withLarge: boolean): ImageSet[] {
  return suiteSizes
    .filter((size) => withLarge || size !== '1GB')
    .flatMap((size) => suiteLayers.map((layers) => imageSet(`v1-${size}-${layers}`, `v2-${size}-${layers}`)))
}
