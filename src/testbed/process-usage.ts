/** CPU and memory of server processes, read from /proc. */
import { readFileSync, readdirSync } from 'node:fs'

/** The unit of /proc/<pid>/stat: 1/100 s on every architecture that Node runs on. */
const ticksPerSecond = 100

/** User and system time of the process and of its children, those that have ended included. */
export function cpuSeconds(pid: number): number {
  // The program's name, in brackets, may contain anything.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')
  const own = [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index]), 0) / ticksPerSecond
  return children(pid).reduce((sum, child) => sum + cpuSeconds(child), own)
}

/** Memory in use by the process, of that what is mapped from files, and the most that it ever was. */
export function memoryMiB(pid: number): { now: number; files: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024
  return { now: field('VmRSS'), files: field('RssFile'), peak: field('VmHWM') }
}

function children(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  )
}
