/** Durations as Go writes them: `20ms`, `1m30s`, `1.5h`, `-2s`, `0`. */

const unitMs: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
}

/** Milliseconds, or undefined when the text is not a duration (grammar of Go's time.ParseDuration). */
export function parseDuration(text: string): number | undefined {
  const match = /^([+-]?)(.+)$/.exec(text)
  if (match === null) return undefined
  const [, sign, rest = ''] = match
  if (rest === '0') return 0
  let totalMs = 0
  let consumed = 0
  for (const part of rest.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/gy)) {
    totalMs += Number(part[1]) * (unitMs[part[2] ?? ''] ?? Number.NaN)
    consumed += part[0].length
  }
  if (consumed !== rest.length) return undefined
  return sign === '-' ? -totalMs : totalMs
}

/** The shortest Go spelling: 20 → `20ms`, 90_000 → `1m30s`. */
export function formatDuration(durationMs: number): string {
  if (durationMs === 0) return '0s'
  if (durationMs < 1000) return `${durationMs}ms`
  const hours = Math.floor(durationMs / 3_600_000)
  const minutes = Math.floor((durationMs % 3_600_000) / 60_000)
  const seconds = (durationMs % 60_000) / 1000
  return `${hours > 0 ? `${hours}h` : ''}${minutes > 0 ? `${minutes}m` : ''}${seconds > 0 ? `${seconds}s` : ''}`
}
