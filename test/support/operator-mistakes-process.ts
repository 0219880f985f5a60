/**
 * Runs as a child process in a sandbox: every command with every option that names something outside of the command line,
 * with values that are missing, of another type, unreachable, taken, full or read-only. Prints one JSON line per run.
 * Arguments: directory, seed, and the share of the values to try.
 */
import { once } from 'node:events'
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { runCli } from '../../src/cli/cli.ts'
import { commands } from '../../src/cli/commands.ts'
import { StopSignal } from '../../src/lib/stop-signal.ts'
import { badValues, specs } from './bad-values.ts'
import { commandLine, makeFiles } from './command-lines.ts'
import { seededRandom } from './random.ts'

export interface MistakeResult {
  args: readonly string[]
  code: number
  /** Standard error. */
  text: string
  tookMs: number
}

/** A command that runs well is stopped when it says so, or after this long. */
const patienceMs = 300
const lanes = 4
/** Options that only count in place of another one. */
const instead: Readonly<Record<string, readonly string[]>> = {
  '--containerd-sock': ['--oci-layout'],
  '--daemonset': ['--probe-endpoint'],
  '--kubeconfig': ['--target', '--path'],
  '--scene': ['--images'],
}

/** Texts that differ from others only for those who parse them: test/unit/cli/bad-values.test.ts tries them. */
const parsedOnly = new Set([' ', '日本', '\u001B[31m', '{{ .Values.x }}', '-1', 'a,b', '"', "'", '%00'])

const [directory = '', seed = '1', share = '1'] = process.argv.slice(2)
const random = seededRandom(Number(seed))
const bad = join(directory, 'bad')
const listener = createServer().listen(0, '127.0.0.1')
await once(listener, 'listening')
const { port: takenPort } = listener.address() as AddressInfo
await mkdir(join(bad, 'directory'), { recursive: true })
await mkdir(join(bad, 'forbidden'))
await writeFile(join(bad, 'file'), 'text')
await writeFile(join(bad, 'unreadable'), 'text')
await symlink('loop', join(bad, 'loop'))
await symlink('nowhere', join(bad, 'dangling'))
await chmod(join(bad, 'unreadable'), 0)
await chmod(join(bad, 'forbidden'), 0)

/** What only a running command can find out. */
function outside(placeholder: string): string[] {
  switch (placeholder) {
    case '<addr>':
      return [
        `127.0.0.1:${takenPort}`,
        '127.0.0.1:80',
        '203.0.113.1:0',
        'no-such-host.invalid:0',
        '[fe80::1%none]:0',
        '[2001:db8::1]:0',
      ]
    case '<file>':
    case '<folder>':
    case '<path...>':
      return [
        ...['directory', 'file', 'loop', 'dangling', 'unreadable', 'forbidden'].map((name) => join(bad, name)),
        ...['file/x', 'directory/x', 'dangling/x', 'loop/x', 'forbidden/x'].map((name) => join(bad, name)),
        ...['full', 'full/x', 'full/directory', 'full/file', 'full/directory/x'].map((name) => join(directory, name)),
        ...['readonly', 'readonly/x'].map((name) => join(directory, name)),
        '/proc/none',
        '/proc/none/x',
        '/sys/none',
        '/dev/full',
        '/proc/self/mem',
        '/etc/passwd/x',
      ]
    case '<host>':
      return ['no-such-host.invalid', '127.0.0.1', '203.0.113.1']
    case '<url>':
      return ['http://no-such-host.invalid/', 'http://127.0.0.1:1/', 'https://127.0.0.1:1/']
    default:
      return []
  }
}

async function run(args: readonly string[]): Promise<MistakeResult> {
  let text = ''
  const stop = new AbortController()
  const stopNow = () => stop.abort(new StopSignal('SIGTERM'))
  const timer = setTimeout(stopNow, patienceMs)
  const startedMs = performance.now()
  const code = await runCli(args, {
    env: { HOME: directory, PATH: '' },
    commandLine: [process.execPath],
    write: (written) => {
      if (written.startsWith('listening')) stopNow()
    },
    writeError: (written) => {
      text += written
      if (/"msg":"(?:started|cleanup|cleanup probe)"/.test(written)) stopNow()
    },
    isTerminal: false,
    stop: stop.signal,
  })
  clearTimeout(timer)
  return { args, code, text, tookMs: performance.now() - startedMs }
}

const argsOf: ((laneDirectory: string) => string[])[] = commands.map(
  ({ name }) =>
    (laneDirectory) =>
      commandLine(name, laneDirectory),
)
/** Commands of the benchmark share options with the code behind them. */
const tried = new Set<unknown>()
for (const { name, table } of commands) {
  for (const spec of specs(table)) {
    const { flag, placeholder } = spec
    if (name.startsWith('benchmark ') && tried.has(spec)) continue
    tried.add(spec)
    if (process.getuid?.() !== 0 && !/^<(?:addr|file|folder|path)/.test(placeholder)) continue
    // Whatever is accepted of these has no meaning outside.
    if (['[bool]', '<number>', '<duration>'].includes(placeholder)) continue
    const odd = badValues(spec).odd.filter((value) => !parsedOnly.has(value))
    for (const value of new Set([...odd, ...outside(placeholder)])) {
      if (random.next() >= Number(share)) continue
      argsOf.push((laneDirectory) => [
        ...commandLine(name, laneDirectory, [flag, ...(instead[flag] ?? [])]),
        `${flag}=${value}`,
      ])
    }
  }
}

async function runLane(laneDirectory: string): Promise<void> {
  await mkdir(laneDirectory)
  await makeFiles(laneDirectory)
  for (let next = argsOf.shift(); next !== undefined; next = argsOf.shift()) {
    process.stdout.write(`${JSON.stringify(await run(next(laneDirectory)))}\n`)
  }
}
await Promise.all(Array.from({ length: lanes }, (_, index) => runLane(join(directory, `lane${index}`))))
process.exit()
