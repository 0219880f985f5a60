/**
 * A token service as registries have (distribution's token authentication): whoever names the right user and password
 * is given a token to pull with. Arguments: port, user, password, name of service and issuer. Prints each question.
 */
import { X509Certificate, createPrivateKey, randomUUID, sign } from 'node:crypto'
import { createServer } from 'node:http'
import { testCertificate, testKey } from './tls.ts'

const [port, user, password, name] = process.argv.slice(2)
const secret = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
const lifetimeSeconds = 300

function tokenFor(scopes: readonly string[]): string {
  const nowSeconds = Math.floor(Date.now() / 1000)
  const header = {
    typ: 'JWT',
    alg: 'ES256',
    x5c: [new X509Certificate(testCertificate).raw.toString('base64')],
  }
  const claims = {
    iss: name,
    aud: name,
    sub: user,
    jti: randomUUID(),
    nbf: nowSeconds - 10,
    iat: nowSeconds,
    exp: nowSeconds + lifetimeSeconds,
    access: scopes.map((scope) => {
      const [type, repository, actions = ''] = scope.split(':')
      return { type, name: repository, actions: actions.split(',').filter((action) => action === 'pull') }
    }),
  }
  const text = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  const signature = sign('sha256', Buffer.from(text), { key: createPrivateKey(testKey), dsaEncoding: 'ieee-p1363' })
  return `${text}.${signature.toString('base64url')}`
}

createServer((request, response) => {
  const scopes = new URL(request.url ?? '', 'http://x').searchParams.getAll('scope')
  const isKnown = request.headers.authorization === secret
  process.stdout.write(`${isKnown ? 'given' : 'refused'} ${scopes.join(' ')}\n`)
  response.statusCode = isKnown ? 200 : 401
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(isKnown ? { token: tokenFor(scopes), expires_in: lifetimeSeconds } : {}))
}).listen(Number(port))
