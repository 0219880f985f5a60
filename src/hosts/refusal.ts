/** Whether an upstream refuses connections at this moment. Nothing is sent to it. */
import { connect } from 'node:net'
import { upstreamConnectTimeoutMs } from '../limits.ts'

/** Of the machine itself, or of who is in front of it: the service is not there. Silence and other failures say nothing. */
const refusals = new Set(['ECONNREFUSED', 'ECONNRESET', 'EHOSTUNREACH'])

/** `origin`: scheme and host, as `https://registry.example:5000`. False when it is not known within the time. */
export function refusesConnections(origin: string, timeoutMs = upstreamConnectTimeoutMs): Promise<boolean> {
  const { hostname, port, protocol } = new URL(origin)
  return new Promise((resolve) => {
    const socket = connect({
      // An IPv6 address has brackets in a URL only.
      host: hostname.replace(/^\[(.*)\]$/, '$1'),
      port: port === '' ? (protocol === 'http:' ? 80 : 443) : Number(port),
      timeout: timeoutMs,
    })
    const end = (refuses: boolean) => {
      socket.destroy()
      resolve(refuses)
    }
    socket.once('connect', () => end(false))
    socket.once('timeout', () => end(false))
    socket.on('error', (error: NodeJS.ErrnoException) => end(refusals.has(error.code ?? '')))
  })
}
