/**
 * Keeps filtered names private. A digest alone names no repository, and a request may name any, so with a filter a request has
 * to name its registry, and a blob is only served if a repository that it was pulled from is allowed.
 */
import { BoundedMap } from '../lib/bounded-map.ts'
import { namedDigestsRememberedMax } from '../limits.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import type { Digest } from '../oci/digest.ts'
import type { NameFilter } from '../oci/filter.ts'
import type { ContentStore } from '../store/store.ts'

export class NameCheck {
  readonly #filter: NameFilter
  readonly #store: Pick<ContentStore, 'facts'>
  /** Digests that this node's containerd requested under an allowed name. */
  readonly #requestedHere = new BoundedMap<Digest, true>(namedDigestsRememberedMax)

  constructor(filter: NameFilter, store: Pick<ContentStore, 'facts'>) {
    this.#filter = filter
    this.#store = store
  }

  /** Whether the request itself may be answered. */
  allowsRequest({ registry, repository, tag }: ContentRequest): boolean {
    if (!this.#filter.isRestricted) return true
    return registry !== undefined && this.#filter.allows({ registry, repository, tag })
  }

  /** This node's containerd requests the digest under a name that is allowed. */
  noteOwnRequest({ digest }: ContentRequest): void {
    if (this.#filter.isRestricted && digest !== undefined) this.#requestedHere.set(digest, true)
  }

  /**
   * Whether a stored blob may be served. A blob without known repositories, as after an import, is served under every allowed
   * name. Rejects with ContentNotFound.
   */
  async allowsStored(digest: Digest): Promise<boolean> {
    if (!this.#filter.isRestricted) return true
    const { repositories } = await this.#store.facts(digest)
    return repositories.length === 0 || repositories.some((name) => this.#isAllowed(name))
  }

  /** Whether a blob that is still arriving may be served: containerd knows its repositories only when it is complete. */
  allowsArriving(digest: Digest): boolean {
    return !this.#filter.isRestricted || this.#requestedHere.get(digest) === true
  }

  #isAllowed(name: string): boolean {
    const slash = name.indexOf('/')
    return this.#filter.allows({ registry: name.slice(0, slash), repository: name.slice(slash + 1), tag: undefined })
  }
}
