/**
 * Rounds: what is compared takes turns (A, B, A, B, …), so that whatever else goes on in the machine hits both alike.
 * The first round warms up and is dropped. A round in which the host took CPU away is repeated, within bounds.
 */
import { cpuShares, readCpuTicks } from '../testbed/machine.ts'
import type { RoundConditions } from './result.ts'

const stealPercentMax = 2
/** Wait before a round until others leave this much of the machine, but not for longer than the patience. */
const busyPercentMax = 15
const quietSampleMs = 500
const quietPatienceMs = 10_000

export interface Alternated<Name extends string, Value> {
  /** One entry for each round that counts. */
  values: Record<Name, Value>[]
  conditions: RoundConditions[]
}

export async function alternate<Name extends string, Value>(
  series: string,
  rounds: number,
  variants: Record<Name, () => Promise<Value>>,
  say: (line: string) => void,
): Promise<Alternated<Name, Value>> {
  const result: Alternated<Name, Value> = { values: [], conditions: [] }
  let triesLeft = 2 * rounds + 1
  for (let warm = false; result.values.length < rounds;) {
    const busyBeforePercent = await waitForQuiet()
    const before = readCpuTicks()
    const values = {} as Record<Name, Value>
    for (const name of Object.keys(variants) as Name[]) values[name] = await variants[name]()
    const { stealPercent } = cpuShares(before, readCpuTicks())
    triesLeft -= 1
    const noisy = stealPercent > stealPercentMax
    const repeated = noisy && triesLeft >= rounds - result.values.length
    const note = warm ? (repeated ? ' repeated' : noisy ? ' noisy' : '') : ' warm-up'
    say(`${series}: ${describe(values)} (steal ${stealPercent.toFixed(1)} %)${note}`)
    if (warm && !repeated) {
      result.values.push(values)
      result.conditions.push({ series, stealPercent, busyBeforePercent, noisy })
    }
    warm = true
  }
  return result
}

/** Returns what was in use in the end, in percent. */
async function waitForQuiet(): Promise<number> {
  const deadlineMs = performance.now() + quietPatienceMs
  for (;;) {
    const before = readCpuTicks()
    await new Promise((resolve) => setTimeout(resolve, quietSampleMs))
    const { busyPercent } = cpuShares(before, readCpuTicks())
    if (busyPercent <= busyPercentMax || performance.now() > deadlineMs) return busyPercent
  }
}

function describe(values: object): string {
  const short = (_key: string, value: unknown) => {
    if (typeof value === 'number') return Number(value.toPrecision(3))
    return Array.isArray(value) ? `${value.length} samples` : value
  }
  return JSON.stringify(values, short).replaceAll('"', '').slice(1, -1)
}
