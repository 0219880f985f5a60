import type { IncomingHttpHeaders } from 'node:http'
import { Socket } from 'node:net'
import { beforeAll, describe, expect, it } from 'vitest'
import { pino } from 'pino'
import { systemClock } from '../../../src/lib/clock.ts'
import { deriveProofKey, proofOf } from '../../../src/peers/proof.ts'
import { basicAuth } from '../../../src/registry/auth.ts'
import { SharedPassword } from '../../../src/registry/shared-password.ts'

const basic = basicAuth('mirror', 'password')
const host = '10.0.0.1:5000'

/** A connection that arrived at this local address. */
function connectionTo(localAddress: string): Socket {
  return Object.defineProperty(new Socket(), 'localAddress', { value: localAddress })
}

describe('the shared password of a node', () => {
  let password: SharedPassword
  let key: Buffer
  beforeAll(async () => {
    key = await deriveProofKey(basic.header)
    password = await SharedPassword.derive(
      basic,
      {
        bootstrap: 'static',
        isOurs: () => false,
        isNamed: () => Promise.resolve(false),
        ownIps: () => ['192.168.0.1', 'fd00::1'],
      },
      { clock: systemClock, logger: pino({ level: 'silent' }) },
    )
  })

  const accepts = (socket: Socket, headers: IncomingHttpHeaders, method = 'GET', url = '/v2/x') =>
    password.accepts({ headers, socket, method, url })
  /** Headers of a request with a proof for the nonce of this connection. */
  const proven = (
    socket: Socket,
    proofsBefore: number,
    change: { host?: string; range?: string; key?: Buffer } = {},
  ) => {
    const { host: to = host, range } = change
    const request = { method: 'GET', target: '/v2/x', host: to, range }
    const authorization = proofOf(change.key ?? key, password.nonceOf(socket), proofsBefore, request)
    return { host: to, authorization, ...(range === undefined ? {} : { range }) }
  }

  it('is accepted as basic auth, as containerd and Go Spegel send it', () => {
    const socket = connectionTo('10.0.0.1')
    expect(accepts(socket, { host: 'anything', authorization: basic.header })).toBe(true)
    for (const authorization of [undefined, '', 'Basic Og==', `${basic.header}x`, basic.header.toLowerCase()]) {
      expect(accepts(socket, { host, ...(authorization === undefined ? {} : { authorization }) })).toBe(false)
    }
  })

  it('accepts each proof once, and the proofs of a connection in their order', () => {
    const socket = connectionTo('10.0.0.1')
    const first = proven(socket, 0)
    const second = proven(socket, 1)
    expect(accepts(socket, second)).toBe(false)
    expect(accepts(socket, first)).toBe(true)
    expect(accepts(socket, first)).toBe(false)
    expect(accepts(socket, second)).toBe(true)
  })

  it('draws one nonce for each connection, and accepts a proof on no other', () => {
    const [socket, other] = [connectionTo('10.0.0.1'), connectionTo('10.0.0.1')]
    expect(password.nonceOf(socket)).toBe(password.nonceOf(socket))
    expect(password.nonceOf(socket)).toMatch(/^[0-9a-f]{64}$/)
    expect(password.nonceOf(other)).not.toBe(password.nonceOf(socket))
    expect(accepts(other, proven(socket, 0))).toBe(false)
    // No request was refused on this one.
    expect(accepts(connectionTo('10.0.0.1'), proven(socket, 0))).toBe(false)
  })

  it.each([
    ['10.0.0.1', '10.0.0.1:5000', true],
    ['::ffff:10.0.0.1', '10.0.0.1:5000', true],
    ['fd00:0:0:0::2', '[fd00::2]:5000', true],
    // Behind a translated address, which is the one that is advertised.
    ['10.0.0.1', '192.168.0.1:5000', true],
    ['10.0.0.1', '[FD00:0::1]:5000', true],
    ['10.0.0.1', '10.0.0.2:5000', false],
    ['10.0.0.1', 'node-1:5000', false],
    ['10.0.0.1', '', false],
  ])('at %s, with a proof for "%s": %s', (localAddress, to, isAccepted) => {
    const socket = connectionTo(localAddress)
    expect(accepts(socket, proven(socket, 0, { host: to }))).toBe(isAccepted)
  })

  it('refuses a proof with another request, key or form', () => {
    const socket = connectionTo('10.0.0.1')
    const headers = proven(socket, 0)
    expect(accepts(socket, headers, 'POST')).toBe(false)
    expect(accepts(socket, headers, 'GET', '/v2/y')).toBe(false)
    expect(accepts(socket, { ...headers, range: 'bytes=0-' })).toBe(false)
    expect(accepts(socket, proven(socket, 0, { key: Buffer.alloc(32) }))).toBe(false)
    for (const authorization of ['Spegel-TS ', `${headers.authorization}0`, headers.authorization.toUpperCase()]) {
      expect(accepts(socket, { ...headers, authorization })).toBe(false)
    }
    expect(accepts(socket, headers)).toBe(true)
    expect(accepts(socket, proven(socket, 1, { range: 'bytes=0-' }))).toBe(true)
  })
})
