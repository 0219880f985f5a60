/** PORT BodySource: where a body comes from, one answer after the other until it is complete. */
import type { RangeSpec } from '../oci/range.ts'
import type { Peer } from '../router/router.ts'
import type { PeerResponse, RangeRefused } from './protocol.ts'

export interface BodySource {
  /** Undefined when there is none within the budget, or the signal aborts. */
  next(
    range: RangeSpec | undefined,
    budgetMs: number,
    caller: AbortSignal,
  ): Promise<PeerResponse | RangeRefused | undefined>
  /** The peer did not deliver. `gaveMuch`: it did for a while. */
  noteFailure(peer: Peer, error: unknown, gaveMuch?: boolean): void
}
