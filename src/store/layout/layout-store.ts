/**
 * ContentStore over an OCI image layout folder (OCI image spec, image-layout.md): `blobs/`, and `index.json` whose
 * entries name tags. Embedded: no service, no root. Used by the demo, by tests, and by clients that keep a layout.
 *
 * A tag is known by the annotation `io.containerd.image.name`, or by `org.opencontainers.image.ref.name` when that
 * is a full name with registry and repository. A blob whose file has another size than the index or a manifest says is
 * damaged: it does not count.
 */
import { type FSWatcher, watch } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { inBackground, surface } from '../../lib/background.ts'
import type { Clock } from '../../lib/clock.ts'
import { UserError, errorCode, isNotFound, isSystemError } from '../../lib/errors.ts'
import { parseJsonObject } from '../../lib/foreign.ts'
import { OneAtATime } from '../../lib/one-at-a-time.ts'
import { manifestBytesMax, rescanIntervalMs } from '../../limits.ts'
import type { Logger } from '../../logger.ts'
import { type Digest, isDigest } from '../../oci/digest.ts'
import { parseImageReference, tagKey } from '../../oci/reference.ts'
import { BlobFolder } from '../blob-folder.ts'
import { ChangeQueue } from '../change-queue.ts'
import { type Content, type ContentFacts, ContentNotFound, type ContentStore, type StoreChange } from '../store.ts'
import { WrongSizes } from '../wrong-sizes.ts'
import { DeclaredSizes } from './declared-sizes.ts'

const nameAnnotations = ['io.containerd.image.name', 'org.opencontainers.image.ref.name']

interface IndexEntry {
  digest?: unknown
  annotations?: Record<string, unknown>
}

export class LayoutStore implements ContentStore {
  readonly #path: string
  readonly #clock: Clock
  readonly #blobs: BlobFolder
  readonly #changes = new ChangeQueue()
  readonly #wrongSizes: WrongSizes
  readonly #declaredSizes: DeclaredSizes
  readonly #manifests = new OneAtATime(() => this.#readManifests())
  /** Blobs whose file has another size than is declared. */
  readonly #damaged = new Set<Digest>()
  /** What index.json names. */
  #roots: readonly unknown[] = []
  #tags = new Map<string, Digest>()
  #watcher: FSWatcher | undefined
  #cancelReread: (() => void) | undefined

  private constructor(path: string, clock: Clock, logger: Logger | undefined) {
    this.#path = path
    this.#clock = clock
    this.#blobs = new BlobFolder(path, clock)
    this.#wrongSizes = new WrongSizes(logger, `copy the image into ${path} again`)
    this.#declaredSizes = new DeclaredSizes(this.#blobs)
  }

  /** Throws a UserError when the folder is not there. An empty folder is a layout that will be filled. */
  static async open(path: string, clock: Clock, logger?: Logger): Promise<LayoutStore> {
    const stats = await stat(path).catch((error: unknown) => errorCode(error))
    if (typeof stats !== 'object' || !stats.isDirectory()) {
      throw new UserError(
        `--oci-layout: ${path} is not a folder: create it, or name the folder with oci-layout in it`,
      )
    }
    const store = new LayoutStore(path, clock, logger)
    store.#watcher = watch(path, { persistent: false }, (_event, name) => {
      if (name === 'index.json') store.#readIndexInBackground()
    })
    // The index is read again from time to time.
    store.#watcher.on('error', (error) => surface('layout_index', error, isSystemError))
    await store.#blobs.start(({ added, removed }) => {
      for (const digest of removed) store.#damaged.delete(digest)
      for (const digest of removed) store.#wrongSizes.forget(digest)
      store.#changes.set(removed, false)
      store.#offer(added)
      // Manifests may come after index.json, and say which sizes other blobs have.
      if (added.some((digest) => store.#declaredSizes.isMissing(digest))) void store.#manifests.run()
      // A tag only counts with its manifest in place.
      store.#setTags(store.#tags)
    })
    await store.#readIndex()
    return store
  }

  resolve(name: string): Promise<Digest> {
    const digest = this.#tags.get(name)
    if (digest === undefined || !this.isStored(digest)) {
      return Promise.reject(new ContentNotFound(`${name} is not in ${this.#path}/index.json`))
    }
    return Promise.resolve(digest)
  }

  async open(digest: Digest): Promise<Content> {
    const content = await this.#blobs.open(digest)
    if (this.#declaredSizes.allow(digest, content.size)) return content
    await content.close()
    this.#offer([digest])
    throw new ContentNotFound(`${digest} has ${content.size} bytes, other than ${this.#path} declares`)
  }

  facts(digest: Digest): Promise<ContentFacts> {
    if (!this.isStored(digest)) return Promise.reject(new ContentNotFound(`${digest} is not in ${this.#path}`))
    return Promise.resolve({ isManifest: this.#declaredSizes.isManifest(digest), repositories: [] })
  }

  isStored(digest: Digest): boolean {
    return this.#blobs.present.has(digest) && !this.#damaged.has(digest)
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

  #readIndexInBackground(): void {
    void inBackground('layout_index', () => this.#readIndex())
  }

  async #readIndex(): Promise<void> {
    const entries = await readEntries(join(this.#path, 'index.json'))
    // Unreadable is "being written": another event follows, at the latest the next re-read.
    if (entries !== undefined) {
      this.#roots = entries
      await this.#manifests.run()
      this.#setTags(tagsOf(entries))
    }
    this.#cancelReread?.()
    this.#cancelReread = this.#clock.after(rescanIntervalMs, () => this.#readIndexInBackground())
  }

  async #readManifests(): Promise<void> {
    const declared = await this.#declaredSizes.read(this.#roots)
    this.#offer(declared.filter((digest) => this.#blobs.present.has(digest)))
    this.#setTags(this.#tags)
  }

  /** Blobs whose files are there: offers those that are whole. */
  #offer(digests: readonly Digest[]): void {
    for (const digest of digests) {
      const fileBytes = this.#blobs.sizeOf(digest)
      const isWhole = fileBytes !== undefined && this.#declaredSizes.allow(digest, fileBytes)
      if (isWhole) {
        this.#damaged.delete(digest)
        this.#wrongSizes.forget(digest)
      } else if (fileBytes !== undefined) {
        this.#damaged.add(digest)
        this.#wrongSizes.report(digest, fileBytes, this.#declaredSizes.get(digest) ?? fileBytes)
      }
      this.#changes.set([digest], isWhole)
    }
  }

  #setTags(tags: Map<string, Digest>): void {
    for (const name of this.#tags.keys()) {
      if (!tags.has(name)) this.#changes.set([name], false)
    }
    for (const [name, digest] of tags) this.#changes.set([name], this.isStored(digest))
    this.#tags = tags
  }
}

/** The entries of index.json; undefined when it cannot be read. */
async function readEntries(path: string): Promise<readonly IndexEntry[] | undefined> {
  let text: string
  try {
    const { size } = await stat(path)
    if (size > manifestBytesMax) return undefined
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (!isSystemError(error)) throw error
    return isNotFound(error) ? [] : undefined
  }
  const index = parseJsonObject(text)
  const manifests = index?.['manifests'] ?? []
  if (index === undefined || !Array.isArray(manifests)) return undefined
  return (manifests as (IndexEntry | null)[]).filter((entry) => typeof entry === 'object' && entry !== null)
}

function tagsOf(entries: readonly IndexEntry[]): Map<string, Digest> {
  const tags = new Map<string, Digest>()
  for (const { digest, annotations } of entries) {
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
}
