/** What is learned about one request while it is answered: for metrics and the log. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Clock } from '../lib/clock.ts'
import { parseRange } from '../oci/range.ts'
import { loadMaxHeader } from '../peers/protocol.ts'
import type { Caller } from './callers.ts'

export class Exchange {
  readonly startedMs: number
  readonly fromPeer: boolean
  /** A question of a peer is only wanted answered while at most so many transfers to peers run. */
  readonly loadMax: number | undefined
  readonly fromContainerd: boolean
  readonly isHead: boolean
  readonly rangeHeader: string | undefined
  sentBytes = 0
  /** Since the request came. */
  firstByteMs: number | undefined
  readonly #clock: Clock

  constructor(
    clock: Clock,
    { method, headers }: { method: string; headers: IncomingHttpHeaders },
    { isPeer, isContainerd }: Caller,
  ) {
    const loadMax = headers[loadMaxHeader]
    this.#clock = clock
    this.startedMs = clock.nowMs()
    this.fromPeer = isPeer
    this.loadMax = typeof loadMax === 'string' && /^\d{1,9}$/.test(loadMax) ? Number(loadMax) : undefined
    this.fromContainerd = isContainerd
    this.isHead = method === 'HEAD'
    this.rangeHeader = headers.range
  }

  /** Of a range that names one; else the blob's first. */
  get firstAskedByte(): number {
    const spec = parseRange(this.rangeHeader)
    return spec !== undefined && 'first' in spec ? spec.first : 0
  }

  get elapsedMs(): number {
    return this.#clock.nowMs() - this.startedMs
  }
}
