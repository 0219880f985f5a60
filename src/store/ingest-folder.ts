/**
 * Transfers from containerd's content folder: each running download has a folder `ingest/<name>`. inotify tells of new
 * folders, of bytes and of the end within milliseconds, in all versions; one watch for each download and two for the
 * folders above. containerd 1.6 makes `ingest` when it starts, later versions at the first pull, so its parent is
 * watched too. Events that the kernel lost are made up for by reading the folder again.
 *
 * While a download grows, each write of containerd would be an event, and so a wake-up here and in each follower. So a
 * file that grows is looked at each 30 ms, each 200 ms while nobody reads it, and watched again when it rests. Its end is
 * told by the folder above.
 */
import { type FSWatcher, lstatSync, readdirSync, watch } from 'node:fs'
import { basename, join } from 'node:path'
import { surface } from '../lib/background.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { isSystemError } from '../lib/errors.ts'
import {
  endedTransfersMax,
  ingestPaceMs,
  ingestRescanMs,
  ingestRestMs,
  ingestUnreadPaceMs,
  ingestWatchesMax,
  ingestsMax,
  rescanIntervalMs,
  rescanMissingMs,
} from '../limits.ts'
import type { Digest } from '../oci/digest.ts'
import { Ingest, openIngest } from './ingest.ts'
import type { Transfer, TransferEvent, Transfers } from './transfers.ts'

interface Entry {
  watcher: FSWatcher | undefined
  /** given up: containerd was gone, and its download with it. */
  ingest: ReturnType<typeof openIngest> | 'given up'
  /** While it grows: looked at regularly until then, and not watched. */
  growsUntilMs: number | undefined
}

export class IngestFolder implements Transfers {
  readonly #contentPath: string
  readonly #ingestPath: string
  readonly #namespace: string
  readonly #clock: Clock
  /** Of the content folder and of `ingest`, by path. */
  readonly #watchers = new Map<string, FSWatcher>()
  /** By the names of their folders. */
  readonly #entries = new Map<string, Entry>()
  readonly #ended = new BoundedMap<Digest, Transfer>(endedTransfersMax)
  readonly #listeners = new Set<(event: TransferEvent) => void>()
  /** Named by events that were not looked at yet; true: the folder itself came or went. */
  #touched = new Map<string, boolean>()
  #handling: NodeJS.Immediate | undefined
  #rescanDueMs = Infinity
  #cancelRescan: (() => void) | undefined
  #cancelPace: (() => void) | undefined
  #stopped = false

  constructor(contentPath: string, namespace: string, clock: Clock) {
    this.#contentPath = contentPath
    this.#ingestPath = join(contentPath, 'ingest')
    this.#namespace = namespace
    this.#clock = clock
  }

  start(): void {
    this.#rescan()
  }

