/** What is pulled: layouts of `benchmark generate`, names such as `v1-10MB-1`, made on the fly, or images of a registry. */
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type BenchmarkTag, parseBenchmarkTag, suiteImages } from '../../images/benchmark-tag.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { parseImageReference } from '../../oci/reference.ts'
import type { Scene } from '../scene/scene.ts'
import type { ImageSet, ImageSource } from '../target.ts'

const large = 2 ** 30

/** Two images of a measurement: what nodes have first, and what replaces it. */
export function imageSet(create: string, update: string): ImageSet {
  const [first, second] = [imageSource(create), imageSource(update)]
  const names = [...new Set([first, second].map(({ reference }) => reference.replace(/^v\d+-/, '')))]
  return { name: names.join('+'), create: [first], update: [second] }
}

/** `100MB-12`: twelve layers of 100 MB together. */
export function sceneImage(text: string): { size: number; layers: number } {
  try {
    const { sizeBytes, layers } = parseBenchmarkTag(`v1-${text}`)
    return { size: sizeBytes, layers }
  } catch {
    throw new UserError(`--images: "${text}" is not such as 100MB-12, which --scene wants`)
  }
}

/** The images of a scene: an update of each when the scene has one. */
export function sceneImageSet(name: string, { images, phases }: Scene): ImageSet {
  const [first] = images
  const ofVersion = (version: string) =>
    images.map(({ size, layers, share = 0 }, index): ImageSource => {
      // Only layers of one size can be the same.
      if (share > 0 && (size !== first?.size || layers !== first.layers)) {
        throw new UserError(
          `scene ${name}: image ${index + 1} shares layers with the first: size and layers must be its`,
        )
      }
      const sharedLayers = index === 0 ? Math.max(0, ...images.map((image) => image.share ?? 0)) : share
      return { kind: 'generated', reference: `${version}-${index + 1}`, sizeBytes: size, layers, sharedLayers }
    })
  return { name, create: ofVersion('v1'), update: phases.update === undefined ? [] : ofVersion('v2') }
}

/** The six images of the published benchmark; the large ones only when asked for. */
export function suiteImageSets(withLarge: boolean): ImageSet[] {
  const wanted = suiteImages().filter(({ sizeBytes }) => withLarge || sizeBytes < large)
  return wanted.filter(({ version }) => version === 'v1').map(({ tag }) => imageSet(tag, tag.replace(/^v1-/, 'v2-')))
}

/** The same for images that a registry has: `ghcr.io/org/benchmark:v1-10MB-4` and its update are called `10MB-4`. */
export function registryImageSet(create: string, update: string): ImageSet {
  if (create === update) throw new UserError('--images: the update must be another image than the first')
  const references = [create, update]
  for (const text of references) {
    const name = parseImageReference(text)
    if (name?.tag !== undefined || name?.digest !== undefined) continue
    throw new UserError(
      `--images: "${text}" is not an image of a registry: write HOST/REPOSITORY:TAG, as in a pod; benchmark generate --push puts images there`,
    )
  }
  const [first, second] = references.map((reference): ImageSource => ({ kind: 'reference', reference }))
  const names = references.map((text) => /:(?:v\d+-)?([\w.-]+)$/.exec(text)?.[1] ?? text)
  return {
    name: [...new Set(names)].join('+'),
    create: first === undefined ? [] : [first],
    update: second === undefined ? [] : [second],
  }
}

/** The images of the published benchmark in a repository that has them. */
export function registrySuiteImageSets(repository: string, withLarge: boolean): ImageSet[] {
  return suiteImageSets(withLarge).map(({ create, update }) => {
    const [first, second] = [...create, ...update].map(({ reference }) => `${repository}:${reference}`)
    return registryImageSet(first ?? '', second ?? '')
  })
}

function imageSource(text: string): ImageSource {
  if (existsSync(join(text, 'index.json'))) return { kind: 'layout', reference: basename(text), layout: text }
  try {
    return generated(parseBenchmarkTag(text))
  } catch (error) {
    throw new UserError(`--images: ${errorMessage(error)}, or give the folder of an OCI layout`)
  }
}

function generated({ tag, sizeBytes, layers }: BenchmarkTag): ImageSource {
  return { kind: 'generated', reference: tag, sizeBytes, layers, sharedLayers: 0 }
}
