/** PORT Benchmark: one measurement that `npm run bench` can be asked for by name. */
import type { BenchmarkOutput } from './result.ts'

export interface BenchmarkOptions {
  /** Rounds that count. */
  rounds: number
  /** Content is made from it. */
  seed: string
  /** How long the long ones take. */
  minutes: number
  say: (line: string) => void
}

export interface Benchmark {
  readonly name: string
  readonly summary: string
  /** Takes so long that it only runs when it is asked for. */
  readonly long?: boolean
  run(options: BenchmarkOptions): Promise<BenchmarkOutput>
}
