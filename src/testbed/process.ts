/** Programs of the test-bed: started, watched until they answer, ended by pid. */
import type { ChildProcess } from 'node:child_process'
import { openSync, readFileSync } from 'node:fs'
import { awakeMs } from './awake-clock.ts'

/** For `stdio`: everything the program says goes to a file. */
export function logTo(path: string): ['ignore', number, number] {
  const file = openSync(path, 'a')
  return ['ignore', file, file]
}

/** The pid of a child that has not ended. */
export function runningPid(child: ChildProcess | undefined): number | undefined {
  return child?.exitCode === null && child.signalCode === null ? child.pid : undefined
}

/** Polls until the probe is true. Rejects when the program ends first, or after the time, with the tail of its log. */
export async function waitUntil(
  what: string,
  probe: () => Promise<boolean>,
  options: { timeoutMs: number; pollMs?: number; child?: ChildProcess; log?: string; signal?: AbortSignal },
): Promise<void> {
  const { timeoutMs, pollMs = 50, child, log, signal } = options
  const deadlineMs = awakeMs() + timeoutMs
  for (;;) {
    signal?.throwIfAborted()
    if (await probe().catch(() => false)) return
    const ended = child !== undefined && (child.exitCode !== null || child.signalCode !== null)
    if (ended || awakeMs() > deadlineMs) {
      const tail = log === undefined ? '' : `\n${readFileSync(log, 'utf8').slice(-2_000)}`
      throw new Error(
        `${what}: ${ended ? `the program ended (${child.exitCode})` : `not within ${timeoutMs} ms`}${tail}`,
      )
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
}

/** What a program prints. Rejects with its last words when it fails. */
export async function output(child: ChildProcess): Promise<string> {
  let [printed, errors] = ['', '']
  child.stdout?.on('data', (data: Buffer) => (printed += data.toString()))
  child.stderr?.on('data', (data: Buffer) => (errors += data.toString()))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0)
    throw new Error(`${child.spawnargs.join(' ')} ended with ${code}: ${(errors || printed).slice(-2_000)}`)
  return printed
}

/** Ends a program and waits for it; SIGKILL when it does not listen. */
export async function end(
  child: ChildProcess,
  signal: NodeJS.Signals = 'SIGTERM',
  patienceMs = 10_000,
): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.kill(signal)
  const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs)
  await ended
  clearTimeout(timer)
}

/** The same for a program that leads a process group of its own (`detached`): whatever it started ends too. */
export async function endGroup(leader: ChildProcess, patienceMs = 10_000): Promise<void> {
  await end(leader, 'SIGTERM', patienceMs)
  try {
    if (leader.pid !== undefined) process.kill(-leader.pid, 'SIGKILL')
  } catch {
    // Nobody is left in the group.
  }
}
