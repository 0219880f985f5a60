/** One HTTP request to a registry. Bodies are streamed; a request may take any time as long as bytes move. */
import { type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { Readable } from 'node:stream'

/** More of an answer is of no use to us: tokens and error messages are shorter. */
const answerBytesMax = 64 * 1024
/**
 * A larger body is sent only when the registry wants it: one that refuses closes the connection, and its reason would be
 * lost with what was written. Proxies that do not know the question get the body a little later, as from other clients.
 */
const unaskedBytesMax = 64 * 1024
const continueTimeoutMs = 1_000

export interface Answer {
  status: number
  headers: IncomingHttpHeaders
  /** The beginning of it. */
  body: Buffer
}

export interface Question {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT'
  headers: Record<string, string>
  body?: { sizeBytes: number; open: () => Readable }
}

/** Rejects with what the socket said. */
export function ask(
  url: URL,
  { method, headers, body }: Question,
  { stallTimeoutMs, signal }: { stallTimeoutMs: number; signal: AbortSignal | undefined },
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const length = method === 'POST' || method === 'PUT' ? { 'content-length': String(body?.sizeBytes ?? 0) } : {}
    const careful = body !== undefined && body.sizeBytes > unaskedBytesMax
    const expect = careful ? { expect: '100-continue' } : {}
    // A connection for each request: one that is kept may be closed by the registry just when it is used.
    const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(url, {
      method,
      agent: false,
      timeout: stallTimeoutMs,
      headers: { 'user-agent': 'spegel-ts', ...headers, ...length, ...expect },
      ...(signal === undefined ? {} : { signal }),
    })
    request.on('timeout', () => request.destroy(new Error(`nothing moved for ${stallTimeoutMs / 1000} s`)))
    request.on('error', reject)
    request.on('response', (response) => {
      // It may come before the whole body is sent: a refusal.
      readAnswer(response)
        .then(resolve, reject)
        .finally(() => request.destroy())
    })
    if (body === undefined) request.end()
    else if (careful) whenWanted(request, () => send(request, body))
    else send(request, body)
  })
}

function send(request: ClientRequest, { open }: NonNullable<Question['body']>): void {
  const source = open()
  source.on('error', (error) => request.destroy(error))
  request.on('close', () => source.destroy())
  source.pipe(request)
}

/** Calls back at most once: not after an answer, which is a refusal then. */
function whenWanted(request: ClientRequest, callback: () => void): void {
  const settle = (wanted: boolean) => {
    clearTimeout(timer)
    request.off('continue', onContinue).off('response', onEnd).off('close', onEnd)
    if (wanted) callback()
  }
  const onContinue = () => settle(true)
  const onEnd = () => settle(false)
  request.on('continue', onContinue).on('response', onEnd).on('close', onEnd)
  const timer = setTimeout(onContinue, continueTimeoutMs)
}

async function readAnswer(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > answerBytesMax) break
  }
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }
}
