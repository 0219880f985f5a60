import { describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { type Digest, digestOf } from '../../../src/oci/digest.ts'
import { ManifestTypes } from '../../../src/registry/manifest-types.ts'
import { ContentNotFound } from '../../../src/store/store.ts'

const manifest = Buffer.from('{"schemaVersion":2,"config":{}}')
const layer = Buffer.from('{"layer":[]}')

/** A store that counts how many blobs are open, in all and at the same time. */
class CountingStore {
  readonly opened: Digest[] = []
  openAtOnceMax = 0
  readonly manifests = new Set<Digest>()
  readonly #blobs = new Map<Digest, Buffer>([manifest, layer].map((bytes) => [digestOf(bytes), bytes]))
  #open = 0

  add(bytes: Buffer): Digest {
    this.#blobs.set(digestOf(bytes), bytes)
    return digestOf(bytes)
  }

  facts(digest: Digest) {
    return Promise.resolve({ isManifest: this.manifests.has(digest), repositories: [] })
  }

  open(digest: Digest) {
    const bytes = this.#blobs.get(digest)
    if (bytes === undefined) return Promise.reject(new ContentNotFound('none'))
    this.opened.push(digest)
    this.#open += 1
    this.openAtOnceMax = Math.max(this.openAtOnceMax, this.#open)
    return Promise.resolve({
      size: bytes.length,
      send: (_range: unknown, write: (chunk: Uint8Array) => Promise<void>) => write(bytes),
      close: () => {
        this.#open -= 1
        return Promise.resolve()
      },
    })
  }
}

describe('the media type of a manifest', () => {
  it('is read once', async () => {
    const store = new CountingStore()
    store.manifests.add(digestOf(manifest))
    const types = new ManifestTypes(store, systemClock)
    const results = await Promise.all([1, 2, 3].map(() => types.get(digestOf(manifest))))
    results.push(await types.get(digestOf(manifest)))
    expect(new Set(results)).toEqual(new Set(['application/vnd.oci.image.manifest.v1+json']))
    expect(store.opened).toHaveLength(1)
  })

  it('is not looked for in a blob that the store does not list as a manifest', async () => {
    const store = new CountingStore()
    const types = new ManifestTypes(store, systemClock)
    await expect(types.get(digestOf(layer))).rejects.toThrow(ContentNotFound)
    expect(store.opened).toEqual([])
    // containerd labels a manifest soon after it is complete.
    await expect(types.get(digestOf(manifest))).rejects.toThrow(ContentNotFound)
    store.manifests.add(digestOf(manifest))
    expect(await types.get(digestOf(manifest))).toMatch(/manifest/)
  })

  it('is remembered as missing, so that a blob that is none is parsed once', async () => {
    const store = new CountingStore()
    store.manifests.add(digestOf(layer))
    const types = new ManifestTypes(store, systemClock)
    for (let i = 0; i < 3; i++) await expect(types.get(digestOf(layer))).rejects.toThrow(ContentNotFound)
    expect(store.opened).toHaveLength(1)
  })

  it('is read of one manifest at a time, and a failure does not block the next', async () => {
    const store = new CountingStore()
    const digests = Array.from({ length: 20 }, (_, at) =>
      store.add(Buffer.from(`{"schemaVersion":2,"config":${at}}`)),
    )
    const missing = digestOf(Buffer.from('missing'))
    for (const digest of [...digests, missing]) store.manifests.add(digest)
    const types = new ManifestTypes(store, systemClock)
    await Promise.all([
      expect(types.get(missing)).rejects.toThrow(ContentNotFound),
      ...digests.map((digest) => types.get(digest)),
    ])
    expect(store.openAtOnceMax).toBe(1)
  })
})
