/**
 * Which peers failed recently, and which digests were delivered with wrong bytes. Suspicion counts per address: a peer can
 * draw a new id at any time, but it has few addresses.
 */
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { peerAvoidMs, peersRememberedMax, wrongBytesMs } from '../limits.ts'
import type { Digest } from '../oci/digest.ts'
import type { Peer } from '../router/router.ts'

type Addressed = Pick<Peer, 'addresses'>

export class PeerStanding {
  readonly #clock: Clock
  /** By address. */
  readonly #avoidedUntilMs = new BoundedMap<string, number>(peersRememberedMax)
  /** By address and digest. */
  readonly #wrongUntilMs = new BoundedMap<string, number>(peersRememberedMax)
  readonly #spoiledUntilMs = new BoundedMap<Digest, number>(peersRememberedMax)

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** From now on the peer receives requests only when no other peer has the content. */
  noteFailure(peer: Addressed): void {
    for (const address of peer.addresses) this.#avoid(address, peerAvoidMs)
  }

  /** A holder sent bytes that are not the blob: it receives no request for the digest, and is avoided for longer. */
  noteWrongHolder(peer: Addressed, digest: Digest): void {
    this.noteWrongRelay(peer, digest)
    for (const address of peer.addresses) this.#avoid(address, wrongBytesMs)
  }

  /** A relay passed wrong bytes on while it received them, which an honest node does too. */
  noteWrongRelay(peer: Addressed, digest: Digest): void {
    const untilMs = this.#clock.nowMs() + wrongBytesMs
    for (const address of peer.addresses) this.#wrongUntilMs.set(`${address} ${digest}`, untilMs)
  }

  /** Wrong bytes were delivered for the digest: this node does not mirror it for a while, whoever has it. */
  noteSpoiled(digest: Digest): void {
    this.#spoiledUntilMs.set(digest, this.#clock.nowMs() + wrongBytesMs)
  }

  isSpoiled(digest: Digest | undefined): boolean {
    return digest !== undefined && this.#isBefore(this.#spoiledUntilMs.get(digest))
  }

  /** A peer with one address that did not fail is not avoided. */
  isAvoided({ addresses }: Addressed): boolean {
    return addresses.length > 0 && addresses.every((address) => this.#isBefore(this.#avoidedUntilMs.get(address)))
  }

  isWrong({ addresses }: Addressed, digest: Digest | undefined): boolean {
    return digest !== undefined && addresses.some((one) => this.#isBefore(this.#wrongUntilMs.get(`${one} ${digest}`)))
  }

  #avoid(address: string, durationMs: number): void {
    const untilMs = this.#clock.nowMs() + durationMs
    this.#avoidedUntilMs.set(address, Math.max(untilMs, this.#avoidedUntilMs.get(address) ?? 0))
  }

  #isBefore(untilMs: number | undefined): boolean {
    return untilMs !== undefined && untilMs > this.#clock.nowMs()
  }
}
