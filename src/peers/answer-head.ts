/**
 * Status line and headers of an HTTP/1.1 answer, parsed by hand. Only what peers of our kind send: anything else is
 * "unusual" and left to a library.
 */
import type { AnswerHeaders } from './protocol.ts'

export interface AnswerHead {
  status: number
  headers: AnswerHeaders
  /** Bytes of the body that follow. */
  bodyBytes: number
  keepAlive: boolean
}

/** HTTP, perhaps, but not as we parse it: chunked, interim answers, repeated lengths, folded lines, HTTP/1.0. */
export class UnusualAnswer extends Error {
  override readonly name = 'UnusualAnswer'
}

/** `text` is everything before the empty line. Throws UnusualAnswer. */
export function parseAnswerHead(text: string, method: 'GET' | 'HEAD'): AnswerHead {
  const [statusLine = '', ...lines] = text.split('\r\n')
  const status = Number(/^HTTP\/1\.1 ([2-5]\d\d)(?: |$)/.exec(statusLine)?.[1] ?? Number.NaN)
  if (Number.isNaN(status)) throw new UnusualAnswer('not a final status of HTTP/1.1')
  const headers = new Map<string, string>()
  for (const line of lines) {
    const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/.exec(line)
    if (match === null) throw new UnusualAnswer('a line that is not a header')
    const [, name = '', value = ''] = match
    const key = name.toLowerCase()
    if (headers.has(key) && decisive.has(key)) throw new UnusualAnswer(`${key} twice`)
    if (!headers.has(key)) headers.set(key, value)
  }
  if (headers.has('transfer-encoding')) throw new UnusualAnswer('a body without a length')
  const bodyless = method === 'HEAD' || status === 204 || status === 304
  const length = headers.get('content-length')
  if (length === undefined && !bodyless) throw new UnusualAnswer('a body without a length')
  if (length !== undefined && !/^\d{1,15}$/.test(length)) throw new UnusualAnswer('a length that is not a number')
  return {
    status,
    headers,
    bodyBytes: bodyless ? 0 : Number(length),
    keepAlive: headers.get('connection')?.toLowerCase() !== 'close',
  }
}

/** Twice with different values would be two answers in one. */
const decisive = new Set(['content-length', 'content-range', 'docker-content-digest', 'connection'])
