/**
 * PORT ContentStore: what this node has. Adapters: `containerd/` and `layout/`; both pass `test/conformance/store.ts`.
 */
import type { Digest } from '../oci/digest.ts'
import type { ByteRange } from '../oci/range.ts'

/** Takes bytes in order. The memory may be reused as soon as the promise is settled. */
export type WriteChunk = (chunk: Uint8Array) => Promise<void>

/** One complete blob, opened: it can be read to its end even if it is deleted meanwhile. */
export interface Content {
  /** Bytes in all. */
  readonly size: number
  /**
   * Passes the bytes of the range to `write`, one chunk after the other, and resolves when the last was taken.
   * Rejects when the store fails, when `write` rejects, or with the signal's reason.
   */
  send(range: ByteRange, write: WriteChunk, signal: AbortSignal): Promise<void>
  /** Must be called once, whatever happened. */
  close(): Promise<void>
}

/** Content keys (digests, and tags as `registry/repository:tag`) that appeared or went away. */
export interface StoreChange {
  added: readonly string[]
  removed: readonly string[]
}

/** Facts about a blob that a store knows without reading it. */
export interface ContentFacts {
  /** False only when the store knows that the blob is neither a manifest nor an index. */
  isManifest: boolean
  /** `registry/repository` of each repository that the blob was pulled from; empty when that is not known. */
  repositories: readonly string[]
}

export interface ContentStore {
  /** The digest that `registry/repository:tag` stands for here. Rejects with ContentNotFound. */
  resolve(name: string): Promise<Digest>
  /** Opens a complete blob. Rejects with ContentNotFound, also when the store cannot be asked. */
  open(digest: Digest): Promise<Content>
  /** Rejects with ContentNotFound, also when the store cannot be reached. */
  facts(digest: Digest): Promise<ContentFacts>
  /** Whether the blob is there, as far as the store has told. */
  isStored(digest: Digest): boolean
  /**
   * Whether the blob was there at any moment since (of the clock that the store was given), though it may be gone
   * again. May forget after thousands of others.
   */
  wasStoredSince(digest: Digest, sinceMs: number): boolean
  /**
   * First everything that is there, then every change, until the signal aborts. Changes that the caller has not
   * taken yet are merged, so nothing grows. Losing the connection to the store is the adapter's business: it comes
   * back by itself and yields what changed meanwhile. May be called once.
   */
  watch(signal: AbortSignal): AsyncIterable<StoreChange>
  /** Undefined when all is well, else why not, for the readiness page. */
  problem(): string | undefined
  close(): Promise<void>
}

/** The expected outcome when something is not here. */
export class ContentNotFound extends Error {
  override readonly name = 'ContentNotFound'
}

export function isContentNotFound(error: unknown): boolean {
  return error instanceof ContentNotFound
}

/** Reads a whole blob into memory. Rejects with ContentNotFound when it is larger than `bytesMax`. */
export async function readContent(
  store: Pick<ContentStore, 'open'>,
  digest: Digest,
  bytesMax: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const content = await store.open(digest)
  try {
    if (content.size > bytesMax)
      throw new ContentNotFound(`${digest} has ${content.size} bytes, more than ${bytesMax}`)
    const bytes = Buffer.alloc(content.size)
    let filledBytes = 0
    if (content.size > 0) {
      await content.send(
        { first: 0, last: content.size - 1 },
        (chunk) => {
          bytes.set(chunk, filledBytes)
          filledBytes += chunk.byteLength
          return Promise.resolve()
        },
        signal,
      )
    }
    return bytes
  } finally {
    await content.close()
  }
}
