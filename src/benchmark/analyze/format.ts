/** Numbers as tables show them. */

const binaryUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

export function milliseconds(ns: number): string {
  const ms = ns / 1e6
  return Number.isFinite(ms) ? ms.toFixed(ms < 10 ? 1 : 0) : '–'
}

export function seconds(ns: number): string {
  return trimmed(ns / 1e9)
}

/** Three digits, or as many as the whole part has: columns of them line up. */
export function significant(value: number): string {
  if (!Number.isFinite(value)) return '–'
  const wholeDigits = Math.floor(Math.log10(Math.abs(value) + 1)) + 1
  return value.toPrecision(Math.max(3, wholeDigits))
}

/** The same without zeros at the end. */
export function trimmed(value: number): string {
  return Number.isFinite(value) ? String(Number(significant(value))) : '–'
}

export function bytesText(bytes: number): string {
  if (!Number.isFinite(bytes)) return '–'
  const power = Math.min(binaryUnits.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)))
  return `${trimmed(bytes / 1024 ** power)} ${binaryUnits[power]}`
}

/** As network people say it: bits, decimal. */
export function rateText(bytesPerSecond: number): string {
  const megabits = (bytesPerSecond * 8) / 1e6
  return megabits >= 1_000 ? `${trimmed(megabits / 1_000)} Gbit/s` : `${trimmed(megabits)} Mbit/s`
}

/** Names come from files: what would steer a terminal is shown, not sent. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Bidi_Control}]/gu, (character) => {
    return `\\u{${character.codePointAt(0)?.toString(16)}}`
  })
}
