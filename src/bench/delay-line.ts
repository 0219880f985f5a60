/**
 * Distance between nodes on one machine: relays on the addresses that nodes are known by hand on every piece some
 * milliseconds later, to addresses that only they know. In user space and without root, where the kernel has no netem.
 * Connections are accepted at once; only what is sent over them comes late.
 */
import { once } from 'node:events'
import { type Server, type Socket, connect, createServer } from 'node:net'

export class DelayLine {
  readonly #delayMs: number
  readonly #servers: Server[] = []
  readonly #sockets = new Set<Socket>()

  constructor(delayMs: number) {
    this.#delayMs = delayMs
  }

  /** What arrives at `known` goes to `real`. */
  async relay(known: string, real: string, port: number): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
      const far = connect({ host: real, port, noDelay: true, allowHalfOpen: true })
      this.#pass(near, far)
      this.#pass(far, near)
    })
    server.listen(port, known)
    await once(server, 'listening')
    this.#servers.push(server)
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))))
  }

  #pass(from: Socket, to: Socket): void {
    this.#sockets.add(from)
    // Timers of one length fire in the order in which they were set.
    const later = (action: () => void) => void setTimeout(action, this.#delayMs)
    from.on('data', (data) => later(() => to.destroyed || to.write(data)))
    from.on('end', () => later(() => to.end()))
    from.on('error', () => undefined)
    from.on('close', () => {
      this.#sockets.delete(from)
      later(() => to.destroy())
    })
  }
}