  /** Nobody is told; whoever waits for bytes is given TransferFailed. */
  stop(): void {
    this.#stopped = true
    clearImmediate(this.#handling)
    this.#cancelRescan?.()
    this.#cancelPace?.()
    for (const path of this.#watchers.keys()) this.#unwatch(path)
    for (const [name, { ingest }] of this.#entries) {
      this.#drop(name)
      if (ingest instanceof Ingest) ingest.end('failed')
    }
  }

  /**
   * containerd is gone, and what it was downloading with it, although its files stay: who is fed from there need not wait
   * until nothing comes. When it is back it may go on with them.
   */
  noteContainerd(isThere: boolean): void {
    for (const [name, entry] of this.#entries) {
      const { ingest } = entry
      if (isThere && ingest === 'given up') this.#drop(name)
      if (isThere || !(ingest instanceof Ingest)) continue
      entry.ingest = 'given up'
      entry.growsUntilMs = undefined
      entry.watcher?.close()
      entry.watcher = undefined
      ingest.end('failed')
      this.#ended.set(ingest.digest, ingest)
      this.#report('failed', ingest)
    }
    if (isThere) this.#rescan()
  }

  find(digest: Digest): Transfer | undefined {
    const running = [...this.#entries.values()]
      .map(({ ingest }) => ingest)
      .filter((ingest) => ingest instanceof Ingest && ingest.digest === digest) as Ingest[]
    return running.at(-1) ?? this.#ended.get(digest)
  }

  isRunning(digest: Digest): boolean {
    const isKnown = () => this.find(digest)?.state === 'running'
    if (isKnown()) return true
    for (const name of readNames(this.#ingestPath)) this.#check(name)
    return isKnown()
  }

  watch(listener: (event: TransferEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  // --- What the kernel tells ---

  #rescan(): void {
    if (this.#stopped) return
    this.#rescanDueMs = Infinity
    // Watch first, read second: what appears in between is then seen twice instead of never.
    this.#watchFolder(this.#contentPath, (name) => {
      // `ingest` came or went, or the content folder itself: what was watched is something else now.
      if (name !== 'ingest' && name !== basename(this.#contentPath)) return
      this.#unwatch(this.#ingestPath)
      if (name !== 'ingest') this.#unwatch(this.#contentPath)
      this.#rescan()
    })
    this.#watchFolder(this.#ingestPath, (name) => {
      if (name !== 'ingest') this.#touch(name, true)
    })
    for (const name of new Set([...this.#entries.keys(), ...readNames(this.#ingestPath)])) this.#check(name)
    this.#planRescan()
  }

  #watchFolder(path: string, onName: (name: string) => void): void {
    if (this.#watchers.has(path)) return
    const watcher = tryToWatch(path, (event, name) => {
      // 'change' is a change of modes: what is written below is not told here.
      if (event === 'rename') onName(name)
    })
    if (watcher === undefined) return
    watcher.on('error', (error) => {
      surface('blob_scan', error, isSystemError)
      this.#unwatch(path)
    })
    this.#watchers.set(path, watcher)
  }

  #unwatch(path: string): void {
    this.#watchers.get(path)?.close()
    this.#watchers.delete(path)
  }

  /** Events come in batches, one for each write: the file is looked at once for all of them. */
  #touch(name: string, folderItself: boolean): void {
    this.#touched.set(name, folderItself || this.#touched.get(name) === true)
    this.#handling ??= setImmediate(() => this.#handleTouched())
  }

  #handleTouched(): void {
    const touched = this.#touched
    this.#touched = new Map()
    this.#handling = undefined
    for (const [name, folderItself] of touched) {
      // It may be another folder of the same name by now, and the watch be on the old one.
      if (folderItself && !(this.#entries.get(name)?.ingest instanceof Ingest)) this.#drop(name)
      this.#check(name)
    }
    this.#planRescan()
  }

  #planRescan(): void {
    if (this.#stopped) return
    const missing = this.#watchers.has(this.#contentPath) ? rescanIntervalMs : rescanMissingMs
    const delayMs = this.#entries.size > 0 ? ingestRescanMs : missing
    const dueMs = this.#clock.nowMs() + delayMs
    if (this.#rescanDueMs <= dueMs) return
    this.#cancelRescan?.()
    this.#rescanDueMs = dueMs
    this.#cancelRescan = this.#clock.after(delayMs, () => this.#rescan())
  }

  // --- Downloads ---

  /** Makes what is known of this folder equal to what is there. */
  #check(name: string): void {
    if (this.#stopped) return
    const entry = this.#entries.get(name) ?? this.#add(name)
    if (entry === undefined) return
    if (entry.ingest === 'not ours' || entry.ingest === 'given up') {
      if (!isFolder(join(this.#ingestPath, name))) this.#drop(name)
      return
    }
    if (entry.growsUntilMs === undefined) entry.watcher ??= this.#watchIngest(name)
    if (entry.ingest === 'incomplete') this.#openOrDrop(name, entry)
    else this.#look(name, entry, entry.ingest)
  }

  #add(name: string): Entry | undefined {
    if (this.#entries.size >= ingestsMax || !isFolder(join(this.#ingestPath, name))) return undefined
    const entry: Entry = { watcher: undefined, ingest: 'incomplete', growsUntilMs: undefined }
    this.#entries.set(name, entry)
    return entry
  }

  #openOrDrop(name: string, entry: Entry): void {
    const onRead = () => this.#hurry()
    entry.ingest = openIngest(this.#contentPath, name, this.#namespace, this.#clock.nowMs(), onRead)
    if (entry.ingest instanceof Ingest) {
      this.#report('started', entry.ingest)
    } else if (!isFolder(join(this.#ingestPath, name))) {
      this.#drop(name)
    } else if (entry.ingest === 'not ours') {
      entry.watcher?.close()
      entry.watcher = undefined
    }
  }

  #look(name: string, entry: Entry, ingest: Ingest): void {
    const news = ingest.look()
    if (news === undefined) return
    if (news === 'grew') {
      entry.watcher?.close()
      entry.watcher = undefined
      entry.growsUntilMs = this.#clock.nowMs() + ingestRestMs
      this.#planLook()
    } else {
      this.#drop(name)
      this.#ended.set(ingest.digest, ingest)
    }
    this.#report(news, ingest)
    // A file that shrank, or a folder that came anew, is the next try.
    if (news !== 'grew') this.#check(name)
  }

  #lookAtGrowing(): void {
    this.#cancelPace = undefined
    const nowMs = this.#clock.nowMs()
    let growing = false
    for (const [name, entry] of this.#entries) {
      if (entry.growsUntilMs === undefined) continue
      // It rests: from now on it is watched.
      if (nowMs >= entry.growsUntilMs) entry.growsUntilMs = undefined
      this.#check(name)
      growing ||= entry.growsUntilMs !== undefined
    }
    if (growing) this.#planLook()
  }

  #planLook(): void {
    if (this.#stopped || this.#cancelPace !== undefined) return
    const isRead = [...this.#entries.values()].some(({ ingest }) => ingest instanceof Ingest && ingest.isRead)
    const paceMs = isRead ? ingestPaceMs : ingestUnreadPaceMs
    this.#cancelPace = this.#clock.after(paceMs, () => this.#lookAtGrowing())
  }

  /** Somebody begins to read: what it has is known at once, and what comes is looked for more often. */
  #hurry(): void {
    if (this.#cancelPace === undefined) return
    this.#cancelPace()
    this.#lookAtGrowing()
  }

  /** Undefined: there are too many, or the kernel has no more; it is looked at by each re-scan. */
  #watchIngest(name: string): FSWatcher | undefined {
    const watches = [...this.#entries.values()].filter(({ watcher }) => watcher !== undefined).length
    if (watches >= ingestWatchesMax) return undefined
    const watcher = tryToWatch(join(this.#ingestPath, name), () => this.#touch(name, false))
    watcher?.on('error', (error) => {
      surface('blob_scan', error, isSystemError)
      const entry = this.#entries.get(name)
      watcher.close()
      if (entry?.watcher === watcher) entry.watcher = undefined
    })
    return watcher
  }

  #drop(name: string): void {
    this.#entries.get(name)?.watcher?.close()
    this.#entries.delete(name)
  }

  #report(kind: TransferEvent['kind'], { digest, haveBytes, size }: Ingest): void {
    for (const listener of this.#listeners) listener({ digest, kind, haveBytes, size })
  }
}

function tryToWatch(path: string, onEvent: (event: string, name: string) => void): FSWatcher | undefined {
  try {
    return watch(path, { persistent: false }, (event, name) => onEvent(event, name ?? ''))
  } catch (error) {
    if (!isSystemError(error)) throw error
    return undefined
  }
}

function readNames(path: string): string[] {
  try {
    return readdirSync(path)
  } catch (error) {
    if (!isSystemError(error)) throw error
    return []
  }
}

function isFolder(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  } catch (error) {
    if (!isSystemError(error)) throw error
    return false
  }
}
