/** Answers to HTTP requests as a peer should not give them: arbitraries of fast-check. */
import type { Socket } from 'node:net'
import fc from 'fast-check'

export interface BadAnswer {
  /** For the message of a test that fails. */
  name: string
  /** `right` is the answer that an honest peer would give. */
  send: (socket: Socket, right: Buffer, content: Buffer) => void | Promise<void>
}

/** How an answer ends. A peer that leaves the connection open makes us wait: rare, so that a run ends in time. */
type Ending = 'end' | 'reset' | 'open'
const ending = fc.oneof(
  { weight: 24, arbitrary: fc.constant<Ending>('end') },
  { weight: 15, arbitrary: fc.constant<Ending>('reset') },
  { weight: 1, arbitrary: fc.constant<Ending>('open') },
)

function finish(socket: Socket, how: Ending): void {
  if (how === 'end') socket.end()
  if (how === 'reset') socket.resetAndDestroy()
}

const statusLine = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('HTTP/1.1 200 OK', 'HTTP/1.1 206 Partial Content') },
  fc.integer({ min: 0, max: 1_100 }).map((status) => `HTTP/1.1 ${status} X`),
  fc.constantFrom(
    'HTTP/1.1 100 Continue',
    'HTTP/1.1 101 Switching Protocols',
    'HTTP/1.1 103 Early Hints',
    'HTTP/1.1 204 X',
  ),
  fc.constantFrom(
    'HTTP/1.1 301 X\r\nLocation: /',
    'HTTP/1.1 304 X',
    'HTTP/1.1 429 X\r\nRetry-After: 9',
    'HTTP/1.1 503 X',
  ),
  fc.constantFrom(
    'HTTP/1.0 200 OK',
    'HTTP/2 200',
    'HTTP/1.1',
    'HTTP/1.1 200',
    'http/1.1 200 ok',
    'ICY 200 OK',
    'HTTP/1.1  200 OK',
    '200 OK',
  ),
  fc.string({ unit: 'binary-ascii', maxLength: 40 }),
)

const number = fc.oneof(
  fc.nat(200_000).map(String),
  fc.constantFrom(
    '0',
    '-1',
    '',
    '1e5',
    '0x10',
    '100000',
    '100000, 100000',
    '9007199254740993',
    '99999999999999999999',
    'NaN',
    ' 7',
    '1.5',
  ),
)

const headerLine = fc.oneof(
  { weight: 4, arbitrary: number.map((length) => `Content-Length: ${length}`) },
  {
    weight: 3,
    arbitrary: fc.tuple(number, number, number).map(([a, b, c]) => `Content-Range: bytes ${a}-${b}/${c}`),
  },
  fc.constantFrom(
    'Content-Range: bytes */100000',
    'Content-Range: bytes 0-99999/*',
    'Content-Range: x',
    'Content-Range:',
  ),
  fc.constantFrom(
    'Transfer-Encoding: chunked',
    'Transfer-Encoding: gzip, chunked',
    'Transfer-Encoding: x',
    'Content-Encoding: gzip',
  ),
  fc.constantFrom(
    'Connection: close',
    'Connection: keep-alive',
    'Connection: upgrade\r\nUpgrade: x',
    'Keep-Alive: timeout=0',
    'Trailer: x',
  ),
  fc.constantFrom(
    'Docker-Content-Digest: x',
    `Docker-Content-Digest: sha256:${'0'.repeat(64)}`,
    'Docker-Content-Digest:',
  ),
  fc.constantFrom(
    'Content-Type: \u0001',
    'Content-Type: a/b\r\nContent-Type: c/d',
    'Content-Type: a\u00ff/b',
    'no colon',
    ': x',
    ' folded',
  ),
  fc
    .tuple(fc.string({ maxLength: 10 }), fc.string({ unit: 'binary-ascii', maxLength: 30 }))
    .map(([name, value]) => `${name}: ${value}`),
)

