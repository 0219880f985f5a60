/** What the mirror tells of each request: metrics, and one line in the log. */
import { BoundedNames } from '../lib/bounded-names.ts'
import { errorMessage } from '../lib/errors.ts'
import { registryLabelsMax } from '../limits.ts'
import type { Logger } from '../logger.ts'
import type { Metrics } from '../metrics.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import type { PeerResponse } from '../peers/protocol.ts'
import type { MissReason } from '../peers/source.ts'
import type { Exchange } from './exchange.ts'
import type { BodyResult } from './send-body.ts'

export class MirrorNotes {
  readonly #metrics: Metrics
  readonly #logger: Logger
  readonly #registries = new BoundedNames(registryLabelsMax)

  constructor({ metrics, logger }: { metrics: Metrics; logger: Logger }) {
    this.#metrics = metrics
    this.#logger = logger
  }

  hit({ registry }: ContentRequest): void {
    this.#metrics.mirrorRequests.inc({ registry: this.#registries.label(registry ?? ''), cache: 'hit' })
    this.#metrics.mirrorLastSuccess.setToCurrentTime()
  }

  /** containerd goes upstream, by our 404 or redirected. */
  miss(
    request: ContentRequest,
    exchange: Exchange,
    reason: MissReason | 'given-up' | 'wrong-bytes',
    how: 'redirected' | 'nothing',
  ): void {
    this.#metrics.mirrorRequests.inc({ registry: this.#registries.label(request.registry ?? ''), cache: 'miss' })
    this.#metrics.mirrorMisses.inc({ reason })
    this.#log(request, exchange, { outcome: how === 'redirected' ? 'lease' : `miss: ${reason}` })
  }

  firstByte(exchange: Exchange): void {
    exchange.firstByteMs = Math.round(exchange.elapsedMs * 10) / 10
    this.#metrics.firstByte.observe({ source: 'peer' }, exchange.elapsedMs / 1000)
  }

  /** Only that was asked for. */
  head(request: ContentRequest, exchange: Exchange, { peer }: PeerResponse): void {
    this.#log(request, exchange, { outcome: 'hit', source: peer.addresses[0] })
  }

  body(request: ContentRequest, exchange: Exchange, result: BodyResult, used: readonly PeerResponse[]): void {
    exchange.sentBytes = result.sentBytes
    this.#metrics.sentBytes.inc({ source: 'peer', to: 'containerd' }, result.sentBytes)
    this.#log(request, exchange, {
      outcome: result.outcome === 'complete' ? 'hit' : result.outcome,
      source: used.map(({ peer }) => peer.addresses[0]).join(' '),
      ...(result.error === undefined ? {} : { error: errorMessage(result.error) }),
    })
  }

  #log(
    request: ContentRequest,
    exchange: Exchange,
    found: { outcome: string; source?: string | undefined; error?: string },
  ): void {
    this.#logger.info(
      {
        key: request.key,
        registry: request.registry,
        method: exchange.isHead ? 'HEAD' : 'GET',
        bytes: exchange.sentBytes,
        ms: Math.round(exchange.elapsedMs * 10) / 10,
        ...(exchange.firstByteMs === undefined ? {} : { firstByteMs: exchange.firstByteMs }),
        ...found,
      },
      'mirrored',
    )
  }
}
