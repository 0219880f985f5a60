/** Routers spread over several processes, as seen by the benchmark that commands them. */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { cpuSeconds } from '../testbed/process-usage.ts'
import type { MemberAnswer, MemberCommand } from './swarm-member.ts'
import { type Workplace, routerPort } from './workplace.ts'

const program = fileURLToPath(new URL('./swarm-member.ts', import.meta.url))

type Request = MemberCommand extends infer Command ? (Command extends unknown ? Omit<Command, 'id'> : never) : never

export class SwarmMembers {
  readonly ips: readonly string[]
  readonly #children: ChildProcess[]
  readonly #waiting = new Map<number, { resolve: (answer: MemberAnswer) => void; reject: (error: Error) => void }>()
  #commands = 0

  private constructor(ips: readonly string[], processes: number) {
    this.ips = ips
    this.#children = Array.from({ length: processes }, () => {
      const child = fork(program, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
      child.on('message', (answer: MemberAnswer) => {
        const waiting = this.#waiting.get(answer.id)
        this.#waiting.delete(answer.id)
        if (answer.error === undefined) waiting?.resolve(answer)
        else waiting?.reject(new Error(answer.error))
      })
      child.once('exit', () => {
        for (const { reject } of this.#waiting.values()) reject(new Error('a process of the swarm ended'))
        this.#waiting.clear()
      })
      return child
    })
  }

  /** Resolves when everybody has been started and knows this many others. */
  static async start(workplace: Workplace, count: number, processes: number, peers: number): Promise<SwarmMembers> {
    const ips = Array.from({ length: count }, (_, index) => workplace.address(index + 1))
    const members = new SwarmMembers(ips, processes)
    try {
      await members.all((ip) => ({ command: 'start', ip, firstPeer: workplace.address(1), port: routerPort }))
      await members.all((ip) => ({ command: 'wait', ip, peers, records: 0 }))
      return members
    } catch (error) {
      await members.close()
      throw error
    }
  }

  /** The same question to everybody at once, answers in the order of `ips`. */
  all(request: (ip: string, index: number) => Request): Promise<MemberAnswer[]> {
    return Promise.all(this.ips.map((ip, index) => this.send(request(ip, index))))
  }

  send(request: Request): Promise<MemberAnswer> {
    const child = this.#children[this.ips.indexOf(request.ip) % this.#children.length]
    this.#commands += 1
    const id = this.#commands
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      child?.send({ id, ...request })
    })
  }

  cpuSeconds(): number {
    return this.#children.reduce((sum, { pid }) => sum + (pid === undefined ? 0 : cpuSeconds(pid)), 0)
  }

  async close(): Promise<void> {
    await Promise.all(
      this.#children.map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const ended = new Promise((resolve) => child.once('exit', resolve))
        if (child.connected) child.disconnect()
        await ended
      }),
    )
  }
}
