/** A request that may take part in a flight: what it needs for that, and how long it may wait. */
import type { Flights } from '../flights/flights.ts'
import { flightHeadersMs, flightTreeBytes } from '../limits.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import type { Digest } from '../oci/digest.ts'
import type { RangeSpec } from '../oci/range.ts'
import type { Exchange } from './exchange.ts'

/** What a node that takes part in flights has. */
export interface FlightParts {
  flights: Flights
  /** Scheme and host of a registry's upstream; undefined: containerd finds its own way after a 404. */
  upstreamOrigin: (registry: string) => Promise<string | undefined>
  /** It takes no connections at this moment. */
  upstreamRefuses: (origin: string) => Promise<boolean>
}

export type FlightRequest = FlightParts & { digest: Digest; registry: string }

export type RangeFrom = Extract<RangeSpec, { first: number }>

/** The begin of containerd's parallel fetch. */
export function isFromStart(asked: RangeFrom | undefined): boolean {
  return asked?.first === 0 && asked.last === undefined
}

/** Of it one node feeds few others, who feed others again, if somebody says who whom. Parts are asked for where the first came from. */
export function isWholeLargeBlob(
  { kind }: ContentRequest,
  exchange: Exchange,
  { flights, digest }: FlightRequest,
): boolean {
  return kind === 'blob' && exchange.firstAskedByte === 0 && (flights.sizeOf(digest) ?? 0) > flightTreeBytes
}

/** Until our headers have to go out. */
export function restMs({ elapsedMs }: Exchange, leastMs: number): number {
  return Math.max(leastMs, flightHeadersMs - elapsedMs)
}
