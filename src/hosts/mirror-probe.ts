/** Who answers at the address under which containerd reaches the mirror. Requests `/livez`, which needs no password. */
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { Clock } from '../lib/clock.ts'
import { errorCode, errorMessage } from '../lib/errors.ts'
import { instanceHeader } from '../lib/instance-header.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { mirrorProbeTimeoutMs, requestHeaderBytesMax } from '../limits.ts'

export interface ProbeResult {
  /**
   * `silent`: the connection was accepted, and no response came. `unreachable`: no connection, or a proxy says so (502 to
   * 504); the address may still be reachable from containerd's network namespace.
   */
  who: 'this_daemon' | 'other_daemon' | 'foreign' | 'silent' | 'unreachable'
  /** What was seen, for operators. */
  detail: string
}

/** `instance`: the value that this process sends. `stop` ends the probe. Never rejects. */
export async function probeMirror(
  target: string,
  { instance, clock, stop }: { instance: string; clock: Clock; stop: AbortSignal },
): Promise<ProbeResult> {
  using timeout = awakeTimeout(clock, mirrorProbeTimeoutMs)
  return await new Promise((resolve) => {
    let isConnected = false
    const request = target.startsWith('https:') ? httpsRequest : httpRequest
    const outgoing = request(
      new URL('/livez', target),
      {
        agent: false,
        signal: AbortSignal.any([timeout.signal, stop]),
        maxHeaderSize: requestHeaderBytesMax,
        // Nothing secret is sent, and the certificate of a proxy in front of the mirror is not ours to check.
        rejectUnauthorized: false,
      },
      ({ statusCode = 0, headers }) => {
        outgoing.destroy()
        resolve(judge(statusCode, headers[instanceHeader], instance))
      },
    )
    outgoing.once('socket', (socket) => socket.once('connect', () => (isConnected = true)))
    outgoing.on('error', (error) => resolve(judgeError(error, isConnected, timeout.signal.aborted)))
    outgoing.end()
  })
}

function judge(status: number, value: string | string[] | undefined, instance: string): ProbeResult {
  const detail = `it answers /livez with status ${status}`
  if (value === instance) return { who: 'this_daemon', detail }
  if (value !== undefined) return { who: 'other_daemon', detail: 'another spegel-ts daemon answers' }
  return { who: status >= 502 && status <= 504 ? 'unreachable' : 'foreign', detail }
}

function judgeError(error: Error, isConnected: boolean, isTimeout: boolean): ProbeResult {
  if (!isConnected) return { who: 'unreachable', detail: isTimeout ? 'no connection' : errorMessage(error) }
  if (isTimeout) return { who: 'silent', detail: `no response within ${mirrorProbeTimeoutMs} ms` }
  // The response is not HTTP.
  if (errorCode(error)?.startsWith('HPE_') === true) return { who: 'foreign', detail: errorMessage(error) }
  return { who: 'silent', detail: `the connection was closed without a response: ${errorMessage(error)}` }
}
