/** One question at a time, four kinds: bytes that come back, datagrams that come back, values, bodies over HTTP. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { isIP } from 'node:net'
import { type HostPort, formatHostPort } from '../../lib/address.ts'
import { type Connection, openConnection, openStream } from './connection.ts'
import {
  answerType,
  bytesPath,
  datagramHeadBytes,
  datagramsPath,
  echoPath,
  getOperation,
  requestHeadBytes,
  requestType,
  setAnswer,
  setOperation,
  tokenBytes,
  valueBytes,
  valueKeys,
  valuesPath,
} from './protocol.ts'

/** What asks an agent, one question at a time. */
export interface Asker {
  /** Calls back when the whole answer is there. Never called while an answer is awaited. */
  ask(answered: () => void): void
  close(): void
  /** Rejects when no answer will come any more; never resolves. */
  readonly lost: Promise<never>
}

export type OpenAsker = (address: HostPort, signal: AbortSignal) => Promise<Asker>

/** A datagram without an answer for so long is lost, and the next is sent. */
const datagramTimeoutMs = 500
/** After so many in a row, UDP does not pass at all. */
const lostInARowMax = 5

export function echoAsker(bytes: number): OpenAsker {
  return async (address, signal) => {
    const message = Buffer.alloc(bytes, 'x')
    let [received, answered] = [0, nobody]
    const connection = await openStream(
      address,
      echoPath,
      ({ length }) => {
        received += length
        if (received < bytes) return
        received = 0
        answered()
      },
      signal,
    )
    return asker(connection, (callback) => {
      answered = callback
      connection.write(message)
    })
  }
}

export function setAsker(random: () => number): OpenAsker {
  return (address, signal) => {
    const message = Buffer.alloc(requestHeadBytes + valueBytes, 'v')
    message[0] = setOperation
    return openValues(address, signal, message, setAnswer.length, random)
  }
}

export function getAsker(random: () => number): OpenAsker {
  return (address, signal) => {
    const message = Buffer.alloc(requestHeadBytes)
    message[0] = getOperation
    return openValues(address, signal, message, valueBytes, random)
  }
}

async function openValues(
  address: HostPort,
  signal: AbortSignal,
  message: Buffer,
  answerBytes: number,
  random: () => number,
): Promise<Asker> {
  let [received, answered] = [0, nobody]
  const connection = await openStream(
    address,
    valuesPath,
    ({ length }) => {
      received += length
      if (received < answerBytes) return
      received = 0
      answered()
    },
    signal,
  )
  return asker(connection, (callback) => {
    answered = callback
    message.writeUInt16BE(Math.floor(random() * valueKeys), 1)
    // A copy: the kernel may take the bytes only after the next message is written.
    connection.write(Buffer.from(message))
  })
}

/** Knows when the first byte of the last body came. */
export interface HttpAsker extends Asker {
  firstByteMs: number
}

export function httpAsker(
  bodyBytes: number,
  bufferBytes?: number,
): (address: HostPort, signal: AbortSignal) => Promise<HttpAsker> {
  return async (address, signal) => {
    const request = `GET ${bytesPath}${bodyBytes} HTTP/1.1\r\nHost: ${formatHostPort(address.host, address.port)}\r\n\r\n`
    let fail: (error: Error) => void = nobody
    const refused = new Promise<never>((_resolve, reject) => (fail = reject))
    refused.catch(() => undefined)
    let [head, missing, answered] = ['', -1, nobody]
    const connection = await openConnection(
      address,
      (bytes) => {
        let { length } = bytes
        if (missing < 0) {
          const before = head.length
          head += bytes.toString('latin1')
          const end = head.indexOf('\r\n\r\n')
          if (end === -1) return
          const size = /^HTTP\/1\.1 200 .*?^content-length: *(\d+)/ims.exec(head)?.[1]
          if (Number(size) !== bodyBytes) return fail(new Error(`GET ${bytesPath}${bodyBytes}: ${head.slice(0, 80)}`))
          opened.firstByteMs = performance.now()
          missing = bodyBytes
          length -= end + 4 - before
          head = ''
        }
        missing -= length
        if (missing > 0) return
        missing = -1
        answered()
      },
      signal,
      bufferBytes,
    )
    const opened: HttpAsker = {
      firstByteMs: 0,
      ask(callback) {
        answered = callback
        connection.write(request)
      },
      close: () => connection.close(),
      lost: Promise.race([connection.lost, refused]),
    }
    opened.lost.catch(() => undefined)
    return opened
  }
}

export interface DatagramAsker extends Asker {
  lostDatagrams: number
}

export function datagramAsker(bytes: number): (address: HostPort, signal: AbortSignal) => Promise<DatagramAsker> {
  return async (address, signal) => {
    const session = await openSession(address, signal)
    const socket = createSocket({ type: isIP(address.host) === 6 ? 'udp6' : 'udp4', signal })
    let fail: (error: Error) => void = nobody
    const silent = new Promise<never>((_resolve, reject) => (fail = reject))
    silent.catch(() => undefined)
    socket.on('error', (error) => fail(error))
    socket.connect(address.port, address.host)
    await Promise.race([once(socket, 'connect'), silent, session.connection.lost])
    const message = Buffer.alloc(Math.max(bytes, datagramHeadBytes), 'x')
    session.token.copy(message)
    message[tokenBytes] = requestType
    let [sequence, lostInARow, answered] = [0, 0, nobody]
    let timer: NodeJS.Timeout | undefined
    const send = () => {
      sequence = (sequence + 1) % 2 ** 32
      message.writeUInt32BE(sequence, tokenBytes + 1)
      timer?.refresh()
      timer ??= setTimeout(onTimeout, datagramTimeoutMs)
      socket.send(message)
    }
    const onTimeout = () => {
      if (answered === nobody) return
      opened.lostDatagrams += 1
      lostInARow += 1
      if (lostInARow < lostInARowMax) return send()
      fail(
        new Error(
          `UDP ${formatHostPort(address.host, address.port)}: ${lostInARow} datagrams without an answer: is it filtered, or does another agent get them?`,
        ),
      )
    }
    socket.on('message', (data) => {
      if (data.length !== message.length || data[tokenBytes] !== answerType) return
      // A late answer to a datagram that counts as lost.
      if (data.readUInt32BE(tokenBytes + 1) !== sequence) return
      lostInARow = 0
      const callback = answered
      answered = nobody
      callback()
    })
    const opened: DatagramAsker = {
      lostDatagrams: 0,
      ask(callback) {
        answered = callback
        send()
      },
      close() {
        clearTimeout(timer)
        session.connection.close()
        // Its signal closes it too.
        if (!signal.aborted) socket.close()
      },
      lost: Promise.race([session.connection.lost, silent]),
    }
    opened.lost.catch(() => undefined)
    return opened
  }
}

/** The stream that allows datagrams, and the token that they must carry. */
async function openSession(
  address: HostPort,
  signal: AbortSignal,
): Promise<{ connection: Connection; token: Buffer }> {
  let token = Buffer.alloc(0)
  let complete: () => void = nobody
  const given = new Promise<void>((resolve) => (complete = resolve))
  const connection = await openStream(
    address,
    datagramsPath,
    (bytes) => {
      token = Buffer.concat([token, bytes])
      if (token.length >= tokenBytes) complete()
    },
    signal,
  )
  await Promise.race([given, connection.lost])
  return { connection, token: token.subarray(0, tokenBytes) }
}

function asker(connection: Connection, ask: (answered: () => void) => void): Asker {
  return { ask, close: () => connection.close(), lost: connection.lost }
}

function nobody(): void {
  // Nothing is awaited.
}
