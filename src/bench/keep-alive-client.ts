/**
 * A client that adds little to what it measures: one connection that is there already, one request at a time, and
 * no more of HTTP than the answers of our servers have.
 */
import { once } from 'node:events'
import { type Socket, connect } from 'node:net'

const answerTimeoutMs = 30_000
const headersEnd = '\r\n\r\n'

export interface Timing {
  status: number
  /** Until the first byte of the body, or the end of the headers if there is none. */
  firstByteMs: number
}

export class KeepAliveClient {
  readonly #socket: Socket
  readonly #host: string

  private constructor(socket: Socket, host: string) {
    this.#socket = socket
    this.#host = host
  }

  static async connect(ip: string, port: number): Promise<KeepAliveClient> {
    const socket = connect({ host: ip, port, noDelay: true })
    await once(socket, 'connect')
    return new KeepAliveClient(socket, `${ip}:${port}`)
  }

  /** Resolves when the whole answer is there. */
  ask(method: 'GET' | 'HEAD', path: string): Promise<Timing> {
    const socket = this.#socket
    return new Promise((resolve, reject) => {
      let [head, bodyBytes, firstByteMs] = ['', 0, 0]
      let expectedBytes: number | undefined
      const finish = (outcome: () => void) => {
        clearTimeout(timer)
        socket.off('data', onData)
        socket.off('close', onClose)
        outcome()
      }
      const fail = (reason: string) => finish(() => reject(new Error(`${method} ${path}: ${reason}`)))
      const timer = setTimeout(() => fail('no answer in time'), answerTimeoutMs)
      const onClose = () => fail('the connection was closed')
      const onData = (data: Buffer) => {
        let body = data.length
        if (expectedBytes === undefined) {
          head += data.toString('latin1')
          const end = head.indexOf(headersEnd)
          if (end === -1) return
          const length = /^content-length: *(\d+)/im.exec(head)?.[1]
          if (length === undefined) return fail('an answer without Content-Length')
          expectedBytes = method === 'HEAD' ? 0 : Number(length)
          body = head.length - end - headersEnd.length
        }
        bodyBytes += body
        if (firstByteMs === 0 && (bodyBytes > 0 || expectedBytes === 0)) firstByteMs = performance.now() - startedMs
        const status = Number(head.split(' ', 2)[1])
        if (bodyBytes >= expectedBytes) finish(() => resolve({ status, firstByteMs }))
      }
      socket.on('data', onData)
      socket.on('close', onClose)
      const request = `${method} ${path} HTTP/1.1\r\nHost: ${this.#host}\r\n\r\n`
      const startedMs = performance.now()
      socket.write(request)
    })
  }

  close(): void {
    this.#socket.destroy()
  }
}
