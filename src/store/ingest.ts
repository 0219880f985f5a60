/**
 * One file that containerd is filling: `ingest/<name>/data`. The commit renames it to `blobs/<algorithm>/<hex>`, which
 * keeps its inode; giving up removes it. Our open descriptor keeps the inode from being used again, so whatever has
 * this inode is this download.
 *
 * Everything but `open` is synchronous, so that answers come in the order of the events that asked; it costs
 * microseconds.
 */
import { type Stats, closeSync, constants, fstatSync, lstatSync, openSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { expecting, isSystemError } from '../lib/errors.ts'
import { type Digest, digestParts, isDigest } from '../oci/digest.ts'
import { Ahead } from './ahead.ts'
import { openContentFile } from './content-file.ts'
import { type Content, ContentNotFound } from './store.ts'
import { type Growth, TailFile } from './tail-file.ts'
import { type Transfer, TransferFailed } from './transfers.ts'

/** `k8s.io/12/layer-sha256:…`: namespace, a number, what it is. */
const refPattern = /^([^/]+)\/\d+\/(?:layer|config|manifest|index)-(\w+:\w+)$/

/**
 * 'incomplete': containerd has not written everything yet. 'not ours': another namespace's, no blob of an image, or
 * without a size, so that no Content-Length could be stated.
 */
export function openIngest(
  contentPath: string,
  name: string,
  namespace: string,
  nowMs: number,
  onRead: () => void,
): Ingest | 'incomplete' | 'not ours' {
  const folder = join(contentPath, 'ingest', name)
  const data = join(folder, 'data')
  let descriptor: number
  try {
    descriptor = openSync(data, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (!isSystemError(error)) throw error
    return 'incomplete'
  }
  // containerd makes `data` last, so the other files are whole by now.
  const [, refNamespace, digest = ''] = refPattern.exec(readText(join(folder, 'ref'))) ?? []
  const size = Number(readText(join(folder, 'total')))
  const stats = fstatSync(descriptor)
  const sound = stats.isFile() && Number.isSafeInteger(size) && size > 0 && stats.size <= size
  if (refNamespace !== namespace || !isDigest(digest) || !sound) {
    closeSync(descriptor)
    return 'not ours'
  }
  const { algorithm, hex } = digestParts(digest)
  const paths = { data, blob: join(contentPath, 'blobs', algorithm, hex) }
  return new Ingest(digest, size, paths, descriptor, stats, nowMs, onRead)
}

export class Ingest implements Transfer, Growth {
  readonly digest: Digest
  readonly size: number
  readonly startedMs: number
  readonly #paths: { data: string; blob: string }
  readonly #inode: number
  #descriptor: number
  #haveBytes: number
  #state: Transfer['state'] = 'running'
  readonly #wakers = new Set<() => void>()
  readonly #onRead: () => void
  #readers = 0
  #ahead: Ahead | undefined
  #aheadLosses = 0

  constructor(
    digest: Digest,
    size: number,
    paths: { data: string; blob: string },
    descriptor: number,
    stats: Stats,
    nowMs: number,
    onRead: () => void,
  ) {
    this.digest = digest
    this.size = size
    this.startedMs = nowMs
    this.#paths = paths
    this.#descriptor = descriptor
    this.#inode = stats.ino
    this.#haveBytes = stats.size
    this.#onRead = onRead
  }

  get haveBytes(): number {
    return this.#haveBytes
  }

  get state(): Transfer['state'] {
    return this.#state
  }

  /** Somebody wants to know soon that it grew. */
  get isRead(): boolean {
    return this.#readers > 0
  }

  /** Looks at the file, and says what is new. */
  look(): 'grew' | 'complete' | 'failed' | undefined {
    if (this.#state !== 'running') return undefined
    // In this order: a file that has left the first place is in the second one by now, or is no more.
    if (this.#readers === 0) this.#dropAhead()
    const data = this.#statIfOurs(this.#paths.data)
    if (data === undefined) {
      const blob = this.#statIfOurs(this.#paths.blob)
      return this.end(blob?.size === this.size ? 'complete' : 'failed')
    }
    if (data.size < this.#haveBytes || data.size > this.size) return this.end('failed')
    if (data.size === this.#haveBytes) return undefined
    this.#haveBytes = data.size
    this.#wake()
    return 'grew'
  }

  end(state: 'complete' | 'failed'): 'complete' | 'failed' {
    this.#state = state
    if (state === 'complete') this.#haveBytes = this.size
    closeSync(this.#descriptor)
    this.#descriptor = -1
    this.#dropAhead()
    this.#wake()
    return state
  }

  async open(): Promise<Content> {
    if (this.#state === 'running') {
      // Opens the same file wherever it is by now; a path might lead to the next try, or nowhere.
      const handle = await open(`/proc/self/fd/${this.#descriptor}`).catch(expecting(isSystemError, undefined))
      // Ended meanwhile: the number may have stood for another file already.
      if (handle !== undefined && this.#isRunning()) {
        this.#readers += 1
        if (this.#readers === 1) this.#onRead()
        if (this.#isRunning()) return new TailFile(handle, this)
        this.noteClosed()
      }
      await handle?.close()
    }
    if (this.#state === 'complete') return openContentFile(this.#paths.blob)
    throw new ContentNotFound(`${this.digest}: the download was given up or cannot be opened`)
  }

  hasPast(position: number): boolean {
    return this.#haveBytes > position || this.#ahead?.has(position) === true
  }

  get readableBytes(): number {
    return this.#ahead?.endFrom(this.#haveBytes) ?? this.#haveBytes
  }

  noteAhead(position: number, chunk: Uint8Array): void {
    if (this.#state !== 'running' || this.#readers === 0) return
    this.#ahead ??= Ahead.take()
    const isLast = position + chunk.byteLength === this.size
    if (this.#ahead?.put(position, chunk, isLast) === true) this.#wake()
  }

  get aheadLosses(): number {
    return this.#aheadLosses
  }

  loseAhead(): void {
    this.#aheadLosses += 1
    this.#dropAhead()
    this.#wake()
  }

  copyAhead(position: number, into: Uint8Array): number {
    return this.#ahead?.copy(position, into) ?? 0
  }

  async grownPast(position: number, signal: AbortSignal, lossesSeen = Infinity): Promise<void> {
    for (;;) {
      signal.throwIfAborted()
      if (this.#state === 'failed') throw new TransferFailed(`${this.digest} ended at ${this.#haveBytes} bytes`)
      if (this.hasPast(position)) return
      if (this.#aheadLosses > lossesSeen && position > this.#haveBytes) {
        throw new TransferFailed(
          `${this.digest}: what was given beyond ${this.#haveBytes} bytes is not here any more`,
        )
      }
      await this.#woken(signal)
    }
  }

  noteClosed(): void {
    this.#readers -= 1
  }

  #isRunning(): boolean {
    return this.#state === 'running'
  }

  /** When something changed, or the signal has aborted. */
  #woken(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#wakers.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#wakers.add(wake)
      signal.addEventListener('abort', wake)
    })
  }

  #dropAhead(): void {
    this.#ahead?.release()
    this.#ahead = undefined
  }

  #wake(): void {
    for (const wake of this.#wakers) wake()
  }

  #statIfOurs(path: string): Stats | undefined {
    try {
      const stats = lstatSync(path, { throwIfNoEntry: false })
      return stats?.ino === this.#inode ? stats : undefined
    } catch (error) {
      if (!isSystemError(error)) throw error
      return undefined
    }
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (!isSystemError(error)) throw error
    return ''
  }
}
