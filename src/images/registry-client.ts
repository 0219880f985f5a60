/** A client of one repository of a registry (OCI distribution spec), which logs in when it is asked to. */
import { UserError, errorCode, errorMessage } from '../lib/errors.ts'
import { parseJsonObject } from '../lib/foreign.ts'
import type { Credentials } from './docker-credentials.ts'
import type { PushTarget } from './push-target.ts'
import { basicAuthorization, parseChallenge, tokenOf, tokenUrl } from './registry-login.ts'
import { type Answer, type Question, ask } from './registry-request.ts'

const redirectsMax = 5

export interface RegistryClientInit {
  target: PushTarget
  credentials: Credentials | undefined
  /** Where they were looked for. */
  credentialsPath: string
  stallTimeoutMs: number
  signal: AbortSignal | undefined
}

type Ask = Omit<Question, 'headers'> & { headers?: Record<string, string> }

export class RegistryClient {
  readonly #init: RegistryClientInit
  #authorization: string | undefined

  constructor(init: RegistryClientInit) {
    this.#init = init
  }

  /** `path` is below the repository, or a URL that the registry gave. Throws a UserError. */
  async ask(what: string, path: string, question: Ask): Promise<Answer> {
    const { origin, repository } = this.#init.target
    const url = URL.parse(path, `${origin}/v2/${repository}/`)
    if (url === null || !/^https?:$/.test(url.protocol)) {
      throw this.failure(
        what,
        'the registry names a place that is not a URL: a proxy before it may be set up wrongly',
      )
    }
    let answer = await this.#send(what, url, question)
    // Nobody but the registry itself may ask for our credentials.
    if (answer.status === 401 && url.origin === origin) {
      this.#authorization = await this.#login(what, answer)
      answer = await this.#send(what, url, question)
    }
    if (question.method === 'HEAD') answer = await this.#followed(what, url, answer)
    if (answer.status === 401 || answer.status === 403) throw this.#refused(what, answer)
    return answer
  }

  /** One line: where, what, why. */
  failure(what: string, why: string): UserError {
    return new UserError(`cannot push to ${this.#init.target.name}: ${what}: ${why}`)
  }

  /** For an answer that is neither what was hoped for nor about the login. */
  unexpected(what: string, answer: Answer): UserError {
    const advice = answer.status >= 500 || answer.status === 429 ? ': try again later, what is there is skipped' : ''
    return this.failure(what, `the registry answered ${answer.status}${saidBy(answer)}${advice}`)
  }

  async #send(what: string, url: URL, { headers = {}, ...question }: Ask): Promise<Answer> {
    const { target, stallTimeoutMs, signal } = this.#init
    // Uploads and redirects may lead to another host, such as an object store: it must not learn who we are.
    const known = url.origin === target.origin && this.#authorization !== undefined
    const authorization = known ? { authorization: this.#authorization ?? '' } : {}
    try {
      return await ask(url, { ...question, headers: { ...headers, ...authorization } }, { stallTimeoutMs, signal })
    } catch (error) {
      signal?.throwIfAborted()
      throw this.failure(what, `${url.origin}: ${errorMessage(error)}${adviceFor(error)}`)
    }
  }

  /** Registries may keep blobs elsewhere. */
  async #followed(what: string, from: URL, first: Answer): Promise<Answer> {
    let answer = first
    let base = from
    for (let left = redirectsMax; [301, 302, 303, 307, 308].includes(answer.status) && left > 0; left--) {
      const next = URL.parse(answer.headers.location ?? '', base.href)
      if (next === null || !/^https?:$/.test(next.protocol)) break
      answer = await this.#send(what, next, { method: 'HEAD' })
      base = next
    }
    return answer
  }

  async #login(what: string, refusal: Answer): Promise<string> {
    const { target, credentials } = this.#init
    const challenge = parseChallenge(refusal.headers['www-authenticate'])
    if (challenge === undefined) {
      throw this.failure(what, 'the registry asks for a login of an unknown kind: only Basic and Bearer are known')
    }
    const basic = credentials === undefined ? undefined : basicAuthorization(credentials)
    if (challenge.kind === 'basic') {
      if (basic === undefined) throw this.#refused(what, refusal)
      return basic
    }
    const { realm } = challenge
    if (realm.protocol === 'http:' && target.origin.startsWith('https:') && basic !== undefined) {
      throw this.failure(what, `the registry wants the password sent to ${realm.origin} without TLS: not done`)
    }
    const headers = basic === undefined ? {} : { authorization: basic }
    const { stallTimeoutMs, signal } = this.#init
    let token
    try {
      const answer = await ask(
        tokenUrl(challenge, target.repository),
        { method: 'GET', headers },
        { stallTimeoutMs, signal },
      )
      token = tokenOf(answer, realm)
    } catch (error) {
      signal?.throwIfAborted()
      throw this.failure(what, `the token server ${realm.origin}: ${errorMessage(error)}${adviceFor(error)}`)
    }
    if (token === undefined) throw this.#refused(what, refusal)
    return `Bearer ${token}`
  }

  #refused(what: string, answer: Answer): UserError {
    const { target, credentials, credentialsPath } = this.#init
    const why =
      credentials === undefined
        ? `the registry wants a login, and ${credentialsPath} has none for ${target.registry}: run docker login ${target.registry} (programs that keep passwords, credsStore, are not asked)`
        : `the registry refuses the user name and password that ${credentialsPath} has for ${target.registry}, or the user may not push here (${answer.status}${saidBy(answer)}): run docker login ${target.registry}`
    return this.failure(what, why)
  }
}

/** The registry's own words (`{"errors":[{code, message}]}`), one short line. */
function saidBy({ body }: Answer): string {
  const text = body.toString('utf8')
  const errors = parseJsonObject(text)?.['errors']
  const [first] = Array.isArray(errors) ? (errors as ({ code?: unknown; message?: unknown } | null)[]) : []
  // A proxy's page: its beginning will do.
  const words = first === undefined || first === null ? text : `${wordOf(first.code)}, ${wordOf(first.message)}`
  const said = words
    .replaceAll(/[\s\p{Cc}]+/gu, ' ')
    .trim()
    .slice(0, 200)
  return said === '' ? '' : ` (${said})`
}

function wordOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function adviceFor(error: unknown): string {
  const code = errorCode(error) ?? ''
  if (code === 'EPROTO' || code.startsWith('ERR_SSL')) return ': write http:// before a registry without TLS'
  if (/CERT|SIGNATURE|ISSUER/.test(code)) return ': name its authority in NODE_EXTRA_CA_CERTS'
  if (/^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)$/.test(code))
    return ': check the host and the port'
  return ': run it again, what is there is skipped'
}
