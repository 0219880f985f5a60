/** A TCP connection to an agent: made once, read into one buffer, ended by its signal. */
import { type Socket, connect } from 'node:net'
import { type HostPort, formatHostPort } from '../../lib/address.ts'
import { protocolName } from './protocol.ts'

const headersEnd = '\r\n\r\n'
const headersBytesMax = 4096

/** `bytes` are overwritten when the call returns. */
export type OnBytes = (bytes: Buffer) => void

export interface Connection {
  write(data: string | Uint8Array): void
  close(): void
  /** Rejects when the connection is lost; never resolves. */
  readonly lost: Promise<never>
}

export async function openConnection(
  address: HostPort,
  onBytes: OnBytes,
  signal: AbortSignal,
  bufferBytes = 64 * 1024,
): Promise<Connection> {
  signal.throwIfAborted()
  const buffer = Buffer.allocUnsafe(bufferBytes)
  const peer = formatHostPort(address.host, address.port)
  let isClosed = false
  let socket: Socket | undefined
  const lost = new Promise<never>((_resolve, reject) => {
    socket = connect({
      ...address,
      noDelay: true,
      signal,
      onread: {
        buffer,
        callback(length) {
          onBytes(buffer.subarray(0, length))
          return true
        },
      },
    })
    socket.on('error', reject)
    socket.on('close', () => {
      if (!isClosed) reject(new Error(`${peer} closed the connection`))
    })
  })
  // Whoever waits for an answer hears of it; nobody else needs to.
  lost.catch(() => undefined)
  const connected = socket
  if (connected === undefined) throw new Error('a promise runs its function at once')
  await Promise.race([new Promise<void>((resolve) => connected.once('connect', () => resolve())), lost])
  return {
    write: (data) => void connected.write(data),
    close() {
      isClosed = true
      connected.destroy()
    },
    lost,
  }
}

/** The same, turned into a stream of bytes by Upgrade. */
export async function openStream(
  address: HostPort,
  path: string,
  onBytes: OnBytes,
  signal: AbortSignal,
  bufferBytes?: number,
): Promise<Connection> {
  let head: string | undefined = ''
  let resolveHead: () => void = () => undefined
  let rejectHead: (error: Error) => void = () => undefined
  const answered = new Promise<void>((resolve, reject) => ([resolveHead, rejectHead] = [resolve, reject]))
  const connection = await openConnection(
    address,
    (bytes) => {
      if (head === undefined) return onBytes(bytes)
      head += bytes.toString('latin1')
      const end = head.indexOf(headersEnd)
      if (end === -1) {
        if (head.length > headersBytesMax) rejectHead(new Error('endless headers'))
        return
      }
      if (!head.startsWith('HTTP/1.1 101 ')) {
        rejectHead(new Error(`${path}: ${head.split('\r\n', 1)[0]}`))
        return
      }
      const body = Buffer.from(head.slice(end + headersEnd.length), 'latin1')
      head = undefined
      resolveHead()
      if (body.length > 0) onBytes(body)
    },
    signal,
    bufferBytes,
  )
  try {
    connection.write(
      `GET ${path} HTTP/1.1\r\nHost: ${formatHostPort(address.host, address.port)}\r\nConnection: Upgrade\r\nUpgrade: ${protocolName}\r\n\r\n`,
    )
    await Promise.race([answered, connection.lost])
  } catch (error) {
    connection.close()
    throw error
  }
  return connection
}
