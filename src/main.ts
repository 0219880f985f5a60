/** The executable: the only file that touches argv, environment, standard streams, signals and the exit code. */
import { explain, runCli } from './cli/cli.ts'
import { Output } from './cli/output.ts'
import { reportInternalError } from './lib/background.ts'
import { expecting } from './lib/errors.ts'
import { raceAbort } from './lib/race-abort.ts'
import { StopSignal } from './lib/stop-signal.ts'
import { remedyFor } from './lib/system-error.ts'
import { exitOutputMs, logBufferBytesMax } from './limits.ts'

// The output of a command is bounded by its result; log lines have no end.
const stdout = new Output(process.stdout, Number.POSITIVE_INFINITY)
const stderr = new Output(process.stderr, logBufferBytesMax)

const stop = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    // The first asks, the second insists.
    if (stop.signal.aborted) endProcess(1)
    stop.abort(new StopSignal(signal))
  })
}

let hasCrashed = false
/** State is undefined after an exception that nothing caught: a daemon finishes its transfers and exits to be restarted. */
function crash(error: unknown): void {
  const isDaemon = reportInternalError('uncaught_exception', error)
  if (!isDaemon) stderr.write(`spegel-ts: ${explain(error)}\n`)
  if (!isDaemon || hasCrashed) endProcess(1)
  hasCrashed = true
  stop.abort()
}
process.on('uncaughtException', crash)
// One piece of work failed, nothing else: a daemon reports the bug and keeps serving.
process.on('unhandledRejection', (error) => {
  if (!reportInternalError('unhandled_rejection', error)) crash(error)
})

const exitCode = await runCli(process.argv.slice(2), {
  env: process.env,
  commandLine: process.argv.slice(1),
  write: (text) => stdout.write(text),
  writeError: (text) => stderr.write(text),
  isTerminal: process.stderr.isTTY,
  stop: stop.signal,
})
const code = hasCrashed ? 1 : exitCode
// A pipe takes 64 KiB at a time: what it has not taken yet would be cut off by the exit.
await readUntil(stdout, stop.signal)
const lost = stdout.error !== undefined && stdout.error.code !== 'EPIPE'
if (lost) stderr.write(`spegel-ts: standard output: ${stdout.error.message}: ${remedyFor(stdout.error) ?? ''}\n`)
await readUntil(stderr, stop.signal)
// Timers and sockets of libraries must not keep a stopped daemon alive.
endProcess(lost && code === 0 ? 1 : code)

/** A reader that is slow is waited for until the process is asked to stop, and a little longer. */
async function readUntil(output: Output, signal: AbortSignal): Promise<void> {
  const flushed = output.flushed()
  await raceAbort(flushed, signal).catch(expecting(() => signal.aborted, undefined))
  if (signal.aborted) await Promise.race([flushed, new Promise((resolve) => setTimeout(resolve, exitOutputMs))])
}

/**
 * Exits, also while a thread hangs in a system call (a FIFO, a dead network file system, a name server that is silent).
 * process.exit waits for such threads for ever; becoming another program ends them.
 */
function endProcess(status: number): never {
  const hanging = /^(?:FSReq|GetAddrInfo|GetNameInfo)/
  if (process.getActiveResourcesInfo().some((name) => hanging.test(name))) {
    process.execve?.(process.execPath, [process.execPath, '--eval', `process.exit(${status})`], {})
  }
  process.exit(status)
}
