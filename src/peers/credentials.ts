/**
 * Credentials for a peer that refuses a request for lack of the shared password. A node of ours sends a nonce with the
 * refusal and receives a proof. A node of Go Spegel supports only basic auth: it receives the password itself, but only at
 * an address that the bootstrap source names, because any process can announce content in the swarm.
 */
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { peerAvoidMs, peersRememberedMax } from '../limits.ts'
import type { Logger } from '../logger.ts'
import type { Peer } from '../router/router.ts'
import { type ProvenRequest, proofOf } from './proof.ts'

/** Authorizes requests on one connection. */
export interface Authorizer {
  /** The Authorization header of the next request. */
  header(request: ProvenRequest): string
  /** The header, where it is valid on every connection to this address: basic auth. */
  readonly basicHeader: string | undefined
}

export interface PeerCredentialsConfig {
  /** The key of proofs. */
  key: Buffer
  /** The Authorization header of basic auth. */
  basicHeader: string
  /** Name of the bootstrap source, for the log. */
  bootstrap: string
  /** True when the peer identified itself in the swarm as a node of ours. */
  isOurs: (peerId: string) => boolean
  /** True when the bootstrap source names this IP address. */
  isNamed: (ip: string) => Promise<boolean>
}

export class PeerCredentials {
  readonly #config: PeerCredentialsConfig
  readonly #clock: Clock
  readonly #logger: Logger
  /** Peers that accept only basic auth and must not receive it. */
  readonly #leftOutUntilMs = new BoundedMap<string, number>(peersRememberedMax)
  #hasLogged = false

  constructor(config: PeerCredentialsConfig, { clock, logger }: { clock: Clock; logger: Logger }) {
    this.#config = config
    this.#clock = clock
    this.#logger = logger
  }

  /**
   * Returns the credentials for a connection to `ip` on which the peer refused a request without any. `nonce`: sent with the
   * refusal. Undefined: the peer receives none.
   */
  async authorizer(peer: Peer, ip: string, nonce: string | undefined): Promise<Authorizer | undefined> {
    const { key, basicHeader, isOurs, isNamed } = this.#config
    if (nonce !== undefined) return /^[0-9a-f]{64}$/.test(nonce) ? proofs(key, nonce) : undefined
    // Our nodes send a nonce, so another program has this address now.
    if (isOurs(peer.id)) return undefined
    if (await isNamed(ip)) return { header: () => basicHeader, basicHeader }
    this.#leaveOut(peer, ip)
    return undefined
  }

  /** True while the peer is no holder for this node, since it accepts only basic auth and must not receive it. */
  isLeftOut({ id }: Peer): boolean {
    return (this.#leftOutUntilMs.get(id) ?? 0) > this.#clock.nowMs()
  }

  #leaveOut({ id }: Peer, ip: string): void {
    this.#leftOutUntilMs.set(id, this.#clock.nowMs() + peerAvoidMs)
    if (this.#hasLogged) return
    this.#hasLogged = true
    const remedy = 'name its address in the bootstrap source, or run spegel-ts on that node'
    this.#logger.warn(
      { peer: ip, bootstrap: this.#config.bootstrap, remedy },
      'nodes left out: they accept only basic auth, and the bootstrap source does not name their addresses',
    )
  }
}

function proofs(key: Buffer, nonce: string): Authorizer {
  let proofsBefore = 0
  return { header: (request) => proofOf(key, nonce, proofsBefore++, request), basicHeader: undefined }
}
