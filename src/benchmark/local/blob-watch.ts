/** When each blob became whole in a node's content store: its folder is watched, nothing is polled. */
import { type FSWatcher, existsSync, mkdirSync, watch } from 'node:fs'
import { join } from 'node:path'
import type { Digest } from '../../oci/digest.ts'

export class BlobWatch {
  readonly #arrivedMs = new Map<string, number>()
  readonly #folder: string
  readonly #watcher: FSWatcher

  /** `contentPath` is containerd's folder of content; it may not be there yet. */
  constructor(contentPath: string, nowMs: () => number = () => performance.now()) {
    this.#folder = join(contentPath, 'blobs', 'sha256')
    mkdirSync(this.#folder, { recursive: true })
    this.#watcher = watch(this.#folder, (_event, name) => {
      // A removal is an event too.
      if (name !== null && !this.#arrivedMs.has(name) && existsSync(join(this.#folder, name))) {
        this.#arrivedMs.set(name, nowMs())
      }
    })
  }

  /** Undefined: it did not arrive while this watched. */
  arrivedMs(digest: Digest): number | undefined {
    return this.#arrivedMs.get(digest.slice('sha256:'.length))
  }

  has(digest: Digest): boolean {
    return existsSync(join(this.#folder, digest.slice('sha256:'.length)))
  }

  close(): void {
    this.#watcher.close()
  }
}
