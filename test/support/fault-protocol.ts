/** What the faults cost: collected during the tests, printed at their end. */
import type { Pulled, PullerName } from './fault-bed.ts'

interface Line {
  fault: string
  puller: PullerName
  lostMs: number
  failed: boolean
  upstreamBytes: number
}

export class Protocol {
  readonly #undisturbedMs: Record<PullerName, number[]> = { plain: [], parallel: [] }
  readonly #lines: Line[] = []

  noteUndisturbed(puller: PullerName, ms: number): void {
    this.#undisturbedMs[puller].push(ms)
  }

  /** Returns what the fault cost against the fastest undisturbed pull. `part`: of the blob, when it struck. */
  note(fault: string, puller: PullerName, pulled: Pulled, part?: number): number {
    const lostMs = pulled.ms - Math.min(...this.#undisturbedMs[puller])
    const when = part === undefined ? '' : ` at ${Math.round(part * 100)} %`
    const what = `${seconds(pulled.ms)} s, lost ${seconds(lostMs)} s, upstream ${pulled.upstreamBytes} bytes`
    process.stderr.write(
      `${fault} (${puller})${when}: ${what}${pulled.error === undefined ? '' : `, ${pulled.error}`}\n`,
    )
    const failed = pulled.error !== undefined
    this.#lines.push({ fault, puller, lostMs, failed, upstreamBytes: pulled.upstreamBytes })
    return lostMs
  }

  table(): string {
    const head = [
      'fault',
      'fetch',
      'pulls',
      'failed',
      'lost s: median (min to max)',
      'upstream MB: median (min to max)',
    ]
    const groups = Map.groupBy(this.#lines, ({ fault, puller }) => `${fault} | ${puller}`)
    const rows = [...groups].map(([name, lines]) => [
      name,
      lines.length,
      lines.filter(({ failed }) => failed).length,
      spread(lines.map(({ lostMs }) => lostMs / 1000)),
      spread(lines.map(({ upstreamBytes }) => upstreamBytes / 1e6)),
    ])
    const undisturbed = Object.entries(this.#undisturbedMs).map(
      ([puller, times]) => `undisturbed, ${puller}: ${spread(times.map((ms) => ms / 1000))} s\n`,
    )
    return [...undisturbed, ...[head, ...rows].map((row) => `| ${row.join(' | ')} |\n`)].join('')
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

function spread(values: readonly number[]): string {
  return `${median(values).toFixed(1)} (${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)})`
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1)
}