/** Whatever headers, and behind them a beginning of the content. */
const anyHead = fc
  .tuple(statusLine, fc.array(headerLine, { maxLength: 5 }), fc.nat(120_000), ending)
  .map(([status, headers, bytes, how]): BadAnswer => {
    return {
      name: `${JSON.stringify([status, ...headers])} and ${bytes} bytes, ${how}`,
      send(socket, right, _content) {
        socket.write(
          Buffer.concat([
            Buffer.from(`${[status, ...headers].join('\r\n')}\r\n\r\n`, 'latin1'),
            rightBody(right).subarray(0, bytes),
          ]),
        )
        finish(socket, how)
      },
    }
  })

/** The right answer, but not all of it. */
const truncated = fc.tuple(fc.nat(100_300), ending).map(([bytes, how]): BadAnswer => ({
  name: `the first ${bytes} bytes of the right answer, ${how}`,
  send(socket, right) {
    socket.write(right.subarray(0, bytes))
    finish(socket, how)
  },
}))

/** The right answer, and more. */
const oversized = fc.tuple(fc.integer({ min: 1, max: 300_000 }), ending).map(([bytes, how]): BadAnswer => ({
  name: `the right answer and ${bytes} bytes more, ${how}`,
  send(socket, right) {
    socket.write(right)
    socket.write(Buffer.alloc(bytes, 'HTTP/1.1 200 OK\r\n\r\n'))
    finish(socket, how)
  },
}))

/** One header or the status of the right answer changed. */
const changed = fc
  .tuple(fc.constantFrom('content-length', 'content-range', 'docker-content-digest', 'HTTP/1.1'), number, ending)
  .map(([what, value, how]): BadAnswer => ({
    name: `the right answer with ${what} ${value}, ${how}`,
    send(socket, right) {
      const end = right.indexOf('\r\n\r\n')
      const lines = right.toString('latin1', 0, end).split('\r\n')
      const head = lines.map((line) =>
        line.startsWith(what) ? line.replace(/[ :].*$/, what === 'HTTP/1.1' ? ` ${value} X` : `: ${value}`) : line,
      )
      socket.write(Buffer.concat([Buffer.from(head.join('\r\n'), 'latin1'), right.subarray(end)]))
      finish(socket, how)
    },
  }))

const noise = fc.tuple(fc.uint8Array({ maxLength: 3_000 }), ending).map(([bytes, how]): BadAnswer => ({
  name: `${bytes.length} random bytes, ${how}`,
  send(socket) {
    socket.write(bytes)
    finish(socket, how)
  },
}))

const endlessHeaders = fc
  .constantFrom('X: y\r\n', 'x', '\r\n', 'HTTP/1.1 100 Continue\r\n\r\n')
  .map((piece): BadAnswer => ({
    name: `headers without end: ${JSON.stringify(piece)}`,
    send(socket) {
      const block = Buffer.from(piece.repeat(4_096))
      socket.write('HTTP/1.1 200 OK\r\n')
      const more = () => {
        for (let blocks = 0; blocks < 256; blocks++) if (socket.destroyed || !socket.write(block)) return
      }
      socket.on('drain', more)
      more()
    },
  }))

/** The right answer in drops, one in a turn of the event loop; it breaks off somewhere. */
const drip = fc
  .tuple(fc.integer({ min: 1, max: 700 }), fc.nat(3_000), ending)
  .map(([step, drops, how]): BadAnswer => ({
    name: `${drops} drops of ${step} bytes, ${how}`,
    async send(socket, right) {
      for (let at = 0; at < Math.min(right.length, step * drops) && !socket.destroyed; at += step) {
        socket.write(right.subarray(at, Math.min(at + step, step * drops)))
        await new Promise((resolve) => setImmediate(resolve))
      }
      finish(socket, how)
    },
  }))

export const badAnswer: fc.Arbitrary<BadAnswer> = fc.oneof(
  { weight: 6, arbitrary: anyHead },
  { weight: 4, arbitrary: truncated },
  { weight: 4, arbitrary: changed },
  oversized,
  noise,
  endlessHeaders,
  drip,
)

function rightBody(answer: Buffer): Buffer {
  return answer.subarray(answer.indexOf('\r\n\r\n') + 4)
}
