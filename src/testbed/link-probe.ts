/** A process that sends zeros to whoever connects (`serve PORT`), or measures what arrives (`fetch HOST PORT`). */
import { connect, createServer } from 'node:net'

/** The shapers' buckets are emptied before the clock starts. */
const warmUpMs = 500
const measureMs = 2_000

const [role, ...args] = process.argv.slice(2)
if (role === 'serve') serve(Number(args[0]))
else fetch(args[0] ?? '', Number(args[1]))

function serve(port: number): void {
  const zeros = Buffer.alloc(256 * 1024)
  const server = createServer((socket) => {
    const fill = () => {
      while (socket.writable && socket.write(zeros));
    }
    socket.on('drain', fill)
    socket.on('error', () => undefined)
    fill()
  })
  server.listen(port, () => process.stdout.write('listening\n'))
}

function fetch(host: string, port: number): void {
  const socket = connect(port, host)
  let receivedBytes = 0
  socket.on('data', (data) => (receivedBytes += data.length))
  setTimeout(() => {
    const [startedMs, startBytes] = [performance.now(), receivedBytes]
    setTimeout(() => {
      process.stdout.write(String(((receivedBytes - startBytes) * 1000) / (performance.now() - startedMs)))
      socket.destroy()
    }, measureMs)
  }, warmUpMs)
}
