/**
 * Media types of the manifests in the store. A stranger may request any blob as a manifest, so a blob is only read when the
 * store lists it as one, one blob at a time, and the result is remembered whether it is a manifest or not.
 */
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { settled } from '../lib/settled.ts'
import { manifestBytesMax, manifestReadTimeoutMs, manifestTypesRememberedMax } from '../limits.ts'
import type { Digest } from '../oci/digest.ts'
import { manifestMediaType } from '../oci/manifest.ts'
import { ContentNotFound, type ContentStore, readContent } from '../store/store.ts'

const noManifest = ''

export class ManifestTypes {
  readonly #store: Pick<ContentStore, 'open' | 'facts'>
  readonly #clock: Clock
  /** By digest; `noManifest` for a blob that is none. */
  readonly #known = new BoundedMap<Digest, string>(manifestTypesRememberedMax)
  /** Reads that run or wait. No more than requests that are being answered. */
  readonly #reads = new Map<Digest, Promise<string>>()
  /** Ends when the latest read ends. */
  #latestRead: Promise<unknown> = Promise.resolve()

  constructor(store: Pick<ContentStore, 'open' | 'facts'>, clock: Clock) {
    this.#store = store
    this.#clock = clock
  }

  /** Rejects with ContentNotFound when the content is not a manifest. */
  async get(digest: Digest): Promise<string> {
    const known = this.#known.get(digest)
    const mediaType = known ?? (await this.#read(digest))
    if (mediaType === noManifest) throw new ContentNotFound(`${digest} is not a manifest`)
    return mediaType
  }

  #read(digest: Digest): Promise<string> {
    const running = this.#reads.get(digest)
    if (running !== undefined) return running
    const untilMs = this.#clock.nowMs() + manifestReadTimeoutMs
    const read = this.#latestRead.then(() => this.#readNow(digest, untilMs)).finally(() => this.#reads.delete(digest))
    this.#reads.set(digest, read)
    this.#latestRead = settled(read)
    return read
  }

  /** `untilMs`: a read that waited longer for its turn does not start. */
  async #readNow(digest: Digest, untilMs: number): Promise<string> {
    if (this.#clock.nowMs() > untilMs) throw new ContentNotFound(`${digest}: reads of other manifests take too long`)
    // Not remembered: containerd may label the blob in a moment.
    if (!(await this.#store.facts(digest)).isManifest) return noManifest
    using timeout = awakeTimeout(this.#clock, manifestReadTimeoutMs)
    const bytes = await readContent(this.#store, digest, manifestBytesMax, timeout.signal).catch((error: unknown) => {
      if (!timeout.signal.aborted) throw error
      throw new ContentNotFound(`${digest} cannot be read in ${manifestReadTimeoutMs} ms`, { cause: error })
    })
    const mediaType = manifestMediaType(bytes) ?? noManifest
    this.#known.set(digest, mediaType)
    return mediaType
  }
}
