/**
 * Hosts on one machine: network namespaces joined by a bridge in a namespace of its own, so nothing appears in the
 * root namespace. Names begin with the pid of their maker: what a killed process left is found and removed by the next.
 */
import { type ChildProcess, type SpawnOptions, execFile, spawn } from 'node:child_process'
import { access } from 'node:fs/promises'
import { readFileSync, readdirSync } from 'node:fs'
import { promisify } from 'node:util'
import { waitUntil } from './process.ts'

const run = promisify(execFile)

const prefix = 'spegel-ts-'
const subnet = '10.77.0'
const namespaceFolder = '/run/netns'
const endTimeoutMs = 60_000

export interface Host {
  readonly name: string
  readonly ip: string
  /** Starts a program in the host's network. */
  spawn(command: string, args: readonly string[], options?: SpawnOptions): ChildProcess
  /** Limits what the host sends, for example `100mbit`. */
  setRate(rate: string): Promise<void>
  /** Limits what the host receives. */
  setInRate(rate: string): Promise<void>
  /** Makes the host's cable longer: what passes it arrives so much later. `program` is the delay line, which carries it. */
  setDelay(program: string, delayMs: number): Promise<void>
  /** What passed the host's cable so far, headers included. */
  traffic(): Promise<{ sentBytes: number; receivedBytes: number }>
  /** Plugs the cable in or out: packets are lost without a word. */
  setCable(plugged: boolean): Promise<void>
}

export class Network {
  readonly #prefix = `${prefix}${process.pid}-${Math.floor(Math.random() * 1e6)}-`
  #hostCount = 0

  static async create(): Promise<Network> {
    await removeLeftovers()
    const network = new Network()
    await network.#namespace('switch')
    await ip(network.#name('switch'), 'link', 'add', 'br0', 'type', 'bridge')
    await ip(network.#name('switch'), 'link', 'set', 'br0', 'up')
    return network
  }

  /** Addresses are given in order: the first host is .1. */
  async addHost(name: string): Promise<Host> {
    this.#hostCount += 1
    const address = `${subnet}.${this.#hostCount}`
    const [namespace, ethernetSwitch, port] = [this.#name(name), this.#name('switch'), `p-${name}`]
    await this.#namespace(name)
    await ip(ethernetSwitch, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace)
    await ip(ethernetSwitch, 'link', 'set', port, 'master', 'br0', 'up')
    await ip(namespace, 'addr', 'add', `${address}/24`, 'dev', 'eth0')
    await ip(namespace, 'link', 'set', 'eth0', 'up')
    return {
      name,
      ip: address,
      // nsenter, not "ip netns exec": the latter mounts /sys anew, which hides cgroups.
      spawn: (command, args, options = {}) =>
        spawn('nsenter', [`--net=${namespaceFolder}/${namespace}`, command, ...args], options),
      setRate: (rate) => shape(namespace, 'eth0', rate),
      setInRate: (rate) => shape(ethernetSwitch, port, rate),
      traffic: async () => {
        const { stdout } = await run('ip', ['-n', namespace, '-s', '-j', 'link', 'show', 'eth0'])
        const [link] = JSON.parse(stdout) as { stats64: { rx: { bytes: number }; tx: { bytes: number } } }[]
        return { sentBytes: link?.stats64.tx.bytes ?? 0, receivedBytes: link?.stats64.rx.bytes ?? 0 }
      },
      setDelay: (program, delayMs) => lengthen(ethernetSwitch, name, program, delayMs),
      setCable: (plugged) => ip(ethernetSwitch, 'link', 'set', port, plugged ? 'up' : 'down'),
    }
  }

  async close(): Promise<void> {
    await removeNamespaces((name) => name.startsWith(this.#prefix))
  }

  async #namespace(name: string): Promise<void> {
    await run('ip', ['netns', 'add', this.#name(name)])
    await ip(this.#name(name), 'link', 'set', 'lo', 'up')
  }

  #name(name: string): string {
    return `${this.#prefix}${name}`
  }
}

/** A burst of 256 KiB covers large segments; within 5 % of the rate from 50 Mbit to 3 Gbit. */
async function shape(namespace: string, device: string, rate: string): Promise<void> {
  const bucket = ['root', 'tbf', 'rate', rate, 'burst', '256kb', 'latency', '100ms']
  await run('tc', ['-n', namespace, 'qdisc', 'replace', 'dev', device, ...bucket])
}

/** Between the bridge and the host's port come two devices, joined by the program, and a bridge for the port alone. */
async function lengthen(ethernetSwitch: string, name: string, program: string, delayMs: number): Promise<void> {
  const [near, far, bridge] = [`dn-${name}`, `df-${name}`, `db-${name}`]
  const args = [`--net=${namespaceFolder}/${ethernetSwitch}`, program, near, far, String(Math.round(delayMs * 1000))]
  const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let isReady = false
  child.stdout.once('data', () => (isReady = true))
  await waitUntil('the delay line', () => Promise.resolve(isReady), { timeoutMs: endTimeoutMs, child })
  await ip(ethernetSwitch, 'link', 'add', bridge, 'type', 'bridge')
  for (const device of [bridge, near, far]) await ip(ethernetSwitch, 'link', 'set', device, 'up')
  await ip(ethernetSwitch, 'link', 'set', near, 'master', 'br0')
  await ip(ethernetSwitch, 'link', 'set', far, 'master', bridge)
  await ip(ethernetSwitch, 'link', 'set', `p-${name}`, 'master', bridge)
}

async function ip(namespace: string, ...args: string[]): Promise<void> {
  await run('ip', ['-n', namespace, ...args])
}

/** Namespaces whose maker is no more, and what still runs in them. Returns their names. */
export async function removeLeftovers(): Promise<string[]> {
  const alive = new Set(readdirSync('/proc'))
  return removeNamespaces((name) => !alive.has(/^spegel-ts-(\d+)-/.exec(name)?.[1] ?? ''))
}

async function removeNamespaces(unwanted: (name: string) => boolean): Promise<string[]> {
  const there = await access(namespaceFolder).then(
    () => readdirSync(namespaceFolder),
    () => [],
  )
  const removed = there.filter((candidate) => candidate.startsWith(prefix) && unwanted(candidate))
  for (const name of removed) {
    await endInside(name)
    await run('ip', ['netns', 'del', name])
  }
  return removed
}

/** Whoever runs in a namespace of ours was started by us. Resolves when they have ended. */
async function endInside(name: string): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'pids', name])
  const pids = stdout.split('\n').filter(Boolean).map(Number)
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended meanwhile.
    }
  }
  await waitUntil(`the end of what runs in ${name}`, () => Promise.resolve(pids.every(hasEnded)), {
    timeoutMs: endTimeoutMs,
  })
}

/** Whoever started it need not have asked for its exit code. */
function hasEnded(pid: number): boolean {
  try {
    return /^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return true
  }
}
