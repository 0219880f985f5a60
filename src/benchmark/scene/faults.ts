/** Breaks a node of the test-bed, and mends it. */
import { readFileSync } from 'node:fs'
import { errorCode } from '../../lib/errors.ts'
import type { ContainerdNode } from '../../testbed/containerd-node.ts'
import { waitUntil } from '../../testbed/process.ts'
import type { FaultEntry } from './scene.ts'

/** How long SIGTERM is given. */
const endPatienceMs = 10_000

export interface FaultyNode {
  readonly name: string
  /** Undefined: there is none. */
  mirrorPid(): number | undefined
  containerdPid(): number | undefined
  /** Resolve when they are ready. */
  startMirror(): Promise<void>
  startContainerd(): Promise<void>
  setCable(plugged: boolean): Promise<void>
  /** Undefined: as fast as it was. */
  limitUplink(bytesPerSecond: number | undefined): Promise<void>
  /** How much of a blob that it is fetching it has. */
  ingestBytes(digest: string): Promise<number>
}

export type FaultOrder = Pick<FaultEntry, 'action' | 'what' | 'rate'>

const doing: Record<FaultEntry['action'], { broken: string; mended: string }> = {
  kill: { broken: 'killed', mended: 'started again' },
  freeze: { broken: 'frozen', mended: 'thawed' },
  unplug: { broken: 'unplugged', mended: 'plugged in again' },
  restart: { broken: 'ended', mended: 'started again' },
  slow: { broken: 'made slow', mended: 'fast again' },
}

/** One fault. What was broken before `strike` failed is mended by `mend` too. */
export class Fault {
  readonly broken: string
  readonly mended: string
  readonly #order: FaultOrder
  readonly #node: FaultyNode
  #repairs: (() => Promise<void>)[] = []

  constructor(order: FaultOrder, node: FaultyNode) {
    this.#order = order
    this.#node = node
    const subject = order.what === 'node' ? node.name : `${node.name}: ${order.what}`
    this.broken = `${subject} ${doing[order.action].broken}`
    this.mended = `${subject} ${doing[order.action].mended}`
  }

  /** Resolves when it has happened. Rejects when there is nothing to break. */
  async strike(): Promise<void> {
    const { action, what, rate } = this.#order
    if (action === 'slow') {
      this.#repairs.push(() => this.#node.limitUplink(undefined))
      await this.#node.limitUplink(rate)
      return
    }
    if (what === 'node') {
      // First, as when the power fails: nobody must hear of the end of the others.
      this.#repairs.push(() => this.#node.setCable(true))
      await this.#node.setCable(false)
      if (action === 'unplug') return
    }
    if (what !== 'mirror') await this.#strikeProcess('containerd')
    if (what !== 'containerd') await this.#strikeProcess('mirror')
  }

  /**
   * Once. All of it is tried, also when a part fails; in the order in which it was broken, since a mirror that starts
   * needs its cable and containerd.
   */
  async mend(): Promise<void> {
    const repairs = this.#repairs
    this.#repairs = []
    const errors: unknown[] = []
    for (const repair of repairs) await repair().catch((error: unknown) => errors.push(error))
    if (errors.length > 0) throw new AggregateError(errors, `${this.mended}: failed`)
  }

  async #strikeProcess(part: 'mirror' | 'containerd'): Promise<void> {
    const pid = part === 'mirror' ? this.#node.mirrorPid() : this.#node.containerdPid()
    if (pid === undefined || hasEnded(pid)) {
      // A bare node has no mirror.
      if (this.#order.what === 'node') return
      throw new Error(`${this.#node.name}: no ${part} runs`)
    }
    if (this.#order.action === 'freeze') {
      this.#repairs.push(() => Promise.resolve(signal(pid, 'SIGCONT')))
      signal(pid, 'SIGSTOP')
      await waitUntil(`${part} is frozen`, () => Promise.resolve(stateOf(pid) === 'T'), {
        timeoutMs: 5_000,
        pollMs: 1,
      })
      return
    }
    this.#repairs.push(() => (part === 'mirror' ? this.#node.startMirror() : this.#node.startContainerd()))
    await endProcess(pid, this.#order.action === 'kill' ? 'SIGKILL' : 'SIGTERM')
  }
}

/** A node of the test-bed as faults see it. `mirror`: whatever runs beside containerd, if anything does. */
export function faultyNode(
  node: ContainerdNode,
  mirror?: { pid(): number | undefined; start(): Promise<void> },
  /** As tc writes it. */
  uplinkRate?: string,
): FaultyNode {
  return {
    name: node.host.name,
    mirrorPid: () => mirror?.pid(),
    containerdPid: () => node.containerdPid,
    startMirror: async () => mirror?.start(),
    startContainerd: () => node.startContainerd(),
    setCable: (plugged) => node.host.setCable(plugged),
    limitUplink: async (bytesPerSecond) => {
      const rate = bytesPerSecond === undefined ? uplinkRate : `${Math.round(bytesPerSecond * 8)}bit`
      if (uplinkRate === undefined || rate === undefined) throw new Error('links have no rate: --node-rate is needed')
      await node.host.setRate(rate)
    },
    ingestBytes: (digest) => node.ingestBytes(digest),
  }
}

async function endProcess(pid: number, how: 'SIGKILL' | 'SIGTERM'): Promise<void> {
  signal(pid, how)
  const ended = () => Promise.resolve(hasEnded(pid))
  const options = { timeoutMs: endPatienceMs, pollMs: 5 }
  try {
    await waitUntil(`process ${pid} has ended`, ended, options)
  } catch {
    signal(pid, 'SIGKILL')
    await waitUntil(`process ${pid} has ended`, ended, options)
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if (errorCode(error) !== 'ESRCH') throw error
  }
}

/** A zombie has ended, too. */
function hasEnded(pid: number): boolean {
  return ['', 'Z', 'X'].includes(stateOf(pid))
}

/** The letter of /proc; empty when there is no such process. */
function stateOf(pid: number): string {
  try {
    return /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? ''
  } catch {
    return ''
  }
}
