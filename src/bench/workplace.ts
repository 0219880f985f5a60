/** Where a benchmark runs: a temporary folder, loopback addresses of its own, and processes that end with it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { end, logTo, waitUntil } from '../testbed/process.ts'
import { cpuSeconds, memoryMiB } from '../testbed/process-usage.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const programs = {
  checkout: [join(root, 'bin/spegel-ts')],
  // As in the image, with what bin/spegel-ts sets.
  bundle: [
    'env',
    'MALLOC_ARENA_MAX=1',
    process.execPath,
    '--max-semi-space-size=2',
    '--expose-gc',
    join(root, 'dist/spegel-ts.mjs'),
  ],
} as const
export const registryPort = 5000
export const routerPort = 5001
const metricsPort = 9090
const startTimeoutMs = 30_000

export interface ServerProcess {
  readonly ip: string
  readonly child: ChildProcess
  cpuSeconds(): number
  memoryMiB(): { now: number; files: number; peak: number }
}

export interface DaemonInit {
  ip: string
  layout: string
  /** IP of a first peer. */
  firstPeer?: string
  options?: readonly string[]
  /** The bundle has to be built before: `npm run build`. */
  program?: keyof typeof programs
}

export class Workplace {
  readonly folder: string
  readonly say: (line: string) => void
  readonly #network = `127.${randomInt(200, 250)}.${randomInt(1, 255)}`
  readonly #children = new Set<ChildProcess>()
  #folders = 0

  private constructor(folder: string, say: (line: string) => void) {
    this.folder = folder
    this.say = say
  }

  static async create(say: (line: string) => void): Promise<Workplace> {
    return new Workplace(await mkdtemp(join(tmpdir(), 'spegel-ts-bench-')), say)
  }

  /** Loopback addresses: nothing leaves the machine. */
  address(number: number): string {
    return `${this.#network}.${number}`
  }

  async newFolder(): Promise<string> {
    this.#folders += 1
    const folder = join(this.folder, `folder-${this.#folders}`)
    await mkdir(folder)
    return folder
  }

  /** Ends with the workplace. */
  adopt(ip: string, child: ChildProcess): ServerProcess {
    this.#children.add(child)
    const pid = child.pid
    if (pid === undefined) throw new Error(`${child.spawnfile} could not be started`)
    return { ip, child, cpuSeconds: () => cpuSeconds(pid), memoryMiB: () => memoryMiB(pid) }
  }

  /** Starts a daemon as an operator would; resolves when it is ready. */
  async startDaemon({
    ip,
    layout,
    firstPeer,
    options = [],
    program = 'checkout',
  }: DaemonInit): Promise<ServerProcess> {
    const log = join(this.folder, `daemon-${ip}.log`)
    const [command, ...flags] = programs[program]
    const args = [
      ...flags,
      'registry',
      `--oci-layout=${layout}`,
      `--registry-addr=${ip}:${registryPort}`,
      `--router-addr=${ip}:${routerPort}`,
      `--metrics-addr=${ip}:${metricsPort}`,
      '--bootstrap-kind=static',
      ...(firstPeer === undefined ? [] : ['--static-bootstrap-peers', `${firstPeer}:${routerPort}`]),
      ...options,
    ]
    const child = spawn(command, args, { stdio: logTo(log) })
    const server = this.adopt(ip, child)
    const ready = async () => (await fetch(`http://${ip}:${metricsPort}/readyz`)).status === 200
    await waitUntil(`the daemon on ${ip}`, ready, { timeoutMs: startTimeoutMs, child, log })
    return server
  }

  async stop(server: ServerProcess): Promise<void> {
    await end(server.child)
    this.#children.delete(server.child)
  }

  async close(): Promise<void> {
    await Promise.all([...this.#children].map((child) => end(child)))
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** A metric without labels. */
export async function readMetric(ip: string, name: string): Promise<number> {
  const text = await (await fetch(`http://${ip}:${metricsPort}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1])
}
