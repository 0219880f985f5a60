/** A body from peers that goes on at the next one from the exact byte where the last one broke. */
import { peerWorthAskingBytes } from '../limits.ts'
import type { Metrics } from '../metrics.ts'
import type { ByteRange } from '../oci/range.ts'
import { PeerFailure, type PeerResponse } from '../peers/protocol.ts'
import type { BodySource } from '../peers/body-source.ts'
import type { WriteChunk } from '../store/store.ts'

export class ResumableBody {
  /** The answers it was made of, in order, and what each gave; the last may have given nothing. */
  readonly parts: (ByteRange & { response: PeerResponse })[] = []
  readonly #bounds: ByteRange
  readonly #size: number
  /** To find the next one. */
  readonly #budgetMs: number
  readonly #source: BodySource
  readonly #metrics: Metrics

  /** `first` undefined: nobody has answered yet, but the size is known. */
  constructor(
    { first, size, budgetMs }: { first: PeerResponse | undefined; size: number; budgetMs: number },
    bounds: ByteRange,
    source: BodySource,
    metrics: Metrics,
  ) {
    this.#bounds = bounds
    this.#size = size
    this.#budgetMs = budgetMs
    this.#source = source
    this.#metrics = metrics
    if (first !== undefined) this.#addPart(first, bounds.first)
  }

  async send(write: WriteChunk, signal: AbortSignal): Promise<void> {
    if (this.parts.length === 0) {
      const first = await this.#next(this.#bounds.first, signal)
      if (first === undefined) throw new PeerFailure('not-found', 'nobody has it in time')
      this.#addPart(first, this.#bounds.first)
    }
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
        if (next === undefined || error.reason !== 'moved')
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
      const next = await this.#source.next({ first, last: this.#bounds.last }, this.#budgetMs, signal)
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
