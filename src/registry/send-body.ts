/**
 * The one place where content leaves the program. Headers once, always with Content-Length; then chunks, each written
 * before the next is asked for. A body that cannot be finished ends by FIN: containerd resumes a short body at its
 * next host, but a reset fails its whole pull.
 */
import type { FastifyReply } from 'fastify'
import { surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { finLingerMs, headersAloneMs } from '../limits.ts'
import type { BodyPlan } from '../oci/range.ts'
import { arrivingHeader, hereHeader } from '../peers/protocol.ts'
import type { WriteChunk } from '../store/store.ts'

export interface ResponseHead {
  plan: BodyPlan
  contentType: string
  digest: string
  /** For a peer: it is still being received here, and so many bytes of it were. */
  arrivedBytes?: number
}

export interface BodyResult {
  outcome: 'complete' | 'client-gone' | 'broken'
  sentBytes: number
  /** Why it broke. */
  error?: unknown
}

/** Pushes the body into `write`; rejects when it cannot go on. The signal aborts when the client is gone. */
export type SendChunks = (write: WriteChunk, signal: AbortSignal) => Promise<void>

/** `shutdown` ends the body by FIN. Never rejects: what happened is in the result. */
export async function sendBody(
  reply: FastifyReply,
  head: ResponseHead,
  send: SendChunks,
  clock: Clock,
  shutdown: AbortSignal,
): Promise<BodyResult> {
  const response = writeHead(reply, head)
  const gone = new AbortController()
  // Of the write that is under way. A listener for each on the signal is 3 % of the CPU of a body that arrives slowly.
  let onGone: (() => void) | undefined
  response.once('close', () => {
    gone.abort(new Error('the client closed the connection'))
    onGone?.()
  })
  if (response.destroyed) gone.abort(new Error('the client had closed the connection'))
  // Node keeps the headers for the first chunk, which may take long to come when the body is still arriving here.
  const cancelHeadersAlone = clock.after(headersAloneMs, () => response.flushHeaders())
  let sentBytes = 0
  const write: WriteChunk = (chunk) =>
    new Promise((resolve, reject) => {
      cancelHeadersAlone()
      if (gone.signal.aborted) {
        reject(gone.signal.reason as Error)
        return
      }
      if (sentBytes + chunk.byteLength > head.plan.contentLength) {
        reject(new Error('the source gives more than was announced'))
        return
      }
      onGone = () => reject(gone.signal.reason as Error)
      response.write(chunk, (error) => {
        onGone = undefined
        if (error === undefined || error === null) {
          sentBytes += chunk.byteLength
          resolve()
        } else {
          // Reset by the client, which may be known here before 'close' tells.
          gone.abort(error)
          reject(error)
        }
      })
    })
  let failure: unknown
  try {
    await send(write, AbortSignal.any([gone.signal, shutdown]))
  } catch (error) {
    failure = error
    // The body ends by FIN, whatever it was.
    surface('http_request', error)
  } finally {
    cancelHeadersAlone()
  }
  if (sentBytes === head.plan.contentLength) {
    response.end()
    return { outcome: 'complete', sentBytes }
  }
  if (gone.signal.aborted) return { outcome: 'client-gone', sentBytes }
  // Without them containerd has no body to resume.
  response.flushHeaders()
  const { socket } = response
  socket?.end()
  if (socket !== null) {
    const cancel = clock.after(finLingerMs, () => socket.destroy())
    socket.once('close', cancel)
  }
  return { outcome: 'broken', sentBytes, error: failure ?? new Error('the source ended early') }
}

/** The answer to HEAD. */
export function sendHead(reply: FastifyReply, head: ResponseHead): void {
  writeHead(reply, head).end()
}

function writeHead(reply: FastifyReply, head: ResponseHead): FastifyReply['raw'] {
  const { status, contentLength, contentRange } = head.plan
  reply.raw.writeHead(status, {
    'accept-ranges': 'bytes',
    'content-length': contentLength,
    'content-type': head.contentType,
    'docker-content-digest': head.digest,
    ...(head.arrivedBytes === undefined ? {} : { [arrivingHeader]: 'true', [hereHeader]: head.arrivedBytes }),
    ...(contentRange === undefined ? {} : { 'content-range': contentRange }),
  })
  // Only now: what throws before is answered by fastify.
  reply.hijack()
  return reply.raw
}
