/**
 * A GET to the real registry whose body is read into one buffer, over and over: that costs a fraction of what an HTTP
 * client takes, and the machine is that of the nodes that are measured. HTTP/1.0, so that a body ends with its
 * connection.
 */
import { type Socket, connect } from 'node:net'

const bufferBytes = 256 * 1024
const headEnd = '\r\n\r\n'

export interface RegistryGet {
  ip: string
  port: number
  path: string
  /** Names and values in turn. */
  rawHeaders: readonly string[]
}

export class RegistryBody {
  statusCode = 0
  statusMessage = ''
  /** Names and values in turn. */
  rawHeaders: string[] = []
  readonly #socket: Socket
  #piece: Buffer | undefined
  #afterHead = Buffer.alloc(0)
  #isClosed = false
  #wake: () => void = () => undefined

  private constructor({ ip, port }: RegistryGet) {
    const buffer = Buffer.allocUnsafeSlow(bufferBytes)
    const onBytes = (bytes: number) => {
      this.#piece = buffer.subarray(0, bytes)
      this.#wake()
      // Until this piece is used up.
      return false
    }
    this.#socket = connect({ host: ip, port, onread: { buffer, callback: onBytes } })
    // Told by what is missing.
    this.#socket.on('error', () => undefined)
    this.#socket.once('close', () => {
      this.#isClosed = true
      this.#wake()
    })
  }

  /** Resolves with the head. Rejects when there is none, or the signal is aborted, which ends the body as well. */
  static async open(get: RegistryGet, signal: AbortSignal): Promise<RegistryBody> {
    signal.throwIfAborted()
    const body = new RegistryBody(get)
    signal.addEventListener('abort', () => body.#socket.destroy(), { once: true })
    const lines: string[] = []
    for (let index = 0; index < get.rawHeaders.length; index += 2) {
      lines.push(`${get.rawHeaders[index]}: ${get.rawHeaders[index + 1]}\r\n`)
    }
    body.#socket.write(`GET ${get.path} HTTP/1.0\r\n${lines.join('')}\r\n`, 'latin1')
    await body.#readHead()
    return body
  }

  /** Of a header, empty when there is none. */
  header(name: string): string {
    const index = this.rawHeaders.findIndex((each, at) => at % 2 === 0 && each.toLowerCase() === name)
    return index < 0 ? '' : (this.rawHeaders[index + 1] ?? '')
  }

  /** Each piece is good until the next is asked for. Rejects when the registry breaks off. */
  async *pieces(): AsyncGenerator<Buffer> {
    try {
      let leftBytes = Number(this.header('content-length') || Infinity)
      for (let piece: Buffer | undefined = this.#afterHead; piece !== undefined; piece = await this.#next()) {
        leftBytes -= piece.length
        if (piece.length > 0) yield piece
      }
      if (leftBytes > 0 && leftBytes !== Infinity) throw new Error('the registry broke off')
    } finally {
      this.#socket.destroy()
    }
  }

  async #readHead(): Promise<void> {
    let read = Buffer.alloc(0)
    for (;;) {
      const piece = await this.#next()
      if (piece === undefined) throw new Error('the registry does not answer')
      read = Buffer.concat([read, piece])
      const end = read.indexOf(headEnd)
      if (end < 0) continue
      const [first = '', ...lines] = read.toString('latin1', 0, end).split('\r\n')
      const [, code, message = ''] = /^HTTP\/1\.[01] (\d{3}) ?(.*)$/.exec(first) ?? []
      this.statusCode = Number(code)
      this.statusMessage = message
      for (const line of lines) {
        const colon = line.indexOf(':')
        this.rawHeaders.push(line.slice(0, colon), line.slice(colon + 1).trim())
      }
      this.#afterHead = read.subarray(end + headEnd.length)
      return
    }
  }

  /** Undefined at the end. */
  async #next(): Promise<Buffer | undefined> {
    this.#piece = undefined
    this.#socket.resume()
    while (this.#piece === undefined && !this.#isClosed) {
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    return this.#piece
  }
}
