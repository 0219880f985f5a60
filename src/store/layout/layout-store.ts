/**
 * ContentStore over an OCI image layout folder (OCI image spec, image-layout.md): `blobs/`, and `index.json` whose
 * entries name tags. Embedded: no service, no root. Used by the demo, by tests, and by clients that keep a layout.
 *
 * A tag is known by the annotation `io.containerd.image.name`, or by `org.opencontainers.image.ref.name` when that
 * is a full name with registry and repository.
 */
import { type FSWatcher, watch } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../lib/clock.ts'
import { UserError, errorCode } from '../../lib/errors.ts'
import { manifestBytesMax, rescanIntervalMs } from '../../limits.ts'
import { type Digest, isDigest } from '../../oci/digest.ts'
import { parseImageReference, tagKey } from '../../oci/reference.ts'
import { BlobFolder } from '../blob-folder.ts'
import { ChangeQueue } from '../change-queue.ts'
import { type Content, ContentNotFound, type ContentStore, type StoreChange } from '../store.ts'

const nameAnnotations = ['io.containerd.image.name', 'org.opencontainers.image.ref.name']

export class LayoutStore implements ContentStore {
  readonly #path: string
  readonly #clock: Clock
  readonly #blobs: BlobFolder
  readonly #changes = new ChangeQueue()
  #tags = new Map<string, Digest>()
  #watcher: FSWatcher | undefined
  #cancelReread: (() => void) | undefined

  private constructor(path: string, clock: Clock) {
    this.#path = path
    this.#clock = clock
    this.#blobs = new BlobFolder(path, clock)
  }

  /** Throws a UserError when the folder is not there. An empty folder is a layout that will be filled. */
  static async open(path: string, clock: Clock): Promise<LayoutStore> {
    const stats = await stat(path).catch((error: unknown) => errorCode(error))
    if (typeof stats !== 'object' || !stats.isDirectory()) {
      throw new UserError(
        `--oci-layout: ${path} is not a folder: create it, or name the folder with oci-layout in it`,
      )
    }
    const store = new LayoutStore(path, clock)
    store.#watcher = watch(path, { persistent: false }, (_event, name) => {
      if (name === 'index.json') void store.#readIndex()
    })
    store.#watcher.on('error', () => undefined)
    await store.#blobs.start(({ added, removed }) => {
      store.#changes.set(added, true)
      store.#changes.set(removed, false)
      // A tag only counts with its manifest in place, which may come after index.json.
      store.#setTags(store.#tags)
    })
    await store.#readIndex()
    return store
  }

  resolve(name: string): Promise<Digest> {
    const digest = this.#tags.get(name)
    if (digest === undefined || !this.#blobs.present.has(digest)) {
      return Promise.reject(new ContentNotFound(`${name} is not in ${this.#path}/index.json`))
    }
    return Promise.resolve(digest)
  }

  open(digest: Digest): Promise<Content> {
    return this.#blobs.open(digest)
  }

  isStored(digest: Digest): boolean {
    return this.#blobs.present.has(digest)
  }

  wasStoredSince(digest: Digest, sinceMs: number): boolean {
    return this.#blobs.wasPresentSince(digest, sinceMs)
  }

  watch(signal: AbortSignal): AsyncIterable<StoreChange> {
    return this.#changes.changes(signal)
  }

  problem(): undefined {
    return undefined
  }

  close(): Promise<void> {
    this.#watcher?.close()
    this.#cancelReread?.()
    this.#blobs.stop()
    return Promise.resolve()
  }

  async #readIndex(): Promise<void> {
    const tags = await readTags(join(this.#path, 'index.json'))
    // Unreadable is "being written": another event follows, at the latest the next re-read.
    if (tags !== undefined) this.#setTags(tags)
    this.#cancelReread?.()
    this.#cancelReread = this.#clock.after(rescanIntervalMs, () => void this.#readIndex())
  }

  #setTags(tags: Map<string, Digest>): void {
    for (const name of this.#tags.keys()) {
      if (!tags.has(name)) this.#changes.set([name], false)
    }
    for (const [name, digest] of tags) this.#changes.set([name], this.#blobs.present.has(digest))
    this.#tags = tags
  }
}

async function readTags(path: string): Promise<Map<string, Digest> | undefined> {
  try {
    const { size } = await stat(path)
    if (size > manifestBytesMax) return undefined
    const index = JSON.parse(await readFile(path, 'utf8')) as {
      manifests?: { digest?: unknown; annotations?: Record<string, unknown> }[]
    }
    const tags = new Map<string, Digest>()
    for (const { digest, annotations } of index.manifests ?? []) {
      if (typeof digest !== 'string' || !isDigest(digest)) continue
      for (const annotation of nameAnnotations) {
        const name = annotations?.[annotation]
        const reference = typeof name === 'string' ? parseImageReference(name) : undefined
        if (reference?.tag !== undefined) {
          tags.set(tagKey(reference.registry, reference.repository, reference.tag), digest)
        }
      }
    }
    return tags
  } catch (error) {
    return errorCode(error) === 'ENOENT' ? new Map() : undefined
  }
}
