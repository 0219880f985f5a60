/** Sizes as people write them: `10MB`, `512KB`, `1GB`, or bytes. Units are powers of 1024, as image sizes mostly are. */
import { UserError } from '../lib/errors.ts'

const unitBytes: Readonly<Record<string, number>> = { '': 1, B: 1, KB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 }

/** Throws a UserError. */
export function parseSizeBytes(text: string): number {
  const match = /^(\d+)([KMG]?B)?$/.exec(text)
  const sizeBytes = Number(match?.[1]) * (unitBytes[match?.[2] ?? ''] ?? Number.NaN)
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes === 0) {
    throw new UserError(`"${text}" is not a size: write a whole number with KB, MB or GB, such as 10MB`)
  }
  return sizeBytes
}
