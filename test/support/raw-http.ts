/** A client that sends any bytes whatever to an HTTP server, and takes the answers apart. */
import { type Socket, connect } from 'node:net'

export interface Conversation {
  /** Sent one after the other, each in a packet of its own as far as the kernel allows. */
  pieces: readonly Buffer[]
  /** What the client does when all is sent: wait for the server to close, close its own side, or leave at once. */
  ending: 'wait' | 'half-close' | 'reset'
  /** How long to wait for more; long where the server closes by itself. */
  patienceMs?: number
}

/** An end of a request that never came: the server waits for it, rightly, and nothing else tells. */
const shortPatienceMs = 250

/** Everything that the server said until one of the two closed. */
export async function converse(ip: string, port: number, conversation: Conversation): Promise<Buffer> {
  const socket = connect(port, ip)
  const received: Buffer[] = []
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  // A reset is for the server to decide when what it got is no HTTP.
  socket.on('error', () => undefined)
  socket.on('data', (data) => received.push(data))
  for (const piece of conversation.pieces) await sent(socket, piece)
  if (conversation.ending === 'reset') socket.resetAndDestroy()
  if (conversation.ending === 'half-close') socket.end()
  const timer = setTimeout(() => socket.destroy(), conversation.patienceMs ?? shortPatienceMs)
  socket.on('data', () => timer.refresh())
  await closed
  clearTimeout(timer)
  return Buffer.concat(received)
}

function sent(socket: Socket, piece: Buffer): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed) resolve()
    else socket.write(piece, () => resolve())
    socket.once('close', () => resolve())
  })
}

export interface Answer {
  status: number
  headers: Map<string, string>
  /** As far as it came; nothing for HEAD. */
  body: Buffer
}

/** Node itself answers an `Expect` that it does not know by an empty body in chunks; nobody else uses them. */
const emptyChunks = '0\r\n\r\n'.length

/** Answers in the order in which they came. Throws when there is something between them. */
export function takeApart(bytes: Buffer): Answer[] {
  const answers: Answer[] = []
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf('\r\n\r\n', at)
    if (end < 0) break
    const [first = '', ...lines] = bytes.toString('latin1', at, end).split('\r\n')
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first)?.[1])
    if (Number.isNaN(status)) throw new Error(`not an answer: ${JSON.stringify(first.slice(0, 200))}`)
    const headers = new Map(
      lines.map((line) => {
        const colon = line.indexOf(':')
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
      }),
    )
    at = end + 4
    // No body in sight: that was a HEAD, whose Content-Length is of what would have come.
    const isNext = bytes.toString('latin1', at, at + 9) === 'HTTP/1.1 '
    const chunked = headers.get('transfer-encoding') === 'chunked'
    const length = isNext || status < 200 ? 0 : chunked ? emptyChunks : Number(headers.get('content-length') ?? 0)
    answers.push({ status, headers, body: bytes.subarray(at, at + length) })
    at += length
  }
  return answers
}
