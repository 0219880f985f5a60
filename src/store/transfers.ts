/**
 * PORT Transfers: blobs that this node is downloading at this moment, and the part of them that is here. Adapter:
 * `ingest-folder.ts`. Our own containerd must never be answered from them: the download is its own.
 */
import type { Digest } from '../oci/digest.ts'
import type { Content } from './store.ts'

/** One download, from its begin to its end. The next try for the same digest is another one. */
export interface Transfer {
  readonly digest: Digest
  /** Bytes in all, as containerd expects them. */
  readonly size: number
  /** Bytes that are here, from the first one on without a gap. */
  readonly haveBytes: number
  /** These, and what containerd was handed after them. */
  readonly readableBytes: number
  /** There is a byte at this position, in the file or ahead of it, that a reader would be given at once. */
  hasPast(position: number): boolean
  readonly state: 'running' | 'complete' | 'failed'
  /** When it was first seen. */
  readonly startedMs: number
  /**
   * The whole blob, whose `send` waits for bytes that are not here yet and rejects with TransferFailed when they will
   * not come. How long that takes is up to the download: the caller's signal ends the wait. The bytes are not verified
   * before the download is complete. Rejects with ContentNotFound when there is nothing to open any more.
   */
  open(): Promise<Content>
  /** containerd was handed these bytes of the blob, and has yet to write them: for readers, if there are any. Copied. */
  noteAhead(position: number, chunk: Uint8Array): void
  /** containerd has left: what it had not written is lost, and readers that were given some of that are given no more. */
  loseAhead(): void
}

export interface TransferEvent {
  readonly digest: Digest
  readonly kind: 'started' | 'grew' | 'complete' | 'failed'
  readonly haveBytes: number
  readonly size: number
}

export interface Transfers {
  /** The latest that is running; else how the last one ended, as far as that is remembered. */
  find(digest: Digest): Transfer | undefined
  /** Looks at the disk before it says no: what began a moment ago need not be known yet. */
  isRunning(digest: Digest): boolean
  /** Calls back on everything that happens from now on, until the returned function is called. */
  watch(listener: (event: TransferEvent) => void): () => void
}

/** The download that was followed was given up, or began anew: what is missing will not come this way. */
export class TransferFailed extends Error {
  override readonly name = 'TransferFailed'
}
