/** One byte range of a body (RFC 9110 §14): what was asked for, and what it means for a given size. */

/** What a Range header asks for. `first` and `last` are inclusive offsets; `suffix` counts from the end. */
export type RangeSpec = { first: number; last?: number } | { suffix: number }

/** A range that fits: inclusive offsets, `first` ≤ `last` < size. */
export interface ByteRange {
  first: number
  last: number
}

/**
 * Undefined when the header is absent, has several ranges, another unit, or does not parse: RFC 9110 lets a server
 * ignore it then and send everything, which containerd copes with (it skips what it has).
 */
export function parseRange(header: string | undefined): RangeSpec | undefined {
  const match = /^bytes=\s*(\d*)\s*-\s*(\d*)\s*$/i.exec(header ?? '')
  if (match === null) return undefined
  const [, firstText = '', lastText = ''] = match
  const first = Number(firstText)
  const last = Number(lastText)
  if (!Number.isSafeInteger(first) || !Number.isSafeInteger(last)) return undefined
  if (firstText === '') return lastText === '' ? undefined : { suffix: last }
  return lastText === '' ? { first } : { first, last }
}

/**
 * The range within a body of `size` bytes; 'unsatisfiable' asks for a 416. A last offset before the first counts as
 * unsatisfiable (the OCI conformance suite wants 416 for `500-0`). An empty body is sent whole whatever was asked
 * for, as Go's http.ServeContent does: some clients put `bytes=0-` on every request.
 */
function resolveRange(spec: RangeSpec, size: number): ByteRange | 'whole' | 'unsatisfiable' {
  if (size === 0) return 'whole'
  if ('suffix' in spec) {
    if (spec.suffix === 0) return 'unsatisfiable'
    return { first: Math.max(0, size - spec.suffix), last: size - 1 }
  }
  const last = Math.min(spec.last ?? size - 1, size - 1)
  if (spec.first >= size || spec.first > last) return 'unsatisfiable'
  return { first: spec.first, last }
}

/** The header value that asks for it. */
export function formatRange(spec: RangeSpec): string {
  if ('suffix' in spec) return `bytes=-${spec.suffix}`
  return `bytes=${spec.first}-${spec.last ?? ''}`
}

function formatContentRange(range: ByteRange, size: number): string {
  return `bytes ${range.first}-${range.last}/${size}`
}

/** Undefined unless the header states first, last and size, all of them sound. */
export function parseContentRange(header: string | undefined): (ByteRange & { size: number }) | undefined {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(header ?? '')
  if (match === null) return undefined
  const [first, last, size] = [Number(match[1]), Number(match[2]), Number(match[3])]
  if (!Number.isSafeInteger(size) || first > last || last >= size) return undefined
  return { first, last, size }
}

/** How to answer with a body of `size` bytes, given the Range header of the request. */
export interface BodyPlan {
  status: 200 | 206
  /** What to send; for an empty body `last` is -1. */
  bounds: ByteRange
  contentLength: number
  contentRange: string | undefined
}

export function planBody(rangeHeader: string | undefined, size: number): BodyPlan | 'unsatisfiable' {
  const spec = parseRange(rangeHeader)
  const range = spec === undefined ? 'whole' : resolveRange(spec, size)
  if (range === 'unsatisfiable') return range
  return range === 'whole' ? wholeBody(size) : partialBody(range, size)
}

export function wholeBody(size: number): BodyPlan {
  return { status: 200, bounds: { first: 0, last: size - 1 }, contentLength: size, contentRange: undefined }
}

export function partialBody(range: ByteRange, size: number): BodyPlan {
  return {
    status: 206,
    bounds: { first: range.first, last: range.last },
    contentLength: range.last - range.first + 1,
    contentRange: formatContentRange(range, size),
  }
}
