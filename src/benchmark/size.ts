/** Sizes as the published benchmark writes them: MB = 2^20 bytes. */
import { UserError } from '../lib/errors.ts'

const units: Record<string, number> = { '': 1, B: 1, KB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 }

/** Bytes. Throws a UserError. */
export function parseSize(text: string): number {
  const { number, unit } = /^(?<number>\d+)(?<unit>[KMG]?B|)$/.exec(text)?.groups ?? {}
  const bytes = Number(number) * (units[unit ?? '?'] ?? Number.NaN)
  if (!Number.isSafeInteger(bytes) || bytes < 1) {
    throw new UserError(`"${text}" is not a size: write a whole number with KB, MB or GB (MB = 2^20 bytes)`)
  }
  return bytes
}
