/** A body from peers that goes on at the next one from the exact byte where the last one broke. */
import { blobFindBudgetMs, peerWorthAskingBytes } from '../limits.ts'
import type { Metrics } from '../metrics.ts'
import type { ByteRange } from '../oci/range.ts'
import { PeerFailure, type PeerResponse } from '../peers/protocol.ts'
import type { PeerSource } from '../peers/source.ts'
import type { WriteChunk } from '../store/store.ts'

export class ResumableBody {
  /** The answers it was made of, in order, and what each gave; the last may have given nothing. */
  readonly parts: (ByteRange & { response: PeerResponse })[] = []
  readonly #bounds: ByteRange
  readonly #size: number
  readonly #source: PeerSource
  readonly #metrics: Metrics

  constructor(first: PeerResponse, bounds: ByteRange, source: PeerSource, metrics: Metrics) {
    this.#bounds = bounds
    this.#size = first.size
    this.#source = source
    this.#metrics = metrics
    this.#addPart(first, bounds.first)
  }

  async send(write: WriteChunk, signal: AbortSignal): Promise<void> {
    for (let part = this.parts[0]; part !== undefined;) {
      const { response } = part
      const current = part
      const onAbort = () => response.discard()
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        await response.send(async (chunk) => {
          signal.throwIfAborted()
          await write(chunk)
          current.last += chunk.byteLength
        })
        return
      } catch (error) {
        // Not the peer's doing: the client is gone, or we are told to stop.
        signal.throwIfAborted()
        if (!(error instanceof PeerFailure)) throw error
        const gaveBytes = current.last + 1 - current.first
        this.#source.noteFailure(response.peer, error, gaveBytes >= peerWorthAskingBytes)
        const next = await this.#next(current.last + 1, signal)
        this.#metrics.resumes.inc({ outcome: next === undefined ? 'given-up' : 'resumed' })
        if (next === undefined) throw error
        part = this.#addPart(next, current.last + 1)
      } finally {
        signal.removeEventListener('abort', onAbort)
      }
    }
  }

  #addPart(response: PeerResponse, first: number): ByteRange & { response: PeerResponse } {
    const part = { response, first, last: first - 1 }
    this.parts.push(part)
    return part
  }

  async #next(first: number, signal: AbortSignal): Promise<PeerResponse | undefined> {
    for (;;) {
      const next = await this.#source.next({ first, last: this.#bounds.last }, blobFindBudgetMs, signal)
      if (next === undefined) return undefined
      const size = 'refusedSize' in next ? next.refusedSize : next.size
      if (!('refusedSize' in next)) {
        if (size === this.#size) return next
        next.discard()
      }
      // A range within the body cannot be refused by who has the same blob.
      this.#source.noteFailure(next.peer, new PeerFailure('headers', `another size: ${size}`))
    }
  }
}
