/** Credentials that the client sends to a peer that refuses a request, over real sockets. */
import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import type { Logger } from '../../../src/logger.ts'
import { peerAvoidMs, refusalBytesMax } from '../../../src/limits.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import type { RangeSpec } from '../../../src/oci/range.ts'
import { PeerClient } from '../../../src/peers/client.ts'
import { PeerCredentials } from '../../../src/peers/credentials.ts'
import { proofOf } from '../../../src/peers/proof.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { type PeerScript, ScriptedPeer, answer, honest } from '../../support/scripted-peer.ts'

const ip = '127.0.92.1'
const port = 15_792
const key = Buffer.alloc(32, 1)
const nonce = 'ab'.repeat(32)
const basicHeader = 'Basic dXNlcjpwYXNz'
const peer = { id: 'peer', addresses: [ip] }
const content = Buffer.from('content')
const digest = digestOf(content)

describe('a client with a shared password', () => {
  const cleanups: (() => Promise<void>)[] = []
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).toReversed()) await cleanup()
  })

  async function setUp(script: PeerScript, knowledge: { isOurs?: boolean; isNamed?: boolean } = {}) {
    const clock = new ManualClock()
    const warnings: unknown[] = []
    const logger = { warn: (fields: unknown) => void warnings.push(fields) } as unknown as Logger
    const credentials = new PeerCredentials(
      {
        key,
        basicHeader,
        bootstrap: 'static',
        isOurs: () => knowledge.isOurs === true,
        isNamed: () => Promise.resolve(knowledge.isNamed === true),
      },
      { clock, logger },
    )
    const server = await ScriptedPeer.start(ip, port, script)
    const client = new PeerClient({ registryPort: port, stallTimeoutMs: 10_000, credentials }, systemClock)
    cleanups.push(
      () => server.close(),
      () => client.close(),
    )
    const post = () => client.post(peer, '/message', AbortSignal.timeout(10_000))
    const open = async (range?: RangeSpec) => {
      const request = { kind: 'blob' as const, registry: 'r', repository: 'n', tag: undefined, digest, key: digest }
      const question = { request, method: 'GET' as const, range, loadMax: undefined }
      const response = await client.open(peer, question, AbortSignal.timeout(10_000), () => {})
      if ('refusedSize' in response) throw new Error('range refused')
      const parts: Uint8Array[] = []
      await response.send((chunk) => Promise.resolve(void parts.push(Buffer.from(chunk))))
      return Buffer.concat(parts).toString()
    }
    const sent = () => server.requests.map(({ headers }) => headers['authorization'])
    return { client, clock, warnings, server, post, open, sent }
  }

  /** Refuses what carries no credentials. */
  const refusing =
    (headers: Record<string, string>, body = ''): PeerScript =>
    (socket, request) => {
      if (request.headers['authorization'] === undefined) socket.write(answer(401, headers, Buffer.from(body)))
      else socket.write(honest(request, content, digest))
    }

  it('sends a proof after a nonce, and one with each later request on the connection', async () => {
    const { open, post, sent, server } = await setUp(refusing({ 'x-spegel-ts-nonce': nonce }))
    expect(await open()).toBe('content')
    expect(await open({ first: 3 })).toBe('tent')
    expect(await post()).toBe('content')
    const host = `${ip}:${port}`
    const target = `/v2/n/blobs/${digest}?ns=r`
    expect(sent()).toEqual([
      undefined,
      proofOf(key, nonce, 0, { method: 'GET', target, host, range: undefined }),
      proofOf(key, nonce, 1, { method: 'GET', target, host, range: 'bytes=3-' }),
      proofOf(key, nonce, 2, { method: 'POST', target: '/message', host, range: undefined }),
    ])
    expect(server.requests.every(({ headers }) => headers['host'] === host)).toBe(true)
  })

  it.each<[string, Record<string, string>, number]>([
    ['with a nonce', { 'x-spegel-ts-nonce': nonce }, 2],
    ['with a nonce of another form', { 'x-spegel-ts-nonce': 'short' }, 1],
    ['without a nonce', {}, 1],
    ['and closes the connection', { 'x-spegel-ts-nonce': nonce, connection: 'close' }, 1],
  ])('fails after few requests when a peer always refuses %s', async (_name, headers, requests) => {
    const { post, sent } = await setUp((socket) => void socket.write(answer(401, headers)), { isOurs: true })
    await expect(post()).rejects.toMatchObject({ name: 'PeerFailure' })
    expect(sent()).toHaveLength(requests)
    expect(JSON.stringify(sent())).not.toContain(basicHeader)
  })

  it('does not read a large refusal', async () => {
    const { post, sent } = await setUp(refusing({}, 'x'.repeat(refusalBytesMax + 1)), { isNamed: true })
    await expect(post()).rejects.toMatchObject({ reason: 'status' })
    expect(sent()).toEqual([undefined])
  })

  it('sends the password at an address that the bootstrap source names, after one refusal for each connection', async () => {
    const { open, sent } = await setUp(refusing({}, 'invalid credentials'), { isNamed: true })
    expect(await open()).toBe('content')
    expect(await open()).toBe('content')
    expect(sent()).toEqual([undefined, basicHeader, basicHeader])
  })

  it('sends the password to the same address through the library', async () => {
    const { open, sent } = await setUp(
      (socket, request) => {
        if (request.headers['authorization'] !== undefined) {
          socket.write('HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n')
        }
        refusing({})(socket, request)
      },
      { isNamed: true },
    )
    expect(await open()).toBe('content')
    expect(sent()).toEqual([undefined, basicHeader, basicHeader])
  })

  it('sends no proof through the library, where it is not valid', async () => {
    const { open, sent } = await setUp((socket, request) => {
      if (request.headers['authorization'] !== undefined) {
        socket.write('HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n')
      }
      refusing({ 'x-spegel-ts-nonce': nonce })(socket, request)
    })
    await expect(open()).rejects.toMatchObject({ reason: 'status' })
    expect(sent()).toEqual([undefined, expect.stringMatching(/^Spegel-TS /), undefined])
  })

  it('never sends the password to a node of ours, even at a named address', async () => {
    const { client, post, sent, warnings } = await setUp(refusing({}), { isOurs: true, isNamed: true })
    await expect(post()).rejects.toMatchObject({ reason: 'status' })
    expect(sent()).toEqual([undefined])
    expect(client.isLeftOut(peer)).toBe(false)
    expect(warnings).toEqual([])
  })

  it('never sends the password after a nonce, even at a named address', async () => {
    const { post, sent } = await setUp((socket) => void socket.write(answer(401, { 'x-spegel-ts-nonce': nonce })), {
      isNamed: true,
    })
    await expect(post()).rejects.toMatchObject({ reason: 'status' })
    expect(sent()).toEqual([undefined, expect.stringMatching(/^Spegel-TS /)])
  })

  it('leaves out a peer at another address for a while, and logs it once', async () => {
    const { client, clock, post, sent, warnings } = await setUp(refusing({}))
    for (let round = 1; round <= 2; round++) {
      expect(client.isLeftOut(peer)).toBe(false)
      await expect(post()).rejects.toMatchObject({ reason: 'status' })
      expect(client.isLeftOut(peer)).toBe(true)
      expect(client.isLeftOut({ ...peer, id: 'another' })).toBe(false)
      clock.advance(peerAvoidMs)
    }
    expect(sent()).toEqual([undefined, undefined])
    expect(warnings).toEqual([expect.objectContaining({ peer: ip, bootstrap: 'static' })])
  })
})
