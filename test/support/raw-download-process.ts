/** Runs as a child process in a host's network: one GET over a plain socket, told over IPC, which says what it sees. */
import { createHash } from 'node:crypto'
import { connect } from 'node:net'
import type { DownloadMessage, DownloadOrder } from './raw-download.ts'

process.on('message', (order: DownloadOrder) => {
  if (order === 'go on') socket?.resume()
  else start(order)
})
process.on('disconnect', () => process.exit())

let socket: ReturnType<typeof connect> | undefined

function start({ url, method, headers, pauseAfterBytes }: Exclude<DownloadOrder, 'go on'>): void {
  const { hostname, port, pathname, search } = new URL(url)
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const startedMs = performance.now()
  const hash = createHash('sha256')
  let [head, bytes, headMs, firstByteMs] = ['', 0, 0, 0]
  let wanted = Infinity
  let isPaused = false
  let error = ''
  socket = connect(Number(port), hostname)
  socket.write(`${method} ${pathname}${search} HTTP/1.1\r\nHost: x\r\n${lines.join('')}\r\n`)
  socket.on('data', (data: Buffer) => {
    let body = data
    if (headMs === 0) {
      head += data.toString('latin1')
      const end = head.indexOf('\r\n\r\n')
      if (end < 0) return
      headMs = performance.now() - startedMs
      body = Buffer.from(head.slice(end + 4), 'latin1')
      head = head.slice(0, end)
      wanted = method === 'HEAD' ? 0 : Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0)
      say({ seen: 'head' })
    }
    if (body.length > 0 && bytes === 0) {
      firstByteMs = performance.now() - startedMs
      say({ seen: 'body' })
    }
    hash.update(body)
    bytes += body.length
    if (bytes >= wanted) socket?.end()
    else if (!isPaused && pauseAfterBytes !== undefined && bytes >= pauseAfterBytes) {
      isPaused = true
      socket?.pause()
    }
  })
  socket.on('error', (reason: NodeJS.ErrnoException) => (error = reason.code ?? reason.message))
  socket.on('close', () => {
    const status = Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1] ?? 0)
    const sha256 = hash.digest('hex')
    const totalMs = performance.now() - startedMs
    say({ done: { status, head, bytes, sha256, headMs, firstByteMs, totalMs, error, isWhole: bytes >= wanted } })
  })
}

function say(message: DownloadMessage): void {
  process.send?.(message)
}
