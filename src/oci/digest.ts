/** Content digests (OCI image spec, descriptor.md): `sha256:<64 hex>` or `sha512:<128 hex>`. */
import { createHash } from 'node:crypto'

export type DigestAlgorithm = 'sha256' | 'sha512'

/** A string that was checked to be a digest. */
export type Digest = `${DigestAlgorithm}:${string}`

export const digestAlgorithms: readonly DigestAlgorithm[] = ['sha256', 'sha512']

const digestPattern = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/

export function isDigest(text: string): text is Digest {
  return digestPattern.test(text)
}

export function digestParts(digest: Digest): { algorithm: DigestAlgorithm; hex: string } {
  const [algorithm, hex] = digest.split(':') as [DigestAlgorithm, string]
  return { algorithm, hex }
}

/** The digest of bytes in memory, by the algorithm of another digest (sha256 if none is given). */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`
}
