/** An upstream that misbehaves on command: a proxy before the real registry, on the same host. */
import type { ChildProcess } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Host } from '../../testbed/network.ts'
import { end } from '../../testbed/process.ts'
import type { AccessLogEntry } from '../../testbed/registry-process.ts'
import type { UpstreamEntry } from './scene.ts'
import type { UpstreamControl } from './timeline.ts'

const program = fileURLToPath(new URL('./upstream-process.ts', import.meta.url))
const port = 5000

/** To the process, one of them. */
export interface UpstreamCommand {
  id: number
  start?: { ip: string; port: number; registryUrl: string; logPath: string }
  begin?: { key: number; entry: UpstreamEntry }
  /** The key of what is to end. */
  end?: number
}

export interface UpstreamAnswer {
  done: number
  error?: string
}

export class ScriptedUpstream implements UpstreamControl {
  /** What nodes are to ask. */
  readonly url: string
  readonly #child: ChildProcess
  readonly #logPath: string
  readonly #waiting = new Map<number, PromiseWithResolvers<void>>()
  #commands = 0

  private constructor(host: Host, folder: string) {
    this.url = `http://${host.ip}:${port}`
    this.#logPath = join(folder, 'scripted-upstream.log')
    this.#child = host.spawn(process.execPath, [program], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child.on('message', ({ done, error }: UpstreamAnswer) => {
      const waiting = this.#waiting.get(done)
      this.#waiting.delete(done)
      if (error === undefined) waiting?.resolve()
      else waiting?.reject(new Error(error))
    })
    this.#child.once('exit', (code, signal) => {
      for (const { reject } of this.#waiting.values()) {
        reject(new Error(`the scripted upstream ended with ${code ?? signal}`))
      }
      this.#waiting.clear()
    })
  }

  /** `registryUrl`: the real registry, on another port of the same host. Its log goes into the folder. */
  static async start(host: Host, registryUrl: string, folder: string): Promise<ScriptedUpstream> {
    await mkdir(folder, { recursive: true })
    const upstream = new ScriptedUpstream(host, folder)
    await upstream.#tell({ start: { ip: host.ip, port, registryUrl, logPath: upstream.#logPath } })
    return upstream
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('the scripted upstream does not run')
    return this.#child.pid
  }

  /** Resolves when the behaviour is in force, with how to end it. */
  async begin(entry: UpstreamEntry): Promise<() => Promise<void>> {
    const key = this.#commands + 1
    await this.#tell({ begin: { key, entry } })
    return () => this.#tell({ end: key })
  }

  /** Answers that have ended, probes excepted, as the registry's own log has them. Status 0: cut before any answer. */
  requests(): AccessLogEntry[] {
    const lines = readFileSync(this.#logPath, 'utf8').split('\n')
    // The last one may be half written.
    const entries = lines.slice(0, -1).map((line) => JSON.parse(line) as AccessLogEntry)
    return entries.filter(({ path }) => path !== '/v2/')
  }

  async stop(): Promise<void> {
    await end(this.#child)
  }

  async #tell(command: Omit<UpstreamCommand, 'id'>): Promise<void> {
    if (!this.#child.connected) throw new Error('the scripted upstream has ended')
    this.#commands += 1
    const id = this.#commands
    const waiting = Promise.withResolvers<void>()
    this.#waiting.set(id, waiting)
    this.#child.send({ id, ...command } satisfies UpstreamCommand)
    await waiting.promise
  }
}
