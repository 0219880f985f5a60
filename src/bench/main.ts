/** `npm run bench`: measures the mirror on this machine. Results go to benchmark/results/, and from there to README. */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { UserError, errorMessage } from '../lib/errors.ts'
import type { Benchmark } from './benchmark.ts'
import { idle } from './idle.ts'
import { latency } from './latency.ts'
import { describeMachine } from '../testbed/machine.ts'
import { memory } from './memory.ts'
import { hour, pulls } from './pulls.ts'
import { writeResult } from './result.ts'
import { speed } from './speed.ts'
import { swarm } from './swarm.ts'
import { figureTable } from './table.ts'

const benchmarks: readonly Benchmark[] = [speed, latency, swarm, memory, pulls, idle, hour]

const defaultFolder = fileURLToPath(new URL('../../benchmark/results', import.meta.url))
const usage = `Usage: npm run bench -- [NAME…] [--rounds N] [--minutes N] [--seed TEXT] [--out FOLDER]
${benchmarks.map(({ name, summary, long }) => `  ${name.padEnd(12)} ${summary}${long === true ? ' (only by name)' : ''}`).join('\n')}
  --rounds     rounds that count; one more warms up (default 5)
  --minutes    how long the long ones watch (default 20)
  --seed       content is made from it (default bench)
  --out        where results go (default benchmark/results; npm run docs puts those into README)
`

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: 'string', default: '5' },
      minutes: { type: 'string', default: '20' },
      seed: { type: 'string', default: 'bench' },
      out: { type: 'string', default: defaultFolder },
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help === true) {
    process.stdout.write(usage)
    return
  }
  const [rounds, minutes] = [positive(values.rounds, '--rounds', 100), positive(values.minutes, '--minutes', 600)]
  const say = (line: string) => void process.stderr.write(`${line}\n`)
  for (const benchmark of chosen(positionals)) {
    const { name } = benchmark
    const machine = describeMachine()
    const date = new Date().toISOString()
    const output = await benchmark.run({ rounds, minutes, seed: values.seed, say: (line) => say(`${name}: ${line}`) })
    const result = { benchmark: name, date, machine, seed: values.seed, rounds, ...output }
    const path = await writeResult(values.out, result)
    process.stdout.write(`\n${figureTable(result)}\n\n`)
    say(`${name}: ${path}`)
  }
}

function chosen(names: readonly string[]): Benchmark[] {
  if (names.length === 0) return benchmarks.filter(({ long }) => long !== true)
  return names.map((wanted) => {
    const found = benchmarks.find(({ name }) => name === wanted)
    if (found === undefined) throw new UserError(`there is no benchmark "${wanted}"\n${usage}`)
    return found
  })
}

function positive(text: string, flag: string, max: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > max) throw new UserError(`${flag}: a number from 1 to ${max}`)
  return value
}

try {
  await main()
} catch (error) {
  const stack = error instanceof UserError || !(error instanceof Error) ? '' : `\n${error.stack ?? ''}`
  process.stderr.write(`bench: ${errorMessage(error)}${stack}\n`)
  process.exitCode = 1
}
