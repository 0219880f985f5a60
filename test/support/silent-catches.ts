/**
 * Finds code that drops an error without a look at it: an error is named (by class, code or a predicate), passed on, or
 * reported. What is checked is whether the handler takes the error at all; a review sees what it does with it.
 */
import type { SourceFile } from './borders.ts'

/** One line for each, with its place. */
export function silentCatches({ path, text }: SourceFile): string[] {
  const code = withoutComments(text)
  const found = [
    ...matches(code, /\bcatch\s*\{/g, 'catch without the error'),
    ...matches(code, /\.catch\(\s*(?:async\s*)?(?:\(\s*\)\s*=>|function\s*\w*\(\s*\))/g, '.catch without the error'),
    ...matches(code, /\.(?:on|once)\('error',\s*\(\s*\)\s*=>/g, "on('error') without the error"),
    ...matches(code, /(?<=^|[;{}\n])\s*(?:await|void)\s+Promise\.allSettled\(/g, 'allSettled without its results'),
    ...unusedBindings(code),
    ...silentRejections(code),
  ]
  return found
    .toSorted((a, b) => a.at - b.at)
    .map(({ at, what }) => `src/${path}:${code.slice(0, at).split('\n').length}: ${what}`)
}

interface Finding {
  at: number
  what: string
}

function matches(code: string, pattern: RegExp, what: string): Finding[] {
  return [...code.matchAll(pattern)].map((match) => ({ at: match.index + match[0].search(/\S/), what }))
}

/** `catch (error) { … }` and `.catch((error) => …)` whose error is not used. */
function unusedBindings(code: string): Finding[] {
  const blocks = code.matchAll(/(?<!\.)\bcatch\s*\((\w+)\)\s*(?=\{)/g)
  const handlers = code.matchAll(/\.catch\(\s*(?:async\s*)?\(?(\w+)(?:: \w+)?\)?\s*=>\s*/g)
  return [...blocks, ...handlers].flatMap((match) => {
    const [whole, name = ''] = match
    const start = match.index + whole.length
    const end = code[start] === '{' ? closing(code, start) : lineEnd(code, start)
    const isUsed = new RegExp(`\\b${name}\\b`).test(code.slice(start, end))
    return isUsed ? [] : [{ at: match.index, what: 'the error is not used' }]
  })
}

/** `.then(…, () => …)`. */
function silentRejections(code: string): Finding[] {
  return [...code.matchAll(/\.then\(/g)].flatMap(({ index }) => {
    const start = index + '.then('.length
    const [, onRejected = ''] = topLevelParts(code.slice(start, closing(code, start - 1)))
    return /^\s*(async\s*)?\(\s*\)\s*=>/.test(onRejected) ? [{ at: index, what: '.then without the error' }] : []
  })
}

/** The place of the bracket that closes the one at `open`. */
function closing(code: string, open: number): number {
  let depth = 0
  for (let at = open; at < code.length; at++) {
    if ('([{'.includes(code[at] ?? '')) depth += 1
    if (')]}'.includes(code[at] ?? '')) depth -= 1
    if (depth === 0) return at
  }
  return code.length
}

function topLevelParts(code: string): string[] {
  const parts = ['']
  let depth = 0
  for (const character of code) {
    if ('([{'.includes(character)) depth += 1
    if (')]}'.includes(character)) depth -= 1
    if (character === ',' && depth === 0) parts.push('')
    else parts[parts.length - 1] += character
  }
  return parts
}

function lineEnd(code: string, from: number): number {
  const end = code.indexOf('\n', from)
  return end < 0 ? code.length : end
}

/** Places stay as they are. */
function withoutComments(text: string): string {
  const blank = (comment: string) => comment.replaceAll(/[^\n]/g, ' ')
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, blank).replaceAll(/(?<=^|[\s;{}])\/\/.*$/gm, blank)
}
