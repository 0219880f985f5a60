/**
 * ContentStore over containerd. Files tell, gRPC confirms: the blob folder says within milliseconds what appeared or
 * went away (no version sends an event for removal, those before 2.1 none for content); since all namespaces share
 * the folder, a new blob counts once containerd knows it in ours. Where the folder cannot be read, everything goes
 * over gRPC, removals being found by full listings. A blob whose file has another size than containerd's metadata says is
 * damaged: it does not count.
 *
 * containerd may go away and come back: files are served meanwhile, and the inventory is read anew at every return.
 */
import { type ContainerdClient, isContainerdError } from '../../containerd/client.ts'
import type { Envelope } from '../../containerd/generated/containerd.ts'
import { ContentCreate } from '../../containerd/generated/events.ts'
import { Backoff } from '../../lib/backoff.ts'
import { inBackground, surface } from '../../lib/background.ts'
import { BoundedMap } from '../../lib/bounded-map.ts'
import { type Clock, pause } from '../../lib/clock.ts'
import { errorMessage, expecting } from '../../lib/errors.ts'
import { parsed } from '../../lib/foreign.ts'
import { OneAtATime } from '../../lib/one-at-a-time.ts'
import { awakeTimeout } from '../../lib/patience.ts'
import type { Random } from '../../lib/random.ts'
import { settled } from '../../lib/settled.ts'
import {
  collectionDelayMs,
  confirmConcurrency,
  confirmDelaysMs,
  containerdCallTimeoutMs,
  containerdReconnectFirstMs,
  containerdReconnectLastMs,
  rescanIntervalMs,
  sightingsMax,
} from '../../limits.ts'
import type { Logger } from '../../logger.ts'
import { type Digest, isDigest } from '../../oci/digest.ts'
import { parseImageReference, tagKey } from '../../oci/reference.ts'
import type { BlobFolder } from '../blob-folder.ts'
import { ChangeQueue } from '../change-queue.ts'
import { type Content, type ContentFacts, ContentNotFound, type ContentStore, type StoreChange } from '../store.ts'
import { WrongSizes } from '../wrong-sizes.ts'
import { GrpcContent } from './grpc-content.ts'

export interface ContainerdStoreComponents {
  client: ContainerdClient
  /** Undefined: there is no folder that we can read. */
  folder: BlobFolder | undefined
  clock: Clock
  random: Random
  logger: Logger
  /** It is gone, or back. */
  onContainerd?: (isThere: boolean) => void
}

