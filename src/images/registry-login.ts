/**
 * What a registry wants to see before it answers: a 401 says whether it is a user name and a password, or a token from
 * another server (the token authentication of Docker's registry, which ghcr.io and Docker Hub use).
 */
import { UserError } from '../lib/errors.ts'
import { parseJsonObject } from '../lib/foreign.ts'
import type { Credentials } from './docker-credentials.ts'
import type { Answer } from './registry-request.ts'

type Challenge = { kind: 'basic' } | { kind: 'bearer'; realm: URL; service: string | undefined }

/** Undefined when it is none that we know. */
export function parseChallenge(header: string | undefined): Challenge | undefined {
  const bearer = /\bbearer\s+(.*)$/is.exec(header ?? '')?.[1]
  if (bearer !== undefined) {
    const fields = new Map([...bearer.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = '', value = '']) => [key, value]))
    const realm = URL.parse(fields.get('realm') ?? '')
    if (realm === null || !/^https?:$/.test(realm.protocol)) return undefined
    return { kind: 'bearer', realm, service: fields.get('service') }
  }
  return /\bbasic\b/i.test(header ?? '') ? { kind: 'basic' } : undefined
}

export function basicAuthorization({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

/** Where to ask for a token that allows to push. */
export function tokenUrl({ realm, service }: Extract<Challenge, { kind: 'bearer' }>, repository: string): URL {
  const url = new URL(realm)
  if (service !== undefined) url.searchParams.set('service', service)
  url.searchParams.set('scope', `repository:${repository}:pull,push`)
  return url
}

/** Undefined when the token server refuses. */
export function tokenOf({ status, body }: Answer, realm: URL): string | undefined {
  if (status === 401 || status === 403) return undefined
  const token = field(body, 'token') ?? field(body, 'access_token')
  if (status !== 200 || typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
    throw new UserError(`the token server ${realm.origin} answered ${status} without a token: try again later`)
  }
  return token
}

/** Errors are told by the caller, without the text: it may hold a token. */
function field(body: Buffer, name: string): unknown {
  const document = parseJsonObject(body.toString('utf8')) ?? {}
  return Object.entries(document).find(([key]) => key === name)?.[1]
}
