/** The executable: the only file that touches argv, environment, standard streams, signals and the exit code. */
import { setTimeout } from 'node:timers/promises'
import { runCli } from './cli/cli.ts'
import { exitOutputMs } from './limits.ts'

const stop = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    // The first asks, the second insists.
    if (stop.signal.aborted) process.exit(1)
    stop.abort()
  })
}

process.exitCode = await runCli(process.argv.slice(2), {
  env: process.env,
  commandLine: process.argv.slice(1),
  write: (text) => process.stdout.write(text),
  writeError: (text) => process.stderr.write(text),
  isTerminal: process.stderr.isTTY,
  stop: stop.signal,
})
// A pipe takes 64 KiB at a time: what it has not taken yet would be cut off by the exit.
const written = [process.stdout, process.stderr].map(
  (stream) => new Promise<void>((resolve) => stream.write('', () => resolve())),
)
await Promise.race([Promise.all(written), setTimeout(exitOutputMs)])
// Timers and sockets of libraries must not keep a stopped daemon alive.
process.exit()
