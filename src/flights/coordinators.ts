/**
 * Whom to ask about a digest: of the nodes that speak this protocol the closest to its key that answers, of three. All
 * nodes see nearly the same nodes, so nearly always all ask the same one; a view that differs costs one more fetch.
 */
import { surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import { awakeTimeout } from '../lib/patience.ts'
import {
  flightCoordinatorDeadMs,
  flightCoordinatorKnownMs,
  flightCoordinatorTimeoutMs,
  flightCoordinatorsMax,
  peersRememberedMax,
} from '../limits.ts'
import type { Digest } from '../oci/digest.ts'
import type { PeerClient } from '../peers/client.ts'
import type { Router } from '../router/router.ts'
import type { Coordinator } from './coordinator.ts'
import {
  type Answer,
  type FlightNode,
  type Join,
  type Report,
  joinPath,
  parseAnswer,
  reportPath,
} from './protocol.ts'

export interface CoordinatorsComponents {
  router: Pick<Router, 'flightNodes'>
  client: Pick<PeerClient, 'post'>
  /** For the digests that this node coordinates itself. */
  own: Coordinator
  self: FlightNode
  clock: Clock
}

export class Coordinators {
  readonly #components: CoordinatorsComponents
  readonly #dead = new BoundedMap<string, { untilMs: number; silences: number }>(peersRememberedMax)
  /** Those that answered lately. */
  readonly #knownUntilMs = new BoundedMap<string, number>(peersRememberedMax)

  constructor(components: CoordinatorsComponents) {
    this.#components = components
  }

  /** Undefined: nobody answers. Rejects with the signal's reason. */
  async join(digest: Digest, join: Join, signal: AbortSignal): Promise<Answer | undefined> {
    for (const node of await this.#alive(digest)) {
      if (node.id === this.#components.self.id) return this.#components.own.join(digest, join, signal)
      const answer = await this.#ask(node, digest, join, signal)
      // Another one knows nobody of the flight: no use to who has a source.
      if (answer !== undefined || join.isSlow) return answer
    }
    return undefined
  }

  /** Nobody waits for what comes of it. */
  async report(digest: Digest, report: Report): Promise<void> {
    for (const node of await this.#alive(digest)) {
      if (node.id === this.#components.self.id) {
        this.#components.own.report(digest, report)
        return
      }
      if ((await this.#post(node, reportPath(digest, report), 0, undefined)) !== undefined) return
    }
  }

  /** It asked, or told something: it lives. */
  noteHeard(node: FlightNode): void {
    this.#dead.delete(placeOf(node))
  }

  /** Who was not heard of lately is asked for an answer at once, before it is waited for. Undefined: none came. */
  async #ask(node: FlightNode, digest: Digest, join: Join, signal: AbortSignal): Promise<Answer | undefined> {
    const isKnown = (this.#knownUntilMs.get(placeOf(node)) ?? 0) > this.#components.clock.nowMs()
    const waitMs = isKnown ? join.waitMs : 0
    const text = await this.#post(node, joinPath(digest, { ...join, waitMs }), waitMs, signal)
    if (text === undefined) return undefined
    const answer = parseAnswer(text)
    if (answer === undefined) this.#noteDead(node)
    else this.#noteAlive(node)
    return answer?.kind === 'wait' && waitMs < join.waitMs ? this.#ask(node, digest, join, signal) : answer
  }

  async #alive(digest: Digest): Promise<FlightNode[]> {
    const nowMs = this.#components.clock.nowMs()
    const nodes = await this.#components.router.flightNodes(digest, flightCoordinatorsMax)
    return nodes.filter((node) => (this.#dead.get(placeOf(node))?.untilMs ?? 0) <= nowMs)
  }

  async #post(
    node: FlightNode,
    path: string,
    waitMs: number,
    signal: AbortSignal | undefined,
  ): Promise<string | undefined> {
    const { clock, client } = this.#components
    using patience = awakeTimeout(clock, waitMs + flightCoordinatorTimeoutMs)
    const inTime = signal === undefined ? patience.signal : AbortSignal.any([patience.signal, signal])
    try {
      return await client.post(node, path, inTime)
    } catch (error) {
      signal?.throwIfAborted()
      surface('flight_report', error)
      this.#noteDead(node)
      return undefined
    }
  }

  #noteAlive(node: FlightNode): void {
    this.#dead.delete(placeOf(node))
    this.#knownUntilMs.set(placeOf(node), this.#components.clock.nowMs() + flightCoordinatorKnownMs)
  }

  #noteDead(node: FlightNode): void {
    const nowMs = this.#components.clock.nowMs()
    const place = placeOf(node)
    const before = this.#dead.get(place)
    // All that was under way fails at once: that is one silence.
    if (before !== undefined && before.untilMs > nowMs) return
    const silences = (before?.silences ?? 0) + 1
    const deadMs = flightCoordinatorDeadMs[Math.min(silences, flightCoordinatorDeadMs.length) - 1] ?? 0
    this.#dead.set(place, { untilMs: nowMs + deadMs, silences })
    this.#knownUntilMs.delete(place)
  }
}

/** A node that was started anew at another address is not the one that did not answer. */
function placeOf({ id, addresses }: FlightNode): string {
  return [id, ...addresses].join(' ')
}
