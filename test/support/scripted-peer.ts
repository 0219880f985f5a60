/**
 * DOUBLE of a peer, for what a real one does not do on command: break off, lie, stall. Speaks HTTP over a plain socket,
 * so that nothing between the script and the wire mends it.
 */
import { type Server, type Socket, createServer } from 'node:net'

export interface PeerRequest {
  method: string
  path: string
  headers: Record<string, string>
}

/** Writes the answer. The connection stays open for further requests unless the script ends it. */
export type PeerScript = (socket: Socket, request: PeerRequest) => void

export class ScriptedPeer {
  readonly requests: PeerRequest[] = []
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server) {
    this.#server = server
  }

  static async start(ip: string, port: number, script: PeerScript): Promise<ScriptedPeer> {
    const server = createServer()
    const peer = new ScriptedPeer(server)
    server.on('connection', (socket) => {
      peer.#sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => peer.#sockets.delete(socket))
      let text = ''
      socket.on('data', (data) => {
        text += data.toString('latin1')
        for (let end = text.indexOf('\r\n\r\n'); end >= 0; end = text.indexOf('\r\n\r\n')) {
          const request = parse(text.slice(0, end))
          text = text.slice(end + 4)
          peer.requests.push(request)
          script(socket, request)
        }
      })
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, ip, resolve)
    })
    return peer
  }

  /** Those who are connected notice nothing. */
  stopListening(): void {
    this.#server.close()
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

function parse(text: string): PeerRequest {
  const [first = '', ...lines] = text.split('\r\n')
  const [method = '', path = ''] = first.split(' ')
  const headers = Object.fromEntries(
    lines.map((line) => {
      const colon = line.indexOf(':')
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
    }),
  )
  return { method, path, headers }
}

/** The bytes of an answer with these headers; `content-length` is that of the body unless given. */
export function answer(
  status: number,
  headers: Record<string, string | number>,
  body: Uint8Array = Buffer.alloc(0),
): Buffer {
  const all = { 'content-length': body.length, ...headers }
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.concat([Buffer.from(`HTTP/1.1 ${status} X\r\n${head.join('')}\r\n`), body])
}

/** An honest answer to a GET or HEAD of this content, ranges included, with at most `bodyBytesMax` of the body. */
export function honest(request: PeerRequest, content: Buffer, digest: string, bodyBytesMax = Infinity): Buffer {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers['range'] ?? '')
  const first = Number(range?.[1] ?? 0)
  const last = range?.[2] ? Number(range[2]) : content.length - 1
  const body = content.subarray(first, last + 1)
  return answer(
    range === null ? 200 : 206,
    {
      'content-length': body.length,
      'docker-content-digest': digest,
      ...(range === null ? {} : { 'content-range': `bytes ${first}-${last}/${content.length}` }),
    },
    request.method === 'HEAD' ? Buffer.alloc(0) : body.subarray(0, bodyBytesMax),
  )
}
