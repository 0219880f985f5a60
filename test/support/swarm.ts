/** A swarm of daemons spread over several processes. */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { SwarmAnswer, SwarmCommand } from './swarm-process.ts'

const program = fileURLToPath(new URL('./swarm-process.ts', import.meta.url))

type Request = SwarmCommand extends infer Command ? (Command extends unknown ? Omit<Command, 'id'> : never) : never

export class Swarm {
  readonly #children: ChildProcess[] = []
  readonly #waiting = new Map<number, { resolve: () => void; reject: (error: Error) => void }>()
  readonly #homes = new Map<string, ChildProcess>()
  #commands = 0

  constructor(processes: number) {
    for (let index = 0; index < processes; index++) {
      const child = fork(program, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
      child.on('message', (answer: SwarmAnswer) => {
        const waiting = this.#waiting.get(answer.id)
        this.#waiting.delete(answer.id)
        if (answer.error === undefined) waiting?.resolve()
        else waiting?.reject(new Error(answer.error))
      })
      this.#children.push(child)
    }
  }

  /** Starts a daemon that has blobs with these contents, in the next of the processes. */
  async start(ip: string, firstPeer: string, contents: string[]): Promise<void> {
    const home = this.#homes.get(ip) ?? this.#children[this.#homes.size % this.#children.length]
    if (home === undefined) throw new Error('no process')
    this.#homes.set(ip, home)
    await this.#send({ command: 'start', ip, firstPeer, contents })
  }

  async stop(ip: string): Promise<void> {
    await this.#send({ command: 'stop', ip })
  }

  async close(): Promise<void> {
    await Promise.all(
      this.#children.map((child) => {
        const ended = new Promise((resolve) => child.once('exit', resolve))
        child.disconnect()
        return ended
      }),
    )
  }

  #send(request: Request): Promise<void> {
    const home = this.#homes.get(request.ip)
    this.#commands += 1
    const id = this.#commands
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      home?.send({ id, ...request })
    })
  }
}
