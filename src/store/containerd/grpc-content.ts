/** A blob read through containerd, for nodes where its folder cannot be read. */
import type { ContainerdClient } from '../../containerd/client.ts'
import type { Digest } from '../../oci/digest.ts'
import type { ByteRange } from '../../oci/range.ts'
import type { Content, WriteChunk } from '../store.ts'

export class GrpcContent implements Content {
  readonly size: number
  readonly #client: ContainerdClient
  readonly #digest: Digest

  constructor(client: ContainerdClient, digest: Digest, size: number) {
    this.#client = client
    this.#digest = digest
    this.size = size
  }

  async send(range: ByteRange, write: WriteChunk, signal: AbortSignal): Promise<void> {
    let leftBytes = range.last - range.first + 1
    for await (const data of this.#client.readContent(this.#digest, range.first, leftBytes, signal)) {
      if (data.length > leftBytes) throw new Error(`containerd sent more of ${this.#digest} than asked for`)
      leftBytes -= data.length
      await write(data)
    }
    signal.throwIfAborted()
    if (leftBytes > 0) throw new Error(`containerd sent ${leftBytes} bytes of ${this.#digest} too few`)
  }

  /** False when containerd has fewer bytes than its metadata says. Rejects when it cannot be asked, or does not answer. */
  async hasLastByte(signal: AbortSignal): Promise<boolean> {
    if (this.size === 0) return true
    let bytes = 0
    for await (const data of this.#client.readContent(this.#digest, this.size - 1, 1, signal)) bytes += data.length
    signal.throwIfAborted()
    return bytes > 0
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
