/**
 * What nodes say to each other over HTTP, on the registry port that all of them share. A peer's answer is only believed
 * when it is exactly what was asked for: right status, a length, the right digest, the right range.
 */
import type { ContentRequest } from '../oci/content-request.ts'
import { isDigest } from '../oci/digest.ts'
import { manifestMediaTypes } from '../oci/manifest.ts'
import { type ByteRange, type RangeSpec, formatRange, parseContentRange } from '../oci/range.ts'
import type { Peer } from '../router/router.ts'
import type { WriteChunk } from '../store/store.ts'

/** Marks a question between mirrors: answer from your own store, do not ask on (as Spegel). */
export const mirroredHeader = 'x-spegel-mirrored'

/**
 * Of a question for a blob: answer only if at most so many transfers to peers are running, else 503 and `loadHeader`.
 * The holder decides at the moment of the question, so two who ask at once never both find it idle. Spegel ignores it.
 */
export const loadMaxHeader = 'x-spegel-ts-load-max'
/** Of a 503 for that reason: transfers to peers that are running. */
export const loadHeader = 'x-spegel-ts-load'

/** Of a body that is still arriving at the peer: nobody has compared it with its digest yet. */
export const arrivingHeader = 'x-spegel-ts-arriving'
/** With it: bytes of the blob that were here when the answer began. */
export const hereHeader = 'x-spegel-ts-here'

/** Of blobs, and of what an answer does not say. */
export const blobContentType = 'application/octet-stream'

/** `moved`: it did no wrong, but another one is to be asked for the rest. */
export type PeerFailureReason = 'connect' | 'not-found' | 'status' | 'headers' | 'body' | 'stall' | 'moved' | 'digest'

export class PeerFailure extends Error {
  override readonly name = 'PeerFailure'
  readonly reason: PeerFailureReason
  /** Worth another try at the same peer, for want of others: a connection that broke says little about the next. */
  readonly retryable: boolean

  constructor(reason: PeerFailureReason, message: string, options: { retryable?: boolean; cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.reason = reason
    this.retryable = options.retryable ?? false
  }
}

/** The peer has it, but is busier than we wanted. */
export class PeerBusy extends Error {
  override readonly name = 'PeerBusy'
  readonly load: number

  constructor(load: number) {
    super(`the peer runs ${load} transfers`)
    this.load = load
  }
}

export interface PeerQuestion {
  request: ContentRequest
  method: 'GET' | 'HEAD'
  range: RangeSpec | undefined
  /** Undefined: answer however busy you are. */
  loadMax: number | undefined
}

/** A good answer whose body has not been read yet. Either `send` or `discard` must be called. */
export interface PeerResponse {
  readonly peer: Peer
  /** The whole content's size; for a range too. */
  readonly size: number
  /** Undefined: everything. */
  readonly range: ByteRange | undefined
  readonly contentType: string
  readonly digest: string | undefined
  /** The peer is still receiving it itself: if it is wrong, that is not the peer's doing. */
  readonly isArriving: boolean
  /** Then: so many bytes of the whole content it had when it answered. Undefined: it does not say. */
  readonly hereBytes: number | undefined
  /** How long what is being passed on was waited for, while nothing was there. Without it: not known. */
  readonly latestWaitMs?: () => number
  /** Passes the body on. Rejects with PeerFailure when it breaks, stalls or is too short; else as `write` does. */
  send(write: WriteChunk): Promise<void>
  /** The body is not wanted. */
  discard(): void
}

/** The peer has the content but not the range. */
export interface RangeRefused {
  readonly peer: Peer
  readonly refusedSize: number
}

export type AnswerHeaders = ReadonlyMap<string, string>

export function questionPath({ request }: PeerQuestion): string {
  const section = request.kind === 'manifest' ? 'manifests' : 'blobs'
  const ns = request.registry === undefined ? '' : `?ns=${encodeURIComponent(request.registry)}`
  return `/v2/${request.repository}/${section}/${request.digest ?? request.tag}${ns}`
}

export function questionHeaders({ request, range, loadMax }: PeerQuestion): Record<string, string> {
  return {
    [mirroredHeader]: 'true',
    'user-agent': 'spegel-ts',
    accept: request.kind === 'manifest' ? manifestMediaTypes.join(', ') : '*/*',
    ...(range === undefined ? {} : { range: formatRange(range) }),
    ...(loadMax === undefined ? {} : { [loadMaxHeader]: String(loadMax) }),
  }
}

export type CheckedAnswer = Pick<
  PeerResponse,
  'size' | 'range' | 'contentType' | 'digest' | 'isArriving' | 'hereBytes'
>

/** Throws PeerFailure or PeerBusy unless it is a right answer to the question. */
export function checkAnswer(
  status: number,
  headers: AnswerHeaders,
  { request, range: asked }: PeerQuestion,
): CheckedAnswer | Omit<RangeRefused, 'peer'> {
  if (status === 503 && /^\d{1,9}$/.test(headers.get(loadHeader) ?? '')) {
    throw new PeerBusy(Number(headers.get(loadHeader)))
  }
  if (status === 416 && asked !== undefined) {
    const size = /^bytes \*\/(\d{1,15})$/.exec(headers.get('content-range') ?? '')?.[1]
    if (size !== undefined) return { refusedSize: Number(size) }
  }
  if (status === 404) throw new PeerFailure('not-found', 'the peer does not have it')
  if (status !== 200 && status !== 206) throw new PeerFailure('status', `the peer answered ${status}`)
  const bodyBytes = Number(headers.get('content-length') ?? Number.NaN)
  if (!Number.isSafeInteger(bodyBytes) || bodyBytes < 0) throw new PeerFailure('headers', 'no Content-Length')
  const digest = headers.get('docker-content-digest')
  if (digest !== undefined && !isDigest(digest)) throw new PeerFailure('headers', `"${digest}" is not a digest`)
  if (digest !== undefined && request.digest !== undefined && digest !== request.digest) {
    throw new PeerFailure('headers', `the peer answered with ${digest}`)
  }
  const contentType = headers.get('content-type') ?? blobContentType
  const isArriving = headers.get(arrivingHeader) === 'true'
  const here = headers.get(hereHeader) ?? ''
  const hereBytes = isArriving && /^\d{1,15}$/.test(here) ? Number(here) : undefined
  if (status === 200) {
    // The whole body in place of a range: only right where everything was wanted anyway.
    const everything = asked === undefined || ('first' in asked && asked.first === 0 && asked.last === undefined)
    if (!everything) throw new PeerFailure('headers', 'the peer ignored the range')
    return { size: bodyBytes, range: undefined, contentType, digest, isArriving, hereBytes }
  }
  const range = parseContentRange(headers.get('content-range'))
  if (asked === undefined || range === undefined) throw new PeerFailure('headers', 'a 206 without its range')
  if (range.last - range.first + 1 !== bodyBytes || !answersRange(asked, range)) {
    throw new PeerFailure('headers', 'another range than asked')
  }
  const { first, last, size } = range
  return { size, range: { first, last }, contentType, digest, isArriving, hereBytes }
}

function answersRange(asked: RangeSpec, given: ByteRange & { size: number }): boolean {
  if ('suffix' in asked) {
    return given.last === given.size - 1 && given.first === Math.max(0, given.size - asked.suffix)
  }
  return given.first === asked.first && given.last === Math.min(asked.last ?? given.size - 1, given.size - 1)
}
