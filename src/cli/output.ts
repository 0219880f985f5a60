/**
 * Standard output or standard error, without ever waiting for the reader: a write to a pipe without a reader must not
 * keep the process from serving or from ending.
 */
import type { Writable } from 'node:stream'

export class Output {
  readonly #stream: Writable
  readonly #bytesMax: number
  #droppedCount = 0
  #error: NodeJS.ErrnoException | undefined

  /** Texts are dropped while more than `bytesMax` wait for the reader; then one log line says how many were. */
  constructor(stream: Writable, bytesMax: number) {
    this.#stream = stream
    this.#bytesMax = bytesMax
    // Without a listener the error would end the process: the reader has left (EPIPE), or the disk is full.
    stream.on('error', (error: NodeJS.ErrnoException) => (this.#error ??= error))
  }

  /** The first error of a write. */
  get error(): NodeJS.ErrnoException | undefined {
    return this.#error
  }

  write(text: string): void {
    if (this.#stream.writableLength > this.#bytesMax) {
      this.#droppedCount += 1
      return
    }
    if (this.#droppedCount > 0) {
      const fields = { level: 'WARN', time: new Date().toISOString(), dropped: this.#droppedCount }
      this.#droppedCount = 0
      this.#stream.write(`${JSON.stringify({ ...fields, msg: 'log lines dropped: the reader was too slow' })}\n`)
    }
    this.#stream.write(text)
  }

  /** Resolves when all is read, or cannot be written. */
  flushed(): Promise<void> {
    return new Promise((resolve) => {
      // Nothing waits, but an error may be about to be told. Writing nothing would be an error on a full disk.
      if (this.#stream.writableLength === 0) setImmediate(resolve)
      else this.#stream.write('', () => resolve())
    })
  }
}
