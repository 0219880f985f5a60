/** Reads a peer's manifest whole and checks it against its digest before any of it is used. */
import type { Clock } from '../lib/clock.ts'
import { afterAwake } from '../lib/patience.ts'
import { manifestBytesMax, manifestReadTimeoutMs, manifestReadsBytesMax } from '../limits.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import { digestOf, digestParts, isDigest } from '../oci/digest.ts'
import { manifestMediaType } from '../oci/manifest.ts'
import { PeerFailure, type PeerResponse } from '../peers/protocol.ts'

export interface Manifest {
  bytes: Buffer
  digest: string
  contentType: string
}

export class ManifestReader {
  readonly #clock: Clock
  /** Received for manifests that are not complete, together. */
  #bufferedBytes = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Rejects with PeerFailure. */
  async read(response: PeerResponse, request: ContentRequest): Promise<Manifest> {
    if (response.size > manifestBytesMax) {
      response.discard()
      throw new PeerFailure('headers', `a manifest of ${response.size} bytes`)
    }
    return verified(await this.#readBody(response), response, request)
  }

  /** Memory grows with what arrives, not with what the peer announces. */
  async #readBody(response: PeerResponse): Promise<Buffer> {
    const chunks: Buffer[] = []
    let bufferedBytes = 0
    let late = false
    const cancelTimer = afterAwake(this.#clock, manifestReadTimeoutMs, () => {
      late = true
      response.discard()
    })
    try {
      await response.send((chunk) => {
        if (this.#bufferedBytes + chunk.byteLength > manifestReadsBytesMax) {
          response.discard()
          throw new PeerFailure('body', `more than ${manifestReadsBytesMax} bytes of manifests at a time`)
        }
        chunks.push(Buffer.from(chunk))
        bufferedBytes += chunk.byteLength
        this.#bufferedBytes += chunk.byteLength
        return Promise.resolve()
      })
      return Buffer.concat(chunks)
    } catch (error) {
      throw late ? new PeerFailure('stall', `no whole manifest in ${manifestReadTimeoutMs} ms`) : error
    } finally {
      this.#bufferedBytes -= bufferedBytes
      cancelTimer()
    }
  }
}

/** Throws a PeerFailure. */
function verified(bytes: Buffer, response: PeerResponse, request: ContentRequest): Manifest {
  const stated = request.digest ?? response.digest
  const digest = digestOf(bytes, stated !== undefined && isDigest(stated) ? digestParts(stated).algorithm : undefined)
  if (stated !== undefined && stated !== digest) throw new PeerFailure('digest', `the manifest is not ${stated}`)
  const contentType = manifestMediaType(bytes)
  if (contentType === undefined) throw new PeerFailure('digest', 'the bytes are no manifest')
  return { bytes, digest, contentType }
}
