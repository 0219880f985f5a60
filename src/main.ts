/** The executable: the only file that touches argv, environment, standard streams, signals and the exit code. */
import { setTimeout } from 'node:timers/promises'
import { runCli } from './cli/cli.ts'
import { reportInternalError } from './lib/background.ts'
import { errorStack } from './lib/errors.ts'
import { exitOutputMs } from './limits.ts'

const stop = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    // The first asks, the second insists.
    if (stop.signal.aborted) process.exit(1)
    stop.abort()
  })
}

let hasCrashed = false
/** State is undefined after an exception that nothing caught: a daemon finishes its transfers and exits to be restarted. */
function crash(error: unknown): void {
  const isDaemon = reportInternalError('uncaught_exception', error)
  if (!isDaemon) process.stderr.write(`spegel-ts: this is a bug: ${errorStack(error)}\n`)
  if (!isDaemon || hasCrashed) process.exit(1)
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
  write: (text) => process.stdout.write(text),
  writeError: (text) => process.stderr.write(text),
  isTerminal: process.stderr.isTTY,
  stop: stop.signal,
})
process.exitCode = hasCrashed ? 1 : exitCode
// A pipe takes 64 KiB at a time: what it has not taken yet would be cut off by the exit.
const written = [process.stdout, process.stderr].map(
  (stream) => new Promise<void>((resolve) => stream.write('', () => resolve())),
)
await Promise.race([Promise.all(written), setTimeout(exitOutputMs)])
// Timers and sockets of libraries must not keep a stopped daemon alive.
process.exit()
