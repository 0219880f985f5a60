/**
 * A complete blob in a file. Read through one open descriptor, so deletion does not disturb it; two buffers per
 * stream, so that the next read runs while the last chunk is written.
 */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { errorCode, isSystemError } from '../lib/errors.ts'
import { takeBufferPair } from '../lib/chunk-buffers.ts'
import { settled } from '../lib/settled.ts'
import type { ByteRange } from '../oci/range.ts'
import { type Content, ContentNotFound, type WriteChunk } from './store.ts'

/** Rejects with ContentNotFound unless the path is a regular file (no symbolic link, folder or device). */
export async function openContentFile(path: string): Promise<Content> {
  let handle: FileHandle
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (!isSystemError(error)) throw error
    throw new ContentNotFound(`${path}: ${errorCode(error) ?? 'cannot be opened'}`, { cause: error })
  }
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw new ContentNotFound(`${path} is not a regular file`)
    return new ContentFile(handle, stats.size)
  } catch (error) {
    await handle.close()
    throw error
  }
}

class ContentFile implements Content {
  readonly size: number
  readonly #handle: FileHandle

  constructor(handle: FileHandle, size: number) {
    this.#handle = handle
    this.size = size
  }

  async send(range: ByteRange, write: WriteChunk, signal: AbortSignal): Promise<void> {
    const buffers = takeBufferPair(range.last - range.first + 1)
    const end = range.last + 1
    let position = range.first
    let [current, next] = [buffers.first, buffers.second]
    let reading = this.#read(current, buffers.nextChunkBytes(), position, end)
    try {
      while (position < end) {
        const chunk = current.subarray(0, await reading)
        signal.throwIfAborted()
        if (chunk.length === 0) throw new Error(`the file ended at ${position}, before ${end}`)
        position += chunk.length
        const writing = write(chunk)
        if (position < end) {
          reading = this.#read(next, buffers.nextChunkBytes(), position, end)
          // Awaited in the next round or below; a failure meanwhile must not count as unhandled.
          void settled(reading)
        }
        await writing
        ;[current, next] = [next, current]
      }
    } finally {
      await settled(reading)
      buffers.release()
    }
  }

  close(): Promise<void> {
    return this.#handle.close()
  }

  async #read(buffer: Buffer, lengthBytes: number, position: number, end: number): Promise<number> {
    const { bytesRead } = await this.#handle.read(buffer, 0, Math.min(lengthBytes, end - position), position)
    return bytesRead
  }
}
