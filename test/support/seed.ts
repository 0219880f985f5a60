/** Properties over large inputs: the seed is printed on every run, a failure says what it needs to and no more. */
import fc from 'fast-check'

/** BAD_INPUT_SEED repeats a run. */
export function printedSeed(name: string): number {
  const given = process.env['BAD_INPUT_SEED']
  const seed = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given)
  if (!Number.isSafeInteger(seed)) throw new Error(`BAD_INPUT_SEED: "${given}" is not a whole number`)
  process.stderr.write(`${name}: BAD_INPUT_SEED=${seed}\n`)
  return seed
}

/**
 * As fc.assert, but without shrinking (each run talks to real daemons, and takes its time) and without the whole
 * counterexample in the message (it can be megabytes): the property's own error says which input it was. Ending
 * before all runs are done is a failure too.
 */
export async function holds<Inputs>(
  property: fc.IAsyncPropertyWithHooks<Inputs>,
  { seed, runs, timeLimitMs }: { seed: number; runs: number; timeLimitMs: number },
): Promise<void> {
  const result = await fc.check(property, {
    seed,
    numRuns: runs,
    endOnFailure: true,
    interruptAfterTimeLimit: timeLimitMs,
    markInterruptAsFailure: true,
  })
  if (!result.failed) return
  if (result.interrupted) throw new Error(`${result.numRuns} of ${runs} runs in ${timeLimitMs} ms, seed ${seed}`)
  throw new Error(`run ${result.numRuns} of seed ${seed} failed`, { cause: result.errorInstance })
}

/** Bytes for an error message. */
export function excerpt(bytes: Uint8Array, length = 1_500): string {
  const text = JSON.stringify(Buffer.from(bytes.subarray(0, length)).toString('latin1'))
  return bytes.length > length ? `${text}… (${bytes.length} bytes)` : text
}
