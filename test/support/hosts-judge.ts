/** Judges certs.d trees with containerd's own loader: one process of `test/hosts-judge` per containerd release. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type Interface, createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { type JudgedContainerd, prepareHostsJudges } from '../../src/testbed/tools.ts'

/** A registry host as containerd would use it; fields as in `test/hosts-judge/main.go`. */
export interface JudgedHost {
  scheme: string
  /** With port. */
  host: string
  path: string
  capabilities: string[]
  header?: Record<string, string[]>
  authHeader?: Record<string, string[]>
  httpFallback?: boolean
  skipVerify?: boolean
  /** Absent: the system's CAs. Otherwise hashes of the certificates added to them. */
  cas?: string[]
  clientCertificates?: string[]
  dialTimeoutMs: number
}

/** What containerd's loader yields for one registry name: an error, a panic, or the hosts in the order of use. */
export interface Verdict {
  error?: string
  panic?: string
  hosts: JudgedHost[] | null
  /** JSON lines that containerd would log meanwhile. */
  logs?: string[]
}

export interface TreeEntry {
  type: string
  mode: number
  uid: number
  gid: number
  /** Seconds and nanoseconds, separated by a dot. */
  mtime: string
  to?: string
  /** Base64. */
  bytes?: string
  xattrs?: Record<string, string>
}

/** A file operation on a tree; fields as in `test/hosts-judge/tree.go`. */
export interface TreeStep {
  op: 'directory' | 'file' | 'append' | 'replace' | 'link' | 'hardlink' | 'fifo' | 'remove' | 'touch'
  path: string
  to?: string
  bytes?: string
  mode?: number
  uid?: number
  gid?: number
  mtime?: { seconds: number; nanoseconds: number }
  xattrs?: Record<string, string>
}

type Answer = { failed?: string; verdicts?: Record<string, Verdict>; entries?: Record<string, TreeEntry> }

export class HostsJudge {
  readonly version: JudgedContainerd
  readonly #process: ChildProcessByStdio<Writable, Readable, null>
  readonly #lines: Interface
  readonly #waiting: { resolve: (line: string) => void; reject: (error: Error) => void }[] = []

  private constructor(version: JudgedContainerd, program: string) {
    this.version = version
    this.#process = spawn(program, [], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#lines = createInterface({ input: this.#process.stdout })
    this.#lines.on('line', (line) => this.#waiting.shift()?.resolve(line))
    this.#process.once('exit', (code, signal) => {
      const error = new Error(`hosts-judge ${version} exited with ${code ?? signal}`)
      for (const { reject } of this.#waiting.splice(0)) reject(error)
    })
  }

  /** One judge per release, oldest first. Builds them if needed. */
  static async startAll(): Promise<HostsJudge[]> {
    const programs = await prepareHostsJudges((line) => process.stderr.write(`${line}\n`))
    return [...programs].map(([version, program]) => new HostsJudge(version, program))
  }

  /** `root`: certs.d. */
  async judge(root: string, registries: readonly string[]): Promise<Map<string, Verdict>> {
    const { verdicts = {} } = await this.#request({ root, registries })
    return new Map(Object.entries(verdicts))
  }

  /** Performs file operations below `root`, with exact modification times, owners and extended attributes. */
  async make(root: string, steps: readonly TreeStep[]): Promise<void> {
    await this.#request({ at: root, make: steps })
  }

  /** Everything below `root`, by relative path; the root itself is `.`. Empty if it does not exist. */
  async snapshot(root: string): Promise<Map<string, TreeEntry>> {
    const { entries = {} } = await this.#request({ snapshot: root })
    return new Map(Object.entries(entries))
  }

  async close(): Promise<void> {
    const exited = once(this.#process, 'exit')
    this.#process.stdin.end()
    await exited
    this.#lines.close()
  }

  async #request(request: object): Promise<Answer> {
    const line = await new Promise<string>((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#process.stdin.write(`${JSON.stringify(request)}\n`)
    })
    const answer = JSON.parse(line) as Answer
    if (answer.failed !== undefined) throw new Error(`hosts-judge ${this.version}: ${answer.failed}`)
    return answer
  }
}

/** Messages of errors name paths, which may differ. */
export function isSameVerdict(one: Verdict, other: Verdict): boolean {
  return kindOf(one) === kindOf(other) && JSON.stringify(one.hosts) === JSON.stringify(other.hosts)
}

function kindOf({ error, panic }: Verdict): 'error' | 'panic' | 'hosts' {
  if (panic !== undefined) return 'panic'
  return error === undefined ? 'hosts' : 'error'
}
