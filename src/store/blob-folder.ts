/**
 * A folder `blobs/<algorithm>/<hex>`, as containerd's content store and OCI image layouts have it: opens blobs, and
 * tells within milliseconds which appear and disappear. A blob counts as soon as its final name is there; both kinds
 * of folder fill a file elsewhere and rename it.
 *
 * inotify covers folders that exist; folders that come later are found through their parent, the root itself and
 * events lost to a full kernel queue by reading the folders again from time to time.
 */
import { type FSWatcher, lstatSync, statSync, watch } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { inBackground, surface } from '../lib/background.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { expecting, isSystemError } from '../lib/errors.ts'
import { rescanIntervalMs, rescanMissingMs, sightingsMax } from '../limits.ts'
import { type Digest, type DigestAlgorithm, digestAlgorithms, digestParts, isDigest } from '../oci/digest.ts'
import { openContentFile } from './content-file.ts'
import type { Content } from './store.ts'

export interface BlobFolderChange {
  /** Also blobs that were there and whose file was replaced. */
  added: readonly Digest[]
  removed: readonly Digest[]
}

export class BlobFolder {
  readonly #root: string
  readonly #clock: Clock
  readonly #present = new Set<Digest>()
  /** When an event last named it. */
  readonly #sightingsMs = new BoundedMap<Digest, number>(sightingsMax)
  readonly #watchers = new Map<string, { watcher: FSWatcher; inode: number }>()
  #onChange: ((change: BlobFolderChange) => void) | undefined
  #cancelRescan: (() => void) | undefined
  #scanning: Promise<void> | undefined
  #scanAgain = false
  #stopped = false

  constructor(root: string, clock: Clock) {
    this.#root = root
    this.#clock = clock
  }

  /** Digests whose files are there, as far as we have heard. */
  get present(): ReadonlySet<Digest> {
    return this.#present
  }

  /** Also when it is gone again: a name appears here only for content that was whole and right. */
  wasPresentSince(digest: Digest, sinceMs: number): boolean {
    return this.#present.has(digest) || (this.#sightingsMs.get(digest) ?? -Infinity) >= sinceMs
  }

  open(digest: Digest): Promise<Content> {
    return openContentFile(this.#path(digest))
  }

  exists(digest: Digest): boolean {
    return this.sizeOf(digest) !== undefined
  }

  /**
   * Bytes of the blob's file; undefined when it is not there. Synchronous, so that answers come in the order of the events
   * that asked; it costs microseconds.
   */
  sizeOf(digest: Digest): number | undefined {
    try {
      const stats = lstatSync(this.#path(digest), { throwIfNoEntry: false })
      return stats?.isFile() === true ? stats.size : undefined
    } catch (error) {
      if (!isSystemError(error)) throw error
      // Something else has come in the place of a folder, or it is closed to us: then the blob is not there either.
      return undefined
    }
  }

  /** Reads the folder once, then calls back on every change until `stop`. */
  async start(onChange: (change: BlobFolderChange) => void): Promise<void> {
    this.#onChange = onChange
    await this.rescan()
  }

  stop(): void {
    this.#stopped = true
    this.#cancelRescan?.()
    for (const { watcher } of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
  }

  /** Compares what is known with what is on disk. Calls that come while one runs share one further run. */
  rescan(): Promise<void> {
    if (this.#scanning !== undefined) {
      this.#scanAgain = true
      return this.#scanning
    }
    this.#scanning = this.#scanUntilQuiet().finally(() => {
      this.#scanning = undefined
    })
    return this.#scanning
  }

  #rescanInBackground(): void {
    void inBackground('blob_scan', () => this.rescan())
  }

  async #scanUntilQuiet(): Promise<void> {
    do {
      this.#scanAgain = false
      await this.#scan()
    } while (this.#scanAgain && !this.#stopped)
  }

  async #scan(): Promise<void> {
    // Watch first, read second: what appears in between is then reported twice instead of never.
    const complete = this.#watchFolders()
    const found = new Set<Digest>()
    for (const algorithm of digestAlgorithms) {
      const names = await readdir(join(this.#root, 'blobs', algorithm)).catch(expecting(isSystemError, []))
      for (const name of names) {
        const digest = `${algorithm}:${name}`
        if (isDigest(digest)) found.add(digest)
      }
    }
    if (this.#stopped) return
    // The listing is older than events that came meanwhile: ask again before believing it.
    const added = [...found].filter((digest) => !this.#present.has(digest) && this.exists(digest))
    const removed = [...this.#present].filter((digest) => !found.has(digest) && !this.exists(digest))
    this.#report(added, removed)
    this.#cancelRescan?.()
    this.#cancelRescan = this.#clock.after(complete ? rescanIntervalMs : rescanMissingMs, () =>
      this.#rescanInBackground(),
    )
  }

  /** True when root, blobs/ and at least one algorithm's folder are watched. */
  #watchFolders(): boolean {
    const blobs = join(this.#root, 'blobs')
    const parents = [this.#root, blobs].map((path) => this.#watchFolder(path, () => this.#rescanInBackground()))
    const folders = digestAlgorithms.map((algorithm) =>
      this.#watchFolder(join(blobs, algorithm), (name) => this.#check(algorithm, name)),
    )
    return parents.every(Boolean) && folders.some(Boolean)
  }

  #watchFolder(path: string, onName: (name: string) => void): boolean {
    const inode = inodeOf(path)
    const watched = this.#watchers.get(path)
    if (watched !== undefined && watched.inode === inode) return true
    watched?.watcher.close()
    this.#watchers.delete(path)
    if (inode === undefined || this.#stopped) return false
    try {
      // 'change' events are writes to and modes of files that are there already.
      const watcher = watch(path, { persistent: false }, (event, name) => {
        if (event === 'rename' && name !== null) onName(name)
      })
      watcher.on('error', (error) => {
        surface('blob_scan', error, isSystemError)
        this.#watchers.delete(path)
      })
      this.#watchers.set(path, { watcher, inode })
      return true
    } catch (error) {
      if (!isSystemError(error)) throw error
      return false
    }
  }

  #check(algorithm: DigestAlgorithm, name: string): void {
    const digest = `${algorithm}:${name}`
    if (!isDigest(digest)) {
      // The folder's own name: it was removed or replaced.
      if (name === algorithm) this.#rescanInBackground()
      return
    }
    this.#sightingsMs.set(digest, this.#clock.nowMs())
    const exists = this.exists(digest)
    if (!exists && !this.#present.has(digest)) return
    this.#report(exists ? [digest] : [], exists ? [] : [digest])
  }

  #report(added: readonly Digest[], removed: readonly Digest[]): void {
    for (const digest of added) this.#present.add(digest)
    for (const digest of removed) this.#present.delete(digest)
    if (added.length > 0 || removed.length > 0) this.#onChange?.({ added, removed })
  }

  #path(digest: Digest): string {
    const { algorithm, hex } = digestParts(digest)
    return join(this.#root, 'blobs', algorithm, hex)
  }
}

/** Undefined: it is not there, or closed to us. */
function inodeOf(path: string): number | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false })?.ino
  } catch (error) {
    if (!isSystemError(error)) throw error
    return undefined
  }
}
