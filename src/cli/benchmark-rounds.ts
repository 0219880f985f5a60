/** What measuring has in common on every target: who measured, the rounds, and what is said in the end. */
import { type MeasureInit, measure } from '../benchmark/measure/measure.ts'
import { UserError } from '../lib/errors.ts'
import { type Machine, describeMachine } from '../testbed/machine.ts'
import { benchmarkFacts } from './benchmark-facts.ts'
import type { Surroundings } from './command.ts'

export interface RoundsInit extends Pick<MeasureInit, 'target' | 'mirrors' | 'images' | 'progress'> {
  name: string
  options: { resultDir: string; rounds: number; repeats: number; seed: string }
  /** Beside what the options say. */
  set: Omit<MeasureInit['facts']['set'], 'seed' | 'rounds'>
  machine?: Machine
}

/** Throws a UserError when pulls failed that should not. */
export async function measureRounds(
  { options, name, set, machine = describeMachine(), ...init }: RoundsInit,
  { write, stop, commandLine }: Surroundings,
): Promise<void> {
  const { resultDir, rounds, repeats, seed } = options
  const result = await measure({
    ...init,
    folder: resultDir,
    rounds,
    repeatsMax: repeats,
    facts: { ...benchmarkFacts(name, machine, commandLine), set: { seed, rounds, ...set } },
    now: () => new Date(),
    signal: stop,
  }).catch((error: unknown) => {
    if (!stop.aborted) throw error
    throw new UserError('broken off: the same command goes on')
  })
  write(`${resultDir}/result.json: see it with spegel-ts benchmark analyze --path ${resultDir}\n`)
  const failures = result.rounds
    .flatMap(({ phases }) => [phases.create, phases.update])
    .map((phase) => phase?.pulls.filter(({ error }) => error !== undefined) ?? [])
  const unexpected = failures.filter(({ length }) => length > set.expectFailures)
  const [first] = unexpected.flat()
  if (first === undefined) return
  throw new UserError(`${unexpected.flat().length} pulls failed, the first on ${first.node}: ${first.error}`)
}
