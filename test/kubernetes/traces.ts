/** What there is of a cluster on this machine, seen from outside: for tests that nothing is left of it. */
import { existsSync, readFileSync, readdirSync, readlinkSync, statSync } from 'node:fs'
import { topCgroups } from './cgroups.ts'

const namespaceFolder = '/run/netns'

export interface Traces {
  namespaces: string[]
  cgroups: string[]
  mounts: string[]
  folders: string[]
  /** Pids that may be given to others later, so each with when it began. */
  processes: { pid: number; started: string; command: string }[]
}

/** `makerPid`: of the process that started the cluster. */
export function tracesOf(makerPid: number, folder: string): Traces {
  const name = folder.slice(folder.lastIndexOf('/') + 1)
  const namespaces = existsSync(namespaceFolder)
    ? readdirSync(namespaceFolder).filter((namespace) => namespace.startsWith(`spegel-ts-${makerPid}-`))
    : []
  const inodes = new Set(namespaces.map((namespace) => statSync(`${namespaceFolder}/${namespace}`).ino))
  return {
    namespaces,
    cgroups: topCgroups().filter((cgroup) => cgroup === name),
    mounts: readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes(name)),
    folders: existsSync(folder) ? [folder] : [],
    processes: processesIn(inodes),
  }
}

/** Those of the processes that still run. */
export function stillRunning(processes: Traces['processes']): Traces['processes'] {
  return processes.filter(({ pid, started }) => {
    const now = statusOf(pid)
    // One that has ended may not have been asked for its exit code yet.
    return now?.started === started && now.state !== 'Z'
  })
}

/** In one of these network namespaces, or started by such a process: pods have namespaces of their own. */
function processesIn(networkInodes: ReadonlySet<number>): Traces['processes'] {
  const all = readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0)
  const statuses = new Map(all.map((pid) => [pid, statusOf(pid)]))
  const isIn = (pid: number): boolean => {
    const status = statuses.get(pid)
    if (status === undefined) return false
    return networkInodes.has(networkOf(pid)) || (status.parent > 1 && isIn(status.parent))
  }
  return all.filter(isIn).map((pid) => ({
    pid,
    started: statuses.get(pid)?.started ?? '',
    command: statuses.get(pid)?.command ?? '',
  }))
}

function networkOf(pid: number): number {
  try {
    return Number(/\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[1])
  } catch {
    return 0
  }
}

function statusOf(pid: number) {
  try {
    // The program's name, in brackets, may contain anything.
    const [, command = '', rest = ''] = /\((.*)\) (.*)$/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? []
    const fields = rest.split(' ')
    return { command, state: fields[0], parent: Number(fields[1]), started: fields[19] ?? '' }
  } catch {
    return undefined
  }
}
