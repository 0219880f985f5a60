/** A daemon as a process of its own, over an OCI layout, so that its descriptors and memory can be read from outside. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { end, logTo, waitUntil } from '../../src/testbed/process.ts'

const spegel = fileURLToPath(new URL('../../bin/spegel-ts', import.meta.url))

export class DaemonProcess {
  readonly ip: string
  readonly layout: string
  readonly #child: ChildProcess
  readonly #log: string

  private constructor(ip: string, layout: string, child: ChildProcess, log: string) {
    this.ip = ip
    this.layout = layout
    this.#child = child
    this.#log = log
  }

  /** Returns when it is ready. Without a first peer it is the first of its swarm. `options`: further arguments. */
  static async start(
    folder: string,
    ip: string,
    firstPeer?: string,
    options: readonly string[] = [],
  ): Promise<DaemonProcess> {
    const layout = join(folder, ip)
    const log = join(folder, `${ip}.log`)
    await mkdir(layout)
    const args = [
      'registry',
      `--oci-layout=${layout}`,
      `--registry-addr=${ip}:5000`,
      `--router-addr=${ip}:5001`,
      `--metrics-addr=${ip}:9090`,
      '--bootstrap-kind=static',
      ...(firstPeer === undefined ? [] : ['--static-bootstrap-peers', `${firstPeer}:5001`]),
      ...options,
    ]
    const child = spawn(spegel, args, { stdio: logTo(log) })
    const ready = async () => (await fetch(`http://${ip}:5000/readyz`)).status === 200
    await waitUntil(`the daemon on ${ip}`, ready, { timeoutMs: 30_000, child, log })
    return new DaemonProcess(ip, layout, child, log)
  }

  get url(): string {
    return `http://${this.ip}:5000`
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Open descriptors. */
  get descriptors(): number {
    return readdirSync(`/proc/${this.#child.pid}/fd`).length
  }

  get residentMiB(): number {
    return this.#statusMiB('VmRSS')
  }

  /** The most that was resident since the start. */
  get residentPeakMiB(): number {
    return this.#statusMiB('VmHWM')
  }

  /** Log lines that tell of a bug, and whatever Node itself says when it crashes. */
  complaints(): string[] {
    const lines = readFileSync(this.#log, 'utf8').split('\n').filter(Boolean)
    return lines.filter((line) => !line.startsWith('{') || /"level":"(ERROR|FATAL)"/.test(line))
  }

  async metrics(): Promise<string> {
    return (await fetch(`http://${this.ip}:9090/metrics`)).text()
  }

  stop(): Promise<void> {
    return end(this.#child)
  }

  #statusMiB(field: string): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8')
    return Math.round(Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) / 1024)
  }
}
