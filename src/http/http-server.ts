/**
 * Node's HTTP server with bounds that Node leaves open:
 * - Pipelining. Node starts all requests of a connection at once, and a response that has not had its turn when the
 *   connection breaks is never closed: what was opened for it stays open. Here one request runs at a time, few wait.
 * - Bodies. Nobody has a reason to send one. Node would read it to its end, however long, to keep the connection.
 * - Clients. Each address has a share of the connections (`connection-shares.ts`). A client that reads nothing is disconnected,
 *   after a shorter time if it is not on this node.
 * - Garbage behind a request. The answer to it would be written into the body that is being sent.
 */
import {
  type IncomingMessage,
  type RequestListener,
  STATUS_CODES,
  type Server,
  type ServerResponse,
  createServer,
} from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  keepAliveTimeoutMs,
  pipelinedRequestsMax,
  requestHeaderBytesMax,
  requestHeadersTimeoutMs,
  clientStallTimeoutMs,
  peerStallTimeoutMs,
} from '../limits.ts'
import { type ConnectionLimits, ConnectionShares } from './connection-shares.ts'

interface Turn {
  response: ServerResponse
  start: () => void
}

/** Of a connection with a request that is being answered. */
interface Line {
  waiting: Turn[]
  /** What came behind these requests was no HTTP: after them the connection ends. */
  last: boolean
}

export function createHttpServer(listener: RequestListener, limits: ConnectionLimits): Server {
  const lines = new WeakMap<Duplex, Line>()
  const shares = new ConnectionShares(limits, (socket) => !lines.has(socket))
  const server = createServer(
    {
      maxHeaderSize: requestHeaderBytesMax,
      headersTimeout: requestHeadersTimeoutMs,
      keepAliveTimeout: keepAliveTimeoutMs,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => {
      if (hasBody(request)) response.shouldKeepAlive = false
      if (!limits.isOwnNode(request.socket.remoteAddress)) request.socket.setTimeout(peerStallTimeoutMs)
      takeTurn(lines, request.socket, { response, start: () => listener(request, response) })
    },
  )
  server.on('connection', (socket: Socket) => void shares.admit(socket))
  server.setTimeout(clientStallTimeoutMs)
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    const line = lines.get(socket)
    if (line === undefined) refuse(error, socket)
    else line.last = true
  })
  return server
}

/** For fastify, which wants to answer such clients itself: it is done above. */
export function leaveClientError(): void {}

function takeTurn(lines: WeakMap<Duplex, Line>, socket: Socket, turn: Turn): void {
  // Read along with what closed the connection.
  if (!socket.writable) return
  const line = lines.get(socket)
  if (line === undefined) {
    lines.set(socket, { waiting: [], last: false })
    run(lines, socket, turn)
  } else if (line.waiting.length < pipelinedRequestsMax) {
    line.waiting.push(turn)
  } else {
    socket.destroy()
  }
}

function run(lines: WeakMap<Duplex, Line>, socket: Socket, turn: Turn): void {
  turn.response.once('close', () => {
    const line = lines.get(socket)
    const next = line?.waiting.shift()
    if (next !== undefined && socket.writable) {
      run(lines, socket, next)
      return
    }
    lines.delete(socket)
    if (line?.last === true) socket.destroySoon()
  })
  turn.start()
}

function refuse({ code }: NodeJS.ErrnoException, socket: Socket): void {
  const status = code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : code === 'HPE_HEADER_OVERFLOW' ? 431 : 400
  // It is being ended already: more garbage came before the first answer was taken. Each call would add a listener.
  if (!socket.writable) return
  socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
  socket.destroySoon()
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}
