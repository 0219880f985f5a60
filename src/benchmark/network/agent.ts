/** `benchmark network serve`: the end that answers. It needs no rights, no disk, and no other program. */
import { randomBytes } from 'node:crypto'
import { type Socket as UdpSocket, createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { type HostPort, formatHostPort } from '../../lib/address.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import {
  agentPath,
  answerType,
  bodyBytesMax,
  connectionsMax,
  datagramBytesMax,
  datagramHeadBytes,
  datagramsPath,
  echoPath,
  getOperation,
  idleTimeoutMs,
  protocolName,
  requestHeadBytes,
  requestType,
  setAnswer,
  setOperation,
  sourcePath,
  streamLifeMaxMs,
  tokenBytes,
  valueBytes,
  valueKeys,
  valuesPath,
} from './protocol.ts'

export interface Agent {
  /** With the port that was taken. */
  address: HostPort
  /** Ends all connections. */
  close(): Promise<void>
}

/** Not compressible, in case something on the path compresses. */
const chunk = randomBytes(256 * 1024)

/** Host '' is every address, IPv6 and IPv4. Rejects with a UserError when the port cannot be had. */
export async function startAgent({ host, port }: HostPort, version: string): Promise<Agent> {
  const tokens = new Set<string>()
  const values = Buffer.alloc(valueKeys * valueBytes)
  const streams: Readonly<Record<string, (stream: Duplex) => void>> = {
    [echoPath]: echo,
    [sourcePath]: send,
    [valuesPath]: (stream) => serveValues(stream, values),
    [datagramsPath]: (stream) => giveToken(stream, tokens),
  }
  const server = createServer({ noDelay: true, requestTimeout: idleTimeoutMs }, (request, response) =>
    answer(request, response, version),
  )
  server.maxConnections = connectionsMax
  server.keepAliveTimeout = idleTimeoutMs
  server.on('upgrade', (request, stream, head) => {
    const serve = request.headers.upgrade === protocolName ? streams[request.url ?? ''] : undefined
    upgrade(stream, head, serve)
  })
  const sockets = new Set<Duplex>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  try {
    server.listen({ port, ...(host === '' ? {} : { host }) })
    await once(server, 'listening')
  } catch (error) {
    throw new UserError(`cannot listen on ${formatHostPort(host, port)}: ${errorMessage(error)}`)
  }
  const { port: taken, family } = server.address() as AddressInfo
  const datagrams = await bindDatagrams(host, taken, family, tokens).catch((error: unknown) => {
    server.close()
    throw new UserError(`cannot listen on UDP ${formatHostPort(host, taken)}: ${errorMessage(error)}`)
  })
  return {
    address: { host, port: taken },
    async close() {
      datagrams.close()
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

function answer(request: IncomingMessage, response: ServerResponse, version: string): void {
  const { method, url = '' } = request
  if (method !== 'GET') return refuse(response, 405)
  if (url === '/livez') return void response.writeHead(200, { 'content-length': 0 }).end()
  if (url === agentPath) {
    const { user, system } = process.cpuUsage()
    const body = JSON.stringify({ protocol: protocolName, version, cpuSeconds: (user + system) / 1e6 })
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
    return void response.writeHead(200, headers).end(body)
  }
  const size = /^\/bytes\/(\d{1,10})$/.exec(url)?.[1]
  if (size === undefined) return refuse(response, 404)
  if (Number(size) > bodyBytesMax) return refuse(response, 400)
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size })
  if (Number(size) <= chunk.length) return void response.end(chunk.subarray(0, Number(size)))
  response.setTimeout(idleTimeoutMs, () => response.destroy())
  let leftBytes = Number(size)
  const next = () => {
    const part = chunk.subarray(0, Math.min(leftBytes, chunk.length))
    leftBytes -= part.length
    if (leftBytes === 0) response.end(part)
    else response.write(part, (error) => (error ? response.destroy() : setImmediate(next)))
  }
  next()
}

function refuse(response: ServerResponse, status: number): void {
  response.writeHead(status, { 'content-length': 0 }).end()
}

function upgrade(stream: Duplex, head: Buffer, serve: ((stream: Duplex) => void) | undefined): void {
  stream.on('error', () => stream.destroy())
  if (serve === undefined) {
    stream.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    return
  }
  // A socket: it has a timeout, but Duplex does not say so.
  if ('setTimeout' in stream && typeof stream.setTimeout === 'function') {
    stream.setTimeout(idleTimeoutMs, () => stream.destroy())
  }
  const life = setTimeout(() => stream.destroy(), streamLifeMaxMs)
  stream.once('close', () => clearTimeout(life))
  stream.once('end', () => stream.destroy())
  stream.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocolName}\r\n\r\n`)
  serve(stream)
  if (head.length > 0) stream.unshift(head)
}

function echo(stream: Duplex): void {
  stream.on('data', (data: Buffer) => {
    if (stream.write(data)) return
    stream.pause()
    stream.once('drain', () => stream.resume())
  })
}

function send(stream: Duplex): void {
  stream.resume()
  // The kernel may take a chunk at once: the others have their turn before the next.
  const next = () => {
    stream.write(chunk, (error) => (error ? stream.destroy() : setImmediate(next)))
  }
  next()
}

/** One request after the other; a request may come in pieces, and several at once. */
function serveValues(stream: Duplex, values: Buffer): void {
  let rest: Buffer = Buffer.alloc(0)
  stream.on('data', (data: Buffer) => {
    rest = rest.length === 0 ? data : Buffer.concat([rest, data])
    for (;;) {
      const operation = rest[0]
      if (operation === undefined || rest.length < requestHeadBytes) return
      const length = operation === setOperation ? requestHeadBytes + valueBytes : requestHeadBytes
      if (rest.length < length) return
      const at = (rest.readUInt16BE(1) % valueKeys) * valueBytes
      let isTaken: boolean
      if (operation === setOperation) {
        rest.copy(values, at, requestHeadBytes, length)
        isTaken = stream.write(setAnswer)
      } else if (operation === getOperation) {
        isTaken = stream.write(values.subarray(at, at + valueBytes))
      } else {
        stream.destroy()
        return
      }
      rest = rest.subarray(length)
      // Who sends requests and takes no answers must not fill our memory.
      if (!isTaken && stream.writableLength > 16 * (requestHeadBytes + valueBytes)) {
        stream.pause()
        stream.once('drain', () => stream.resume())
      }
    }
  })
}

function giveToken(stream: Duplex, tokens: Set<string>): void {
  const token = randomBytes(tokenBytes)
  tokens.add(token.toString('latin1'))
  stream.once('close', () => tokens.delete(token.toString('latin1')))
  stream.resume()
  stream.write(token)
}

async function bindDatagrams(host: string, port: number, family: string, tokens: Set<string>): Promise<UdpSocket> {
  const socket = createSocket(family === 'IPv6' ? 'udp6' : 'udp4')
  socket.on('message', (message, from) => {
    const { length } = message
    if (length < datagramHeadBytes || length > datagramBytesMax || message[tokenBytes] !== requestType) return
    if (!tokens.has(message.toString('latin1', 0, tokenBytes))) return
    message[tokenBytes] = answerType
    socket.send(message, from.port, from.address, () => undefined)
  })
  socket.bind({ port, ...(host === '' ? {} : { address: host }) })
  await once(socket, 'listening')
  socket.on('error', () => undefined)
  return socket
}
