/** Store → router: what appears in the store is advertised, what goes away is withdrawn. Tags only where allowed. */
import { expecting } from '../lib/errors.ts'
import type { Metrics } from '../metrics.ts'
import type { NameFilter } from '../oci/filter.ts'
import { isDigest } from '../oci/digest.ts'
import { parseImageReference } from '../oci/reference.ts'
import type { Router } from '../router/router.ts'
import { type ContentStore, isContentNotFound } from '../store/store.ts'

export interface TrackerComponents {
  store: ContentStore
  router: Router
  filter: NameFilter
  metrics: Metrics
}

/** Runs until the signal aborts. `onInventory` is called once, when everything that was there is advertised. */
export async function track(
  components: TrackerComponents,
  onInventory: () => void,
  signal: AbortSignal,
): Promise<void> {
  const { store, router, filter } = components
  const offered = new Offered(components)
  let first = true
  for await (const { added, removed } of store.watch(signal)) {
    const keys = added.filter((key) => isDigest(key) || isAllowed(key, filter))
    router.advertise(keys)
    router.withdraw(removed)
    await offered.change(keys, removed)
    if (first) onInventory()
    first = false
  }
}

function isAllowed(key: string, filter: NameFilter): boolean {
  const reference = parseImageReference(key)
  return reference !== undefined && filter.allows({ ...reference, tag: reference.tag })
}

/** Counts for the gauges. */
class Offered {
  readonly #store: ContentStore
  readonly #metrics: Metrics
  readonly #digests = new Set<string>()
  /** Tag → digest. */
  readonly #tags = new Map<string, string>()

  constructor({ store, metrics }: TrackerComponents) {
    this.#store = store
    this.#metrics = metrics
  }

  async change(added: readonly string[], removed: readonly string[]): Promise<void> {
    for (const key of removed) {
      this.#digests.delete(key)
      this.#tags.delete(key)
    }
    for (const key of added) {
      if (isDigest(key)) this.#digests.add(key)
      else this.#tags.set(key, await this.#store.resolve(key).catch(expecting(isContentNotFound, key)))
    }
    this.#metrics.advertisedDigests.set(this.#digests.size)
    this.#setByRegistry()
  }

  #setByRegistry(): void {
    const registries = new Map<string, { tags: number; images: Set<string> }>()
    for (const [tag, digest] of this.#tags) {
      const name = tag.slice(0, tag.indexOf('/'))
      const counted = registries.get(name) ?? { tags: 0, images: new Set<string>() }
      counted.tags += 1
      counted.images.add(digest)
      registries.set(name, counted)
    }
    this.#metrics.advertisedTags.reset()
    this.#metrics.advertisedImages.reset()
    for (const [registry, { tags, images }] of registries) {
      this.#metrics.advertisedTags.set({ registry }, tags)
      this.#metrics.advertisedImages.set({ registry }, images.size)
    }
  }
}
