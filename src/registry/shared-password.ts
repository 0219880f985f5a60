/** The shared password in use: checks the requests of containerd and of peers, and authorizes this node's own requests. */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { canonicalIp, parseHostHeader } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../logger.ts'
import { PeerCredentials, type PeerCredentialsConfig } from '../peers/credentials.ts'
import { deriveProofKey, equalHeaders, proofOf, proofScheme } from '../peers/proof.ts'
import type { BasicAuth } from './auth.ts'

export interface SharedPasswordConfig extends Pick<PeerCredentialsConfig, 'bootstrap' | 'isOurs' | 'isNamed'> {
  /** IP addresses at which other nodes reach this one, next to the local address of a connection. */
  ownIps: () => readonly string[]
}

export class SharedPassword {
  /** For requests to peers. */
  readonly credentials: PeerCredentials
  readonly #basic: BasicAuth
  readonly #key: Buffer
  readonly #ownIps: () => readonly string[]
  /** An entry for each connection on which a request was refused. */
  readonly #challenges = new WeakMap<Socket, { nonce: string; proofsBefore: number }>()

  private constructor(
    basic: BasicAuth,
    key: Buffer,
    { ownIps, ...config }: SharedPasswordConfig,
    world: { clock: Clock; logger: Logger },
  ) {
    this.#basic = basic
    this.#key = key
    this.#ownIps = ownIps
    this.credentials = new PeerCredentials({ ...config, key, basicHeader: basic.header }, world)
  }

  /** Derives the key of proofs, which takes about 0.15 s of CPU, and 32 MiB for that time. */
  static async derive(
    basic: BasicAuth,
    config: SharedPasswordConfig,
    world: { clock: Clock; logger: Logger },
  ): Promise<SharedPassword> {
    return new SharedPassword(basic, await deriveProofKey(basic.header), config, world)
  }

  /** True for basic auth, as containerd sends it, and for a proof, which is valid once. */
  accepts({ headers, socket, method, url }: Pick<IncomingMessage, 'headers' | 'socket' | 'method' | 'url'>): boolean {
    const { authorization, host = '', range } = headers
    if (authorization?.startsWith(proofScheme) !== true) return this.#basic.accepts(authorization)
    const challenge = this.#challenges.get(socket)
    if (challenge === undefined || !this.#isOwnHost(host, socket)) return false
    const request = { method: method ?? '', target: url ?? '', host, range }
    const isProven = equalHeaders(authorization, proofOf(this.#key, challenge.nonce, challenge.proofsBefore, request))
    if (isProven) challenge.proofsBefore += 1
    return isProven
  }

  /** The nonce to send with a refusal on this connection. */
  nonceOf(socket: Socket): string {
    const challenge = this.#challenges.get(socket) ?? { nonce: randomBytes(32).toString('hex'), proofsBefore: 0 }
    this.#challenges.set(socket, challenge)
    return challenge.nonce
  }

  /** False for a proof that was made for another node, which relayed it. */
  #isOwnHost(host: string, { localAddress = '' }: Socket): boolean {
    const ip = parseHostHeader(host)
    return [localAddress, ...this.#ownIps()].some((own) => canonicalIp(own) === ip)
  }
}
