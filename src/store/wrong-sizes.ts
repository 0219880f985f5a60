/**
 * Blobs whose file has another size than the store's metadata says, as a power failure leaves them: data that was not
 * written to the disk in time is missing, but the metadata is there. Such a file must reach no other node.
 */
import { wrongSizesRememberedMax } from '../limits.ts'
import type { Logger } from '../logger.ts'
import type { Digest } from '../oci/digest.ts'

export class WrongSizes {
  readonly #logger: Logger | undefined
  readonly #advice: string
  /** The oldest first. */
  readonly #reported = new Set<Digest>()

  /** `advice`: what the operator can do about it. */
  constructor(logger: Logger | undefined, advice: string) {
    this.#logger = logger
    this.#advice = advice
  }

  has(digest: Digest): boolean {
    return this.#reported.has(digest)
  }

  /** Reports the blob, unless it was reported already. `fileBytes` is a text where only a bound is known. */
  report(digest: Digest, fileBytes: number | string, expectedBytes: number): void {
    if (this.has(digest)) return
    this.#reported.add(digest)
    const [oldest] = this.#reported
    if (this.#reported.size > wrongSizesRememberedMax && oldest !== undefined) this.#reported.delete(oldest)
    this.#logger?.warn(
      { digest, fileBytes, expectedBytes },
      `blob file has the wrong size, so it is neither offered nor sent: ${this.#advice}`,
    )
  }

  /** The blob is right or gone: reported again if it happens again. */
  forget(digest: Digest): void {
    this.#reported.delete(digest)
  }

  /** These are all blobs that there are. */
  forgetAllBut(present: { has(digest: Digest): boolean }): void {
    for (const digest of this.#reported) if (!present.has(digest)) this.#reported.delete(digest)
  }
}
