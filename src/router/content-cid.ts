/**
 * Content keys in the DHT. As Spegel: CIDv1, codec raw, sha2-256 of the UTF-8 text of the key. The protocol itself
 * only carries the multihash (34 bytes); distances are between sha2-256 hashes of that.
 */
import { createHash } from 'node:crypto'
import { CID } from 'multiformats/cid'
import * as digest from 'multiformats/hashes/digest'

const rawCodec = 0x55
const sha2256Code = 0x12

export interface DhtKey {
  /** What messages carry. */
  readonly multihash: Uint8Array
  /** Where it lies in the key space: 32 bytes. */
  readonly kadId: Uint8Array
}

export function dhtKey(contentKey: string): DhtKey {
  const hash = createHash('sha256').update(contentKey, 'utf8').digest()
  const multihash = digest.create(sha2256Code, hash).bytes
  return { multihash, kadId: kadId(multihash) }
}

/** The position of a multihash (of a key or of a peer id) in the key space. */
export function kadId(multihash: Uint8Array): Uint8Array {
  return createHash('sha256').update(multihash).digest()
}

/** The CID as text, as other tools print it. */
export function contentCid(contentKey: string): string {
  return CID.createV1(rawCodec, digest.decode(dhtKey(contentKey).multihash)).toString()
}
