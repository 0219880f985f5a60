/**
 * Proof that the sender of a request knows the shared password. The receiver draws a random nonce for each TCP connection and
 * returns it with its first refusal. The proof is a keyed digest over that nonce, the number of proofs sent on the
 * connection before, and the request, so it is valid once. It also covers the Host header, which names the address that
 * the sender connected to: a node that relays a request and its proof to another node is refused there. No clock is involved.
 */
import { createHmac, scrypt, timingSafeEqual } from 'node:crypto'
import { proofKeyBytes, proofKeyCost } from '../limits.ts'

/** Response header of a refusal between nodes: the nonce of the connection. */
export const nonceHeader = 'x-spegel-ts-nonce'

/** Starts the Authorization header that carries a proof. */
export const proofScheme = 'Spegel-TS '

/** The parts of a request that a proof covers. */
export interface ProvenRequest {
  method: string
  /** Path and query. */
  target: string
  /** The Host header. */
  host: string
  /** The Range header. */
  range: string | undefined
}

const label = 'spegel-ts shared password, proof of requests, version 1'

/**
 * Derives the key of all proofs. The derivation is expensive on purpose: a stranger that receives a proof over a nonce of
 * its own can test guesses of the password against it. `password`: user name and password as basic auth encodes them.
 */
export function deriveProofKey(password: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(password, label, proofKeyBytes, proofKeyCost, (error, key) => {
      if (error === null) resolve(key)
      else reject(error)
    })
  })
}

/** The Authorization header of a request. `proofsBefore`: proofs sent on the connection before this one. */
export function proofOf(key: Buffer, nonce: string, proofsBefore: number, request: ProvenRequest): string {
  const { method, target, host, range = '' } = request
  const text = JSON.stringify([nonce, proofsBefore, method, target, host, range])
  return `${proofScheme}${createHmac('sha256', key).update(text).digest('hex')}`
}

/** Compares header values in constant time. Their lengths are no secret. */
export function equalHeaders(given: string, expected: string): boolean {
  const [actual, wanted] = [Buffer.from(given), Buffer.from(expected)]
  return actual.length === wanted.length && timingSafeEqual(actual, wanted)
}
