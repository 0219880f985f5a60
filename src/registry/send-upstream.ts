/**
 * Our containerd is the one to fetch a blob upstream: it is redirected there, or told 404, which says the same. When it
 * comes back in mid-blob because upstream broke off, or is to go where another one just failed, a refusal there fails its
 * pull, and then the pulls of all that would be sent there after it: it waits here until upstream takes connections again.
 */
import type { FastifyReply } from 'fastify'
import { type Clock, pause } from '../lib/clock.ts'
import { flightAskAgainMs, flightRefusedHoldMs, flightRefusedLookMs } from '../limits.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import { planBody } from '../oci/range.ts'
import { blobContentType } from '../peers/protocol.ts'
import type { Exchange } from './exchange.ts'
import { type FlightRequest, type RangeFrom, isFromStart, restMs } from './flight-request.ts'
import { sendBody } from './send-body.ts'

interface UpstreamQuestion {
  asked: RangeFrom | undefined
  /** Undefined: containerd finds its own way after a 404. */
  origin: string | undefined
  isAfterFailure: boolean
}

interface Waiting {
  clock: Clock
  shutdown: AbortSignal
  /** The client has left, or all ends. */
  signal: AbortSignal
}

/** `nothing`: the caller answers 404. */
export async function sendUpstream(
  { kind, repository }: ContentRequest,
  { flights, digest, upstreamRefuses }: FlightRequest,
  { asked, origin, isAfterFailure }: UpstreamQuestion,
  exchange: Exchange,
  reply: FastifyReply,
  { clock, shutdown, signal }: Waiting,
): Promise<'redirected' | 'nothing'> {
  const { holdMs, mayWait } = flights.sendUpstream(digest, asked, isAfterFailure && kind === 'blob')
  const refuses = origin !== undefined && mayWait ? () => upstreamRefuses(origin) : undefined
  const isBack = upstreamIsBack(holdMs, refuses, clock, signal)
  const size = mayWait ? flights.sizeOf(digest) : undefined
  const range = isFromStart(asked) ? undefined : exchange.rangeHeader
  const plan = size === undefined ? 'unsatisfiable' : planBody(range, size)
  if (plan !== 'unsatisfiable' && !(await endsWithin(isBack, restMs(exchange, flightAskAgainMs), clock))) {
    // Ends by FIN without a byte: containerd asks for the same again, and is sent upstream then.
    await sendBody(reply, { plan, contentType: blobContentType, digest }, () => isBack, clock, shutdown)
    flights.noteHeld(digest)
    return 'redirected'
  }
  await isBack
  if (origin === undefined) return 'nothing'
  const section = kind === 'manifest' ? 'manifests' : 'blobs'
  void reply.code(307).header('location', `${origin}/v2/${repository}/${section}/${digest}`).send()
  return 'redirected'
}

/**
 * Resolves when our containerd may be sent there: after `holdMs`, and when it is not refused, as long as that is waited
 * for. `refuses` undefined: that cannot be known, or does not matter. Never rejects; the signal ends it.
 */
async function upstreamIsBack(
  holdMs: number,
  refuses: (() => Promise<boolean>) | undefined,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  if (holdMs > 0) await pause(clock, holdMs, signal)
  if (refuses === undefined) return
  const untilMs = clock.nowMs() + flightRefusedHoldMs
  while (!signal.aborted && clock.nowMs() < untilMs && (await refuses())) {
    await pause(clock, flightRefusedLookMs, signal)
  }
}

/** False when the time passed first. */
function endsWithin(promise: Promise<void>, limitMs: number, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const cancel = clock.after(limitMs, () => resolve(false))
    void promise.then(() => {
      cancel()
      resolve(true)
    })
  })
}
