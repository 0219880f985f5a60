/** What this node thinks of its peers: who failed lately, and whose blob turned out to be wrong. */
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { peerAvoidMs, peerWrongAvoidMs, peersRememberedMax } from '../limits.ts'
import type { Digest } from '../oci/digest.ts'

export class PeerStanding {
  readonly #clock: Clock
  readonly #avoidedUntilMs = new BoundedMap<string, number>(peersRememberedMax)
  readonly #wrongUntilMs = new BoundedMap<string, number>(peersRememberedMax)

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** From now on the peer is asked only when nobody else has the content. */
  noteFailure(peerId: string): void {
    this.#avoid(peerId, peerAvoidMs)
  }

  /** The peer gave bytes that are not the blob: not asked for it again, and avoided for longer. */
  noteWrong(peerId: string, digest: Digest): void {
    this.#avoid(peerId, peerWrongAvoidMs)
    this.#wrongUntilMs.set(`${peerId} ${digest}`, this.#clock.nowMs() + peerWrongAvoidMs)
  }

  isAvoided(peerId: string): boolean {
    return (this.#avoidedUntilMs.get(peerId) ?? 0) > this.#clock.nowMs()
  }

  isWrong(peerId: string, digest: Digest | undefined): boolean {
    return digest !== undefined && (this.#wrongUntilMs.get(`${peerId} ${digest}`) ?? 0) > this.#clock.nowMs()
  }

  #avoid(peerId: string, durationMs: number): void {
    const untilMs = this.#clock.nowMs() + durationMs
    this.#avoidedUntilMs.set(peerId, Math.max(untilMs, this.#avoidedUntilMs.get(peerId) ?? 0))
  }
}
