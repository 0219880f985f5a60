/**
 * The hosts that containerd takes from the text of a hosts.toml, in its order. containerd ignores a whole file when one value
 * has the wrong type, so every setting that it knows is checked. Where versions differ, the strictest counts.
 */
import { type TomlTable, type TomlValue, parse } from 'smol-toml'
import { errorMessage } from '../lib/errors.ts'

export interface LoadedHost {
  /** As the file spells it. */
  name: string
  /** Below which containerd requests content. */
  apiUrl: string
}

/** `hosts`: those to pull from, at least one. */
export type LoadedHosts =
  | { hosts: readonly LoadedHost[] }
  | { problem: { reason: 'missing' | 'invalid_file' | 'mirror_not_first'; detail: string } }

const capabilities = new Set(['pull', 'resolve', 'push', 'referrers'])
/** Go's format of durations. */
const duration = /^[-+]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+$/

const isText = (value: TomlValue) => typeof value === 'string'
const isFlag = (value: TomlValue) => typeof value === 'boolean'
const isListOf = (value: TomlValue, test: (item: TomlValue) => boolean) => Array.isArray(value) && value.every(test)
const isTextOrTexts = (value: TomlValue) => isText(value) || isListOf(value, isText)

/** Settings of a host, and at the top of the file those of the server. Others are ignored. */
const settings: Readonly<Record<string, (value: TomlValue) => boolean>> = {
  capabilities: (value) => isListOf(value, (item) => isText(item) && capabilities.has(item.toLowerCase())),
  ca: isTextOrTexts,
  client: (value) => isText(value) || isListOf(value, isTextOrTexts),
  skip_verify: isFlag,
  override_path: isFlag,
  header: (value) => isTable(value) && Object.values(value).every(isTextOrTexts),
  dial_timeout: (value) => typeof value === 'string' && duration.test(value),
  server: isText,
}

export function loadHosts(text: string): LoadedHosts {
  if (text === '') return { problem: { reason: 'missing', detail: 'the file is empty' } }
  // Before 2.0 it was skipped; this parser skips it too.
  if (text.startsWith('\uFEFF')) return invalid('it starts with a byte order mark')
  let document: TomlTable
  try {
    document = parse(text)
  } catch (error) {
    const [reason = ''] = errorMessage(error).split('\n', 1)
    return invalid(reason)
  }
  const { host: hosts, ...top } = document
  const tables = hosts !== undefined && isTable(hosts) ? Object.entries(hosts) : []
  const noTable = tables.find(([, table]) => !isTable(table))
  if (noTable !== undefined) return invalid(`host.${noTable[0]} is no table`)
  if (hosts !== undefined && !isTable(hosts)) return invalid('host is no table')
  for (const [name, table] of [['', top] as const, ...(tables as [string, TomlTable][])]) {
    const wrong = Object.entries(table).find(([key, value]) => settings[key]?.(value) === false)
    if (wrong !== undefined) return invalid(`${name === '' ? '' : `host.${name}.`}${wrong[0]} has a wrong value`)
  }
  // containerd 2 takes the order of hosts from the headers of their tables, and only hosts that have one.
  const headers = text.split('\n').filter((line) => /^\s*\[\s*["']?host["']?\s*\./.test(line))
  const pulled = (tables as [string, TomlTable][])
    .filter(([name, table]) => canPull(table) && headers.some((line) => line.includes(name)))
    .map(([name, table]) => ({ name, apiUrl: table['override_path'] === true ? name : withApiPath(name) }))
  if (pulled.length > 0) return { hosts: pulled }
  const detail = "the file names no host to pull from as a [host.'URL'] table"
  return { problem: { reason: 'mirror_not_first', detail } }
}

/** Where containerd requests content: below /v2, unless the host says otherwise. */
function withApiPath(url: string): string {
  return /^https?:\/\/[^/]+$/.test(url) ? `${url}/v2` : url
}

function canPull({ capabilities: named }: TomlTable): boolean {
  if (!Array.isArray(named) || named.length === 0) return true
  return named.some((one) => typeof one === 'string' && one.toLowerCase() === 'pull')
}

function isTable(value: TomlValue): value is TomlTable {
  return typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date)
}

function invalid(what: string): LoadedHosts {
  return { problem: { reason: 'invalid_file', detail: `containerd cannot decode the file: ${what}` } }
}
