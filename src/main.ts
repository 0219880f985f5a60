/** The executable: the only file that touches argv, environment, standard streams, signals and the exit code. */
import { runCli } from './cli/cli.ts'

/** Who reads nothing for so long must not keep a stopped daemon alive. */
const outputTimeoutMs = 10_000

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
// A pipe takes 64 KiB at once; what was written last may be more.
await Promise.race([
  new Promise((resolve) => process.stdout.write('', resolve)),
  new Promise((resolve) => setTimeout(resolve, outputTimeoutMs)),
])
// Timers and sockets of libraries must not keep a stopped daemon alive.
process.exit()
