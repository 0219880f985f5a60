/** What a benchmark leaves behind: `benchmark/results/<name>.json`. README's table is made from these files. */
import { readFileSync, readdirSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Machine } from '../testbed/machine.ts'
import { quantile } from './statistics.ts'

/** One row of the table: a number from each round. */
export interface Figure {
  name: string
  unit: string
  /** One per round, the warm-up dropped. */
  samples: number[]
  /** What we want it to be, if it has a target. */
  target?: { atMost: number } | { atLeast: number }
}

/** How quiet the machine was during a round that counts. */
export interface RoundConditions {
  series: string
  /** CPU that the host took away, in percent of all. */
  stealPercent: number
  /** CPU that was in use just before the round, by whomever, in percent of all. */
  busyBeforePercent: number
  /** Steal was above the limit, and there were no tries left. */
  noisy: boolean
}

export interface BenchmarkOutput {
  /** One line about how it was measured. */
  method: string
  figures: Figure[]
  conditions: RoundConditions[]
  /** Single measurements that figures were computed from. */
  raw: Record<string, unknown>
}

export interface Result extends BenchmarkOutput {
  benchmark: string
  date: string
  machine: Machine
  seed: string
  rounds: number
}

const digitsKept = 4

/** Writes the file; returns its path. */
export async function writeResult(folder: string, result: Result): Promise<string> {
  await mkdir(folder, { recursive: true })
  const path = join(folder, `${result.benchmark}.json`)
  const rounded = (_key: string, value: unknown) =>
    typeof value === 'number' ? Number(value.toPrecision(Math.max(digitsKept, digitsBeforePoint(value)))) : value
  // One line for each list of numbers: a diff shows what changed.
  const text = JSON.stringify(result, rounded, 2).replaceAll(/\[\s+([-\d.e,\s]+?)\s+\]/g, (_all, numbers: string) => {
    return `[${numbers.replaceAll(/\s+/g, ' ')}]`
  })
  await writeFile(path, `${text}\n`)
  return path
}

export function readResults(folder: string): Result[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Result)
}

/** p50, p95, … of each round as figures. */
export function quantileFigures(
  name: string,
  rounds: readonly (readonly number[])[],
  targets: Readonly<Record<string, number | undefined>>,
): Figure[] {
  return Object.entries(targets).map(([label, atMost]) => ({
    name: `${name}, ${label}`,
    unit: 'ms',
    samples: rounds.map((samples) => quantile(samples, label === 'max' ? 1 : Number(label.slice(1)) / 100)),
    ...(atMost === undefined ? {} : { target: { atMost } }),
  }))
}

function digitsBeforePoint(value: number): number {
  return Math.max(1, Math.floor(Math.log10(Math.max(1, Math.abs(value)))) + 1)
}