export class ContainerdStore implements ContentStore {
  readonly #client: ContainerdClient
  readonly #folder: BlobFolder | undefined
  readonly #clock: Clock
  readonly #random: Random
  readonly #logger: Logger
  readonly #onContainerd: (isThere: boolean) => void
  readonly #namespace: string
  readonly #changes = new ChangeQueue()
  readonly #stop = new AbortController()
  /**
   * Blobs that containerd knows in our namespace, with the bytes that it says they have. If we see the folder: whose file is
   * there and has this size.
   */
  readonly #blobs = new Map<Digest, number>()
  readonly #wrongSizes: WrongSizes
  /** When a blob was found to be gone. */
  readonly #goneMs = new BoundedMap<Digest, number>(sightingsMax)
  /** Blobs whose file appeared: waiting to be confirmed. */
  readonly #unconfirmed = new Set<Digest>()
  #confirming = 0
  #tags = new Map<string, Digest>()
  #problem: string | undefined = 'containerd: the first inventory is not complete'
  readonly #inventory = new OneAtATime(() => this.#takeInventory())
  readonly #afterCollection = new OneAtATime(async () => {
    await this.#clock.sleep(collectionDelayMs, this.#stop.signal)
    await this.#inventory.run()
  })
  readonly #tagList = new OneAtATime(async () => this.#setTags(await this.#client.images()))
  #following: Promise<unknown> = Promise.resolve()

  constructor(components: ContainerdStoreComponents, namespace: string) {
    this.#client = components.client
    this.#folder = components.folder
    this.#clock = components.clock
    this.#random = components.random
    this.#logger = components.logger
    this.#onContainerd = components.onContainerd ?? (() => {})
    this.#namespace = namespace
    this.#wrongSizes = new WrongSizes(this.#logger, 'remove the images that use it and pull them again')
  }

  /** Starts to follow containerd; the first inventory is on its way when this resolves. */
  async start(): Promise<void> {
    await this.#folder?.start(({ added, removed }) => {
      this.#forget(removed)
      for (const digest of removed) this.#wrongSizes.forget(digest)
      for (const digest of added) this.#confirmSoon(digest)
    })
    this.#following = inBackground('containerd_events', () =>
      Promise.all([this.#follow(), this.#syncFromTimeToTime()]),
    )
  }

  async resolve(name: string): Promise<Digest> {
    const known = this.#tags.get(name)
    if (known !== undefined) return known
    // The event of a tag may still be on its way.
    const image = await this.#client.image(name).catch(expecting(isContainerdError, undefined))
    const digest = image?.target?.digest
    if (digest === undefined || !isDigest(digest)) throw new ContentNotFound(`containerd has no image ${name}`)
    return digest
  }

  async open(digest: Digest): Promise<Content> {
    if (this.#folder === undefined) return this.#openByGrpc(digest)
    const content = await this.#folder.open(digest)
    const size = this.#blobs.get(digest) ?? (await this.#sizeOf(digest))
    if (size === content.size) return content
    await content.close()
    if (size === undefined) throw new ContentNotFound(`${digest} is not in namespace ${this.#namespace}`)
    this.#noteWrongSize(digest, content.size, size)
    throw new ContentNotFound(`${digest} has ${content.size} of ${size} bytes`)
  }

  async facts(digest: Digest): Promise<ContentFacts> {
    const info = await this.#client.contentInfo(digest).catch((error: unknown) => {
      if (!isContainerdError(error)) throw error
      throw new ContentNotFound(`${digest}: containerd does not respond`, { cause: error })
    })
    if (info === undefined) throw new ContentNotFound(`${digest} is not in containerd`)
    return factsOf(info.labels)
  }

  isStored(digest: Digest): boolean {
    return this.#blobs.has(digest)
  }

  wasStoredSince(digest: Digest, sinceMs: number): boolean {
    if (this.#folder?.wasPresentSince(digest, sinceMs) === true) return true
    return this.#blobs.has(digest) || (this.#goneMs.get(digest) ?? -Infinity) >= sinceMs
  }

  watch(signal: AbortSignal): AsyncIterable<StoreChange> {
    return this.#changes.changes(signal)
  }

  problem(): string | undefined {
    return this.#problem
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#folder?.stop()
    this.#client.close()
    await this.#following
  }

  async #openByGrpc(digest: Digest): Promise<Content> {
    const info = await this.#client.contentInfo(digest).catch((error: unknown) => {
      if (!isContainerdError(error)) throw error
      throw new ContentNotFound(`${digest}: containerd cannot be asked`, { cause: error })
    })
    if (info === undefined) throw new ContentNotFound(`${digest} is not in containerd`)
    if (info.size < 0) throw new ContentNotFound(`${digest} has ${info.size} bytes, says containerd`)
    const content = new GrpcContent(this.#client, digest, info.size)
    using patience = awakeTimeout(this.#clock, containerdCallTimeoutMs)
    // A read that fails says nothing about the size.
    const isWhole = await content.hasLastByte(patience.signal).catch(expecting(isContainerdError, true))
    if (!isWhole) {
      this.#noteWrongSize(digest, `fewer than ${info.size}`, info.size)
      throw new ContentNotFound(`${digest} has fewer than ${info.size} bytes`)
    }
    this.#wrongSizes.forget(digest)
    return content
  }

  /** The bytes that containerd says it has; undefined when it is not in our namespace, or containerd does not answer. */
  async #sizeOf(digest: Digest): Promise<number | undefined> {
    const info = await this.#client.contentInfo(digest).catch(expecting(isContainerdError, undefined))
    return info?.size
  }

  // --- Following containerd ---

  async #follow(): Promise<void> {
    const backoff = new Backoff(containerdReconnectFirstMs, containerdReconnectLastMs, this.#random)
    while (!this.#stop.signal.aborted) {
      const connection = new AbortController()
      const signal = AbortSignal.any([this.#stop.signal, connection.signal])
      const filters = [`namespace==${this.#namespace},topic~="^/(images/|content/|snapshot/remove)"`]
      // Subscribed first, listed second: nothing falls in between.
      const broken = this.#client.subscribe(filters, (event) => this.#onEvent(event), signal)
      try {
        await Promise.race([broken, this.#inventory.run()])
        backoff.reset()
        await broken
      } catch (error) {
        connection.abort()
        await settled(broken)
        if (this.#stop.signal.aborted) return
        surface('containerd_events', error)
        if (this.#problem === undefined) {
          this.#logger.warn(
            { error: errorMessage(error) },
            'lost containerd: serving what is on disk until it is back',
          )
        }
        // Only the stream of events may have ended.
        if (this.#problem === undefined && !(await this.#answers())) this.#onContainerd(false)
        this.#problem = `containerd: ${errorMessage(error)}`
        await pause(this.#clock, backoff.nextDelayMs(), this.#stop.signal)
      }
    }
  }

  async #answers(): Promise<boolean> {
    return this.#client.version().then(() => true, expecting(isContainerdError, false))
  }

  #onEvent({ topic, event }: Envelope): void {
    if (topic === '/content/create' && event !== undefined) {
      // An event that cannot be read: a listing finds what it reports, and the stream goes on.
      const created = parsed(() => ContentCreate.decode(event.value))
      if (created === undefined) void this.#update(() => this.#inventory.run())
      else if (isDigest(created.digest)) this.#onCreated(created.digest, created.size)
    } else if (this.#folder === undefined) {
      // After a removal the garbage collector follows; without a folder only a listing tells what it took, and none of
      // its events says that it is done (1.6 sends none at all).
      void this.#update(() => this.#inventory.run())
      void this.#update(() => this.#afterCollection.run())
    } else if (topic.startsWith('/images/')) {
      void this.#update(() => this.#followImages())
    }
  }

  #onCreated(digest: Digest, size: number): void {
    this.#wrongSizes.forget(digest)
    // Zero is also what an event without a size looks like.
    if (size > 0 || this.#folder === undefined) this.#learn(new Map([[digest, size]]))
    else this.#confirmSoon(digest)
  }

  /** Where containerd is away, the inventory at its return makes up for it. */
  #update(work: () => Promise<void>): Promise<void> {
    const { signal } = this.#stop
    return inBackground('containerd_inventory', work, { expected: isContainerdError, signal })
  }

  /** A name that stands for something unknown: what another namespace had is in ours now, and no file tells. */
  async #followImages(): Promise<void> {
    await this.#tagList.run()
    const isKnown = [...this.#tags.values()].every((digest) => this.#blobs.has(digest))
    if (!isKnown) await this.#inventory.run()
  }

  async #syncFromTimeToTime(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      await pause(this.#clock, rescanIntervalMs, signal)
      if (!signal.aborted) await this.#update(() => this.#inventory.run())
    }
  }

  /** Makes what we know equal to what containerd has. */
  async #takeInventory(): Promise<void> {
    if (this.#stop.signal.aborted) return
    const known = [...this.#blobs.keys()]
    const listed = new Map<Digest, number>()
    for await (const { digest, size } of this.#client.content(this.#stop.signal)) {
      if (isDigest(digest) && this.#folder?.exists(digest) !== false) listed.set(digest, size)
    }
    this.#wrongSizes.forgetAllBut(listed)
    // Known before the listing began and not in it: gone.
    this.#forget(known.filter((digest) => !listed.has(digest)))
    this.#learn(listed)
    await this.#tagList.run()
    if (this.#problem !== undefined) {
      this.#problem = undefined
      this.#onContainerd(true)
      this.#logger.info({ blobs: this.#blobs.size, tags: this.#tags.size }, 'inventory of containerd is complete')
    }
  }

  // --- What we know ---

  #confirmSoon(digest: Digest): void {
    this.#unconfirmed.add(digest)
    if (this.#confirming >= confirmConcurrency) return
    void inBackground('blob_check', () => this.#confirmWaiting(), { signal: this.#stop.signal })
  }

  async #confirmWaiting(): Promise<void> {
    this.#confirming += 1
    try {
      for (const digest of this.#unconfirmed) {
        this.#unconfirmed.delete(digest)
        await this.#confirm(digest)
      }
    } finally {
      this.#confirming -= 1
    }
  }

  async #confirm(digest: Digest): Promise<void> {
    for (const delayMs of confirmDelaysMs) {
      await pause(this.#clock, delayMs, this.#stop.signal)
      if (this.#stop.signal.aborted || this.#blobs.has(digest) || this.#folder?.exists(digest) !== true) return
      const size = await this.#sizeOf(digest)
      if (size !== undefined) {
        this.#learn(new Map([[digest, size]]))
        return
      }
    }
    // Another namespace's, or containerd is away: the next inventory decides.
  }

  /** With the bytes that containerd says each has. */
  #learn(sizes: ReadonlyMap<Digest, number>): void {
    const present = [...sizes].filter(([digest, size]) => this.#isWhole(digest, size))
    for (const [digest, size] of present) this.#blobs.set(digest, size)
    this.#changes.set(
      present.map(([digest]) => digest),
      true,
    )
    this.#offerTags()
  }

  /** Without a folder a blob is whole until it was found to be too short. */
  #isWhole(digest: Digest, size: number): boolean {
    if (this.#folder === undefined) return !this.#wrongSizes.has(digest)
    const fileBytes = this.#folder.sizeOf(digest)
    if (fileBytes === size) this.#wrongSizes.forget(digest)
    else if (fileBytes !== undefined) this.#noteWrongSize(digest, fileBytes, size)
    return fileBytes === size
  }

  #noteWrongSize(digest: Digest, fileBytes: number | string, size: number): void {
    this.#wrongSizes.report(digest, fileBytes, size)
    this.#forget([digest])
  }

  #forget(digests: Iterable<Digest>): void {
    const gone = [...digests]
    for (const digest of gone) {
      if (this.#blobs.delete(digest)) this.#goneMs.set(digest, this.#clock.nowMs())
      this.#unconfirmed.delete(digest)
    }
    this.#changes.set(gone, false)
    this.#offerTags()
  }

  #setTags(images: readonly { name: string; target: { digest: string } | undefined }[]): void {
    const tags = new Map<string, Digest>()
    for (const { name, target } of images) {
      const reference = parseImageReference(name)
      if (reference?.tag === undefined || reference.digest !== undefined) continue
      if (target === undefined || !isDigest(target.digest)) continue
      tags.set(tagKey(reference.registry, reference.repository, reference.tag), target.digest)
    }
    this.#changes.set(
      [...this.#tags.keys()].filter((name) => !tags.has(name)),
      false,
    )
    this.#tags = tags
    this.#offerTags()
  }

  /** A tag is only worth offering with its manifest. */
  #offerTags(): void {
    for (const [name, digest] of this.#tags) this.#changes.set([name], this.#blobs.has(digest))
  }
}

/**
 * containerd labels a manifest or an index with the blobs that it refers to, and each blob with the repositories that it was
 * pulled from (containerd docs/garbage-collection.md, core/remotes/docker/handler.go).
 */
function factsOf(labels: Readonly<Record<string, string>>): ContentFacts {
  const names = Object.entries(labels)
  return {
    isManifest: names.some(([name]) => name.startsWith('containerd.io/gc.ref.content')),
    repositories: names.flatMap(([name, value]) => {
      const registry = /^containerd\.io\/distribution\.source\.(.+)$/.exec(name)?.[1]
      return registry === undefined ? [] : value.split(',').map((repository) => `${registry}/${repository}`)
    }),
  }
}
