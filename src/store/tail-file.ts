/**
 * A blob that is still being written, in a file that only grows. Sends what is there, waits for more, and sends on.
 * Read through one open descriptor, so neither the rename at the end of the download nor a deletion disturbs it.
 */
import type { FileHandle } from 'node:fs/promises'
import { takeBufferPair } from '../lib/chunk-buffers.ts'
import { settled } from '../lib/settled.ts'
import type { ByteRange } from '../oci/range.ts'
import type { Content, WriteChunk } from './store.ts'
import { TransferFailed } from './transfers.ts'

/** What is known of the file's growth. */
export interface Growth {
  readonly size: number
  /** In the file. */
  readonly haveBytes: number
  /** There is a byte at this position, in the file or ahead of it. */
  hasPast(position: number): boolean
  /**
   * Resolves when there is. Rejects with TransferFailed, or with the signal's reason. `lossesSeen`: of who was given what
   * was ahead of the file when so much of that had been lost; further losses end it while the file is behind it.
   */
  grownPast(position: number, signal: AbortSignal, lossesSeen?: number): Promise<void>
  /** How often what was ahead of the file was lost. */
  readonly aheadLosses: number
  /** Copies what is ahead of the file. Returns how many bytes; 0: nothing from this position on. */
  copyAhead(position: number, into: Uint8Array): number
  /** A reader that was opened is done. */
  noteClosed(): void
}

export class TailFile implements Content {
  readonly size: number
  readonly #handle: FileHandle
  readonly #growth: Growth

  constructor(handle: FileHandle, growth: Growth) {
    this.#handle = handle
    this.#growth = growth
    this.size = growth.size
  }

  async send(range: ByteRange, write: WriteChunk, signal: AbortSignal): Promise<void> {
    const buffers = takeBufferPair(range.last - range.first + 1)
    const end = range.last + 1
    let position = range.first
    let [current, next] = [buffers.first, buffers.second]
    let writing = Promise.resolve()
    let lossesSeen: number | undefined
    try {
      while (position < end) {
        // A taker that fails while we wait for bytes ends the wait: nobody else would.
        if (!this.#growth.hasPast(position)) await writing
        await this.#growth.grownPast(position, signal, lossesSeen)
        // Whatever is there and no more: a follower gets each step as soon as it is known.
        const roomBytes = Math.min(buffers.nextChunkBytes(), end - position)
        if (this.#growth.haveBytes <= position) lossesSeen = this.#growth.aheadLosses
        const bytesRead = await this.#read(position, current.subarray(0, roomBytes))
        await writing
        // It may have failed, or have begun anew, while we were reading.
        await this.#growth.grownPast(position, signal, lossesSeen)
        if (bytesRead === 0) continue
        writing = write(current.subarray(0, bytesRead))
        // Awaited in the next round or below; a failure meanwhile must not count as unhandled.
        void settled(writing)
        position += bytesRead
        ;[current, next] = [next, current]
      }
      await writing
    } finally {
      await settled(writing)
      buffers.release()
    }
  }

  /** After `grownPast`. 0: what was ahead of the file is not there any more. */
  async #read(position: number, into: Buffer): Promise<number> {
    const fileBytes = Math.min(into.length, this.#growth.haveBytes - position)
    if (fileBytes <= 0) return this.#growth.copyAhead(position, into)
    const { bytesRead } = await this.#handle.read(into, 0, fileBytes, position)
    if (bytesRead === 0) throw new TransferFailed(`the file shrank below ${position} bytes`)
    return bytesRead
  }

  close(): Promise<void> {
    this.#growth.noteClosed()
    return this.#handle.close()
  }
}
