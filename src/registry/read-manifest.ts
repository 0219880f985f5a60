/** A peer's manifest, read whole and proved by its digest before anything is believed of it. */
import type { Clock } from '../lib/clock.ts'
import { afterAwake } from '../lib/patience.ts'
import { manifestBytesMax, manifestReadTimeoutMs } from '../limits.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import { digestOf, digestParts, isDigest } from '../oci/digest.ts'
import { manifestMediaType } from '../oci/manifest.ts'
import { PeerFailure, type PeerResponse } from '../peers/protocol.ts'

export interface Manifest {
  bytes: Buffer
  digest: string
  contentType: string
}

/** Rejects with PeerFailure. */
export async function readManifest(response: PeerResponse, request: ContentRequest, clock: Clock): Promise<Manifest> {
  if (response.size > manifestBytesMax) {
    response.discard()
    throw new PeerFailure('headers', `a manifest of ${response.size} bytes`)
  }
  const bytes = await readBody(response, clock)
  const stated = request.digest ?? response.digest
  const digest = digestOf(bytes, stated !== undefined && isDigest(stated) ? digestParts(stated).algorithm : undefined)
  if (stated !== undefined && stated !== digest) throw new PeerFailure('digest', `the manifest is not ${stated}`)
  const contentType = manifestMediaType(bytes)
  if (contentType === undefined) throw new PeerFailure('digest', 'the bytes are no manifest')
  return { bytes, digest, contentType }
}

async function readBody(response: PeerResponse, clock: Clock): Promise<Buffer> {
  const bytes = Buffer.alloc(response.size)
  let filledBytes = 0
  let late = false
  const cancelTimer = afterAwake(clock, manifestReadTimeoutMs, () => {
    late = true
    response.discard()
  })
  try {
    await response.send((chunk) => {
      bytes.set(chunk, filledBytes)
      filledBytes += chunk.byteLength
      return Promise.resolve()
    })
  } catch (error) {
    throw late ? new PeerFailure('stall', `no whole manifest in ${manifestReadTimeoutMs} ms`) : error
  } finally {
    cancelTimer()
  }
  return bytes
}
