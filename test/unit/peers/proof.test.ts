import { describe, expect, it } from 'vitest'
import { type ProvenRequest, deriveProofKey, equalHeaders, proofOf } from '../../../src/peers/proof.ts'

const key = Buffer.alloc(32, 7)
const nonce = 'ab'.repeat(32)
const request: ProvenRequest = { method: 'GET', target: '/v2/x', host: '10.0.0.1:5000', range: undefined }

describe('a proof', () => {
  it('is the same for the same request, nonce, count and key', () => {
    expect(proofOf(key, nonce, 0, { ...request })).toBe(proofOf(key, nonce, 0, request))
    expect(proofOf(key, nonce, 0, request)).toMatch(/^Spegel-TS [0-9a-f]{64}$/)
  })

  it.each<[string, string]>([
    ['key', proofOf(Buffer.alloc(32, 8), nonce, 0, request)],
    ['nonce', proofOf(key, 'cd'.repeat(32), 0, request)],
    ['count of proofs', proofOf(key, nonce, 1, request)],
    ['method', proofOf(key, nonce, 0, { ...request, method: 'HEAD' })],
    ['path or query', proofOf(key, nonce, 0, { ...request, target: '/v2/x?ns=y' })],
    ['Host header', proofOf(key, nonce, 0, { ...request, host: '10.0.0.2:5000' })],
    ['Range header', proofOf(key, nonce, 0, { ...request, range: 'bytes=0-1' })],
    ['border between two fields', proofOf(key, nonce, 0, { ...request, method: 'GET/v2', target: '/x' })],
  ])('differs with another %s', (_name, other) => {
    expect(other).not.toBe(proofOf(key, nonce, 0, request))
  })

  it('has a key that depends on user name and password only', async () => {
    const [first, again, other] = await Promise.all(['a', 'a', 'b'].map((password) => deriveProofKey(password)))
    expect(first).toHaveLength(32)
    expect(again?.equals(first ?? Buffer.alloc(0))).toBe(true)
    expect(other?.equals(first ?? Buffer.alloc(0))).toBe(false)
  })
})

describe('the comparison of header values', () => {
  it.each([
    ['', '', true],
    ['a', 'a', true],
    ['a', 'b', false],
    ['a', 'ab', false],
    ['ä', 'a', false],
  ])('of "%s" and "%s" is %s', (given, expected, isEqual) => {
    expect(equalHeaders(given, expected)).toBe(isEqual)
  })
})
