/** What the numbers were measured on: read from the kernel, so that results can be compared or told apart. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'

export interface Machine {
  cpu: string
  cores: number
  memoryGiB: number
  kernel: string
  node: string
  /** Of the checkout, with `+` when files differ from it. */
  commit: string
  /** At the start, over one minute. */
  load: number
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    node: process.version,
    commit: commit(),
    load: loadavg()[0] ?? 0,
  }
}

function commit(): string {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const git = (...args: string[]) => execFileSync('git', args, { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] })
  try {
    // Results of other benchmarks that were just written do not change the program.
    const changed = git('status', '--porcelain', '--', 'src', 'bin', 'package-lock.json').toString().trim() !== ''
    return `${git('rev-parse', '--short=12', 'HEAD').toString().trim()}${changed ? '+' : ''}`
  } catch {
    return 'unknown'
  }
}

/** The whole machine's CPU time so far, in ticks. */
export interface CpuTicks {
  total: number
  idle: number
  steal: number
}

export function readCpuTicks(): CpuTicks {
  const [, ...fields] = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]?.split(/\s+/) ?? []
  // user nice system idle iowait irq softirq steal; guest times are counted in user.
  const ticks = fields.slice(0, 8).map(Number)
  return {
    total: ticks.reduce((sum, value) => sum + value, 0),
    idle: (ticks[3] ?? 0) + (ticks[4] ?? 0),
    steal: ticks[7] ?? 0,
  }
}

export function cpuShares(before: CpuTicks, after: CpuTicks): { busyPercent: number; stealPercent: number } {
  const total = Math.max(1, after.total - before.total)
  return {
    busyPercent: 100 * (1 - (after.idle - before.idle) / total),
    stealPercent: (100 * (after.steal - before.steal)) / total,
  }
}
