/**
 * Our part of a hosts.toml: lines between a BEGIN and an END comment. The block is inserted into the user's text, which
 * stays as it is byte for byte, so every version of containerd decodes the user's part as before. The comments tell our
 * lines from the user's wherever the file is found, also after `_backup` was deleted.
 */
import { createHash } from 'node:crypto'
import { type TomlTable, type TomlValue, stringify } from 'smol-toml'

/** A dead daemon must not slow pulls: containerd's own default is 30 s for each request. */
const dialTimeout = '200ms'

export interface MirrorTables {
  /** URLs, requested in this order. */
  targets: readonly string[]
  /** The mirror also resolves tags. */
  resolveTags: boolean
  /** The value of an Authorization header for the mirror. */
  authorization: string | undefined
}

/** The mirror's tables. `ca` is for redirects to an upstream with a private CA. Single quotes: URLs need no escapes. */
export function renderMirrorTables(
  { targets, resolveTags, authorization }: MirrorTables,
  ca: TomlValue | undefined,
): string {
  const capabilities = resolveTags ? "['pull', 'resolve']" : "['pull']"
  const tables = targets.map((target) => {
    const lines = [`[host.'${target}']`, `capabilities = ${capabilities}`, `dial_timeout = '${dialTimeout}'`]
    if (ca !== undefined) lines.push(stringify({ ca }).trim())
    if (authorization !== undefined) lines.push(`[host.'${target}'.header]`, `Authorization = '${authorization}'`)
    return `${lines.join('\n')}\n`
  })
  return tables.join('\n')
}

export interface Marked {
  /** The text without our block. */
  rest: string
  /** The user's part of the file; undefined: all of it is ours. */
  users: string | undefined
  /** The directory was created for this file. */
  isNewDirectory: boolean
}

/**
 * The user's text with the block in front of its first table. `at`: offset of that table's line; the length of the text
 * where it has no table.
 */
export function insertBlock(text: string, at: number, tables: string): string {
  const head = text.slice(0, at)
  const isUnterminated = head !== '' && !head.endsWith('\n')
  const block = renderBlock(isUnterminated ? ['inserted', 'newline'] : ['inserted'], tables)
  return `${head}${isUnterminated ? '\n' : ''}${block}${text.slice(at)}`
}

/** A file of ours: the block, then a copy of what the user has elsewhere (empty for none). */
export function generateFile(
  { top = {}, tables, copy, at = 0 }: { top?: TomlTable; tables: string; copy: string; at?: number },
  { isNewDirectory }: { isNewDirectory: boolean },
): string {
  const head = Object.keys(top).length === 0 ? '' : `${stringify(top).trim()}\n\n`
  const flags = [`copy ${hash(copy)}`, ...(isNewDirectory ? ['new directory'] : [])]
  const isUnterminated = at > 0 && copy[at - 1] !== '\n'
  const block = renderBlock(isUnterminated ? [...flags, 'newline'] : flags, `${head}${tables}`)
  return `${copy.slice(0, at)}${isUnterminated ? '\n' : ''}${block}${copy.slice(at)}`
}

/** Undefined: the text has no complete block of ours. */
export function readMarked(text: string): Marked | undefined {
  let rest = text
  let first: readonly string[] | undefined
  for (;;) {
    const match = /(?<=^|\n)# BEGIN spegel-ts \(([^)\n]*)\)[^]*?\n# END spegel-ts[^\n]*(?:\n|$)/.exec(rest)
    if (match === null) break
    const flags = match[1]?.split(', ') ?? []
    first ??= flags
    const start = flags.includes('newline') ? match.index - 1 : match.index
    rest = rest.slice(0, Math.max(0, start)) + rest.slice(match.index + match[0].length)
  }
  if (first === undefined) return undefined
  const isCopy = first.includes(`copy ${hash(rest)}`)
  return { rest, users: isCopy ? undefined : rest, isNewDirectory: first.includes('new directory') }
}

function renderBlock(flags: readonly string[], body: string): string {
  const begin = `# BEGIN spegel-ts (${flags.join(', ')}): written by spegel-ts configuration, removed by spegel-ts cleanup`
  return `${begin}\n${body}# END spegel-ts\n`
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}
