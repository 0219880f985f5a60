/** Reproducible bytes that do not compress: the key stream of a cipher. The same seed gives the same bytes. */
import { createCipheriv, createHash } from 'node:crypto'

const pieceBytes = 1024 * 1024

/** In pieces of 1 MiB, so that any length takes little memory. */
export function* seededBytes(seed: string, sizeBytes: number): Generator<Buffer> {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16)
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  const zeros = Buffer.alloc(pieceBytes)
  for (let leftBytes = sizeBytes; leftBytes > 0; leftBytes -= pieceBytes) {
    yield cipher.update(zeros.subarray(0, Math.min(pieceBytes, leftBytes)))
  }
}
