/** The sizes that index.json and the manifests of a layout give their blobs. */
import { expecting, isOperationalError } from '../../lib/errors.ts'
import { declaredSizesMax, layoutManifestsMax, manifestBytesMax } from '../../limits.ts'
import { type Digest, isDigest } from '../../oci/digest.ts'
import { manifestMediaTypes, parseManifest } from '../../oci/manifest.ts'
import type { BlobFolder } from '../blob-folder.ts'
import { readContent } from '../store.ts'

interface Descriptor {
  digest: Digest
  size: number
  isManifest: boolean
}

export class DeclaredSizes {
  readonly #blobs: BlobFolder
  /** Local files, of a bounded size: nothing to interrupt. */
  readonly #signal = new AbortController().signal
  /** Descriptors in each manifest that was read: they never change. */
  #manifests = new Map<Digest, readonly Descriptor[]>()
  #missing = new Set<Digest>()
  #sizes = new Map<Digest, readonly number[]>()

  constructor(blobs: BlobFolder) {
    this.#blobs = blobs
  }

  /** A manifest that is named, and could not be read. */
  isMissing(digest: Digest): boolean {
    return this.#missing.has(digest)
  }

  /** True when nobody declares another size. Where manifests contradict each other, any of their sizes will do. */
  allow(digest: Digest, size: number): boolean {
    return this.#sizes.get(digest)?.includes(size) !== false
  }

  /** False when index.json and the manifests refer to the blob as something else. */
  isManifest(digest: Digest): boolean {
    return this.#manifests.has(digest) || !this.#sizes.has(digest)
  }

  /** One of the declared sizes. */
  get(digest: Digest): number | undefined {
    return this.#sizes.get(digest)?.[0]
  }

  /** Reads all manifests that can be reached from these descriptors. Returns the blobs whose size is declared. */
  async read(roots: readonly unknown[]): Promise<Digest[]> {
    const manifests = new Map<Digest, readonly Descriptor[]>()
    const missing = new Set<Digest>()
    const sizes = new Map<Digest, readonly number[]>()
    const waiting = readDescriptors(roots, true)
    for (let descriptor = waiting.pop(); descriptor !== undefined; descriptor = waiting.pop()) {
      const { digest, size, isManifest } = descriptor
      const known = sizes.get(digest) ?? []
      if (!known.includes(size) && (known.length > 0 || sizes.size < declaredSizesMax))
        sizes.set(digest, [...known, size])
      const isRead = manifests.has(digest) || missing.has(digest)
      if (!isManifest || isRead || manifests.size + missing.size >= layoutManifestsMax) continue
      const children = this.#manifests.get(digest) ?? (await this.#readManifest(digest))
      if (children === undefined) missing.add(digest)
      else manifests.set(digest, children)
      waiting.push(...(children ?? []))
    }
    this.#manifests = manifests
    this.#missing = missing
    this.#sizes = sizes
    return [...sizes.keys()]
  }

  async #readManifest(digest: Digest): Promise<readonly Descriptor[] | undefined> {
    const bytes = await readContent(this.#blobs, digest, manifestBytesMax, this.#signal).catch(
      expecting(isOperationalError, undefined),
    )
    const manifest = bytes === undefined ? undefined : parseManifest(bytes)
    if (manifest === undefined) return undefined
    const { config, layers, manifests } = manifest
    return [
      ...readDescriptors([config, ...(Array.isArray(layers) ? layers : [])], false),
      ...readDescriptors(Array.isArray(manifests) ? manifests : [], true),
    ]
  }
}

/** Leaves out what is no descriptor. */
function readDescriptors(values: readonly unknown[], areManifests: boolean): Descriptor[] {
  return values.flatMap((value) => {
    const { digest, size, mediaType } = (value ?? {}) as { digest?: unknown; size?: unknown; mediaType?: unknown }
    if (typeof digest !== 'string' || !isDigest(digest) || !Number.isSafeInteger(size)) return []
    const isManifest = areManifests || manifestMediaTypes.includes(String(mediaType))
    return [{ digest, size: size as number, isManifest }]
  })
}
