/** What a phase costs on this machine: processor time, memory, bytes on the links. Read from outside, from /proc. */
import { writeFileSync } from 'node:fs'
import type { ContainerdNode } from '../../testbed/containerd-node.ts'
import { type CpuTicks, cpuShares, readCpuTicks } from '../../testbed/machine.ts'
import type { Host } from '../../testbed/network.ts'
import { cpuSeconds, memoryMiB } from '../../testbed/process-usage.ts'

const MiB = 1024 * 1024
const cpuSampleMs = 200

interface Used {
  nodes: readonly ContainerdNode[]
  upstreamHost: Host
  mirrorPid: (node: ContainerdNode) => number | undefined
}

export async function readUsage({ nodes, upstreamHost, mirrorPid }: Used) {
  const traffic = await Promise.all(nodes.map(({ host }) => host.traffic()))
  const upstream = await upstreamHost.traffic()
  return {
    upstreamSentBytes: upstream.sentBytes,
    nodesSentBytes: total(traffic.map(({ sentBytes }) => sentBytes)),
    mirrorCpu: nodes.map((node) => cpuOf(mirrorPid(node))),
    containerdCpu: nodes.map((node) => cpuOf(node.containerdPid)),
  }
}

/** Of one process. */
interface CpuTime {
  pid: number
  seconds: number
}

/** Of all nodes together. Undefined: one of them has ended meanwhile, and took with it what it had used. */
export function usedBetween(
  before: readonly (CpuTime | undefined)[],
  after: readonly (CpuTime | undefined)[],
): number | undefined {
  if (before.some((time, index) => time?.pid !== after[index]?.pid)) return undefined
  const seconds = (times: typeof before) => total(times.map((time) => time?.seconds ?? 0))
  return seconds(after) - seconds(before)
}

function cpuOf(pid: number | undefined): CpuTime | undefined {
  try {
    return pid === undefined ? undefined : { pid, seconds: cpuSeconds(pid) }
  } catch {
    // It ended this moment.
    return undefined
  }
}

export function peakRss(pid: number | undefined): number[] {
  try {
    return pid === undefined ? [] : [Math.round(memoryMiB(pid).peak * MiB)]
  } catch {
    return []
  }
}

/** The kernel's high-water mark starts anew (proc(5), clear_refs 5). */
export function forgetPeaks({ nodes, mirrorPid }: Used): void {
  for (const node of nodes) {
    const pid = mirrorPid(node)
    if (pid !== undefined) writeFileSync(`/proc/${pid}/clear_refs`, '5')
  }
}

export class CpuSamples {
  readonly #samples: { atMs: number; ticks: CpuTicks }[] = []
  readonly #timer: NodeJS.Timeout

  constructor() {
    const sample = () => this.#samples.push({ atMs: performance.now(), ticks: readCpuTicks() })
    sample()
    this.#timer = setInterval(sample, cpuSampleMs)
  }

  busyPercentUntil(momentMs: number): number {
    const [first] = this.#samples
    const last = this.#samples.findLast(({ atMs }) => atMs <= momentMs + cpuSampleMs)
    return first === undefined || last === undefined ? 0 : cpuShares(first.ticks, last.ticks).busyPercent
  }

  stealPercent(): number {
    const [first] = this.#samples
    return first === undefined ? 0 : cpuShares(first.ticks, readCpuTicks()).stealPercent
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

function total(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0)
}
