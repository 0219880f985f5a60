/**
 * Whether our block can stand in front of a user's hosts.toml. containerd ignores a file that it cannot decode, silently,
 * and some versions crash on wrong types, so a file is only touched where every version decodes it in the same way, with
 * and without the block. Settings and types: containerd docs/hosts.md.
 */
import { isDeepStrictEqual } from 'node:util'
import { type TomlTable, type TomlValue, parse } from 'smol-toml'
import { errorMessage } from '../lib/errors.ts'
import { parsed } from '../lib/foreign.ts'
import type { Dialect } from './containerd-dialect.ts'
import { insertBlock, renderMirrorTables, type MirrorTables } from './mirror-block.ts'
import { withoutDefaultPort } from './registry-url.ts'
import { registryOf, upstreamOf } from './upstream.ts'

/** Why a registry stays as it is, and what the administrator can do. */
export interface Obstacle {
  reason: string
  remedy: string
}

export interface HostsDocument {
  text: string
  /** Settings of the server. */
  top: TomlTable
  hosts: readonly (readonly [string, TomlTable])[]
  /** Offset of the line of the first table. */
  firstTable: number
}

export class ObstacleError extends Error {
  readonly obstacle: Obstacle
  constructor(reason: string, remedy: string) {
    super(reason)
    this.obstacle = { reason, remedy }
  }
}

const knownSettings = ['capabilities', 'ca', 'client', 'skip_verify', 'header', 'override_path', 'dial_timeout']
const topSettings = [...knownSettings, 'server', 'host']
const capabilities = new Set(['pull', 'resolve', 'push'])
/** Go's time.ParseDuration. */
const durationPattern = /^[+-]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+$/
/** What every version parses to the same host: a scheme, a host with an optional port, and a plain path. */
const urlPattern = /^(?:https?:\/\/)?(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:\/[A-Za-z0-9._~/-]*)?$/

/** Decodes what is safe to have our block in front of. Throws an ObstacleError. */
export function readHostsDocument(text: string, dialect: Dialect): HostsDocument {
  if (text.startsWith('\uFEFF')) {
    throw new ObstacleError(
      'it starts with a byte order mark, which containerd 2 rejects',
      'save the file without it',
    )
  }
  if (/[^\P{Cc}\t\n\r]|\r(?!\n)/u.test(text)) {
    throw new ObstacleError('it contains control characters', 'remove them')
  }
  if (hasToml11(text)) {
    throw new ObstacleError(
      'it uses TOML 1.1, which not every version of containerd reads',
      'write it without \\e and \\x, inline tables over several lines, and times without seconds',
    )
  }
  if (/"[^"\n]*\\[^"\n]*"\s*[\].=]/.test(text)) {
    throw new ObstacleError('containerd 1 reads an escape in a key as it stands', 'write the key without a backslash')
  }
  const document = parseToml(text)
  const { host, ...top } = document
  checkSettings(top, topSettings, 'at the top')
  checkUrl(top['server'], 'server')
  const hosts = checkHosts(host)
  const tables = tablesOf(text)
  const named = new Set(tables.map(({ keys }) => (keys[0] === 'host' ? keys[1] : undefined)))
  for (const [url] of hosts) {
    if (!named.has(url)) {
      throw new ObstacleError(
        `versions of containerd read "${url}" differently, because it has no table of its own`,
        `write its settings below [host."${url}"]`,
      )
    }
  }
  if (tables.some(({ keys }) => keys[0] === 'host' && keys.length === 1)) {
    throw new ObstacleError('versions of containerd read a [host] table differently', 'remove the line [host]')
  }
  if (!dialect.readsIpv6Tables && hosts.some(([url]) => url.includes(']'))) {
    throw new ObstacleError(
      'containerd before 2.0 cannot read the "]" of an IPv6 address in a table name',
      ipv6Remedy,
    )
  }
  return { text, top, hosts, firstTable: tables[0]?.at ?? text.length }
}

const ipv6Remedy = 'write a host name or an IPv4 address, or name containerd 2 by --containerd-sock'

/** The user's text with the mirror in front. Throws an ObstacleError. `directoryName`: of the registry. */
export function prependMirror(
  document: HostsDocument,
  directoryName: string,
  mirror: MirrorTables,
  { dialect, hasCertificates }: { dialect: Dialect; hasCertificates: boolean },
): { at: number; tables: string } {
  checkMirrorIsNew(document, mirror)
  checkHostless(document, directoryName, { dialect, hasCertificates })
  if (!dialect.readsIpv6Tables && mirror.targets.some((target) => target.includes(']'))) {
    throw new ObstacleError(
      'containerd before 2.0 cannot read the IPv6 address of the mirror, and would ignore the whole file',
      `--mirror-targets: ${ipv6Remedy}`,
    )
  }
  const tables = renderMirrorTables(mirror, redirectCa(document, directoryName, mirror))
  const { host, ...top } = parseToml(insertBlock(document.text, document.firstTable, tables))
  const expected = [...Object.entries(parse(tables)['host'] as TomlTable), ...document.hosts]
  if (!isDeepStrictEqual(top, document.top) || !isDeepStrictEqual(Object.entries(host ?? {}), expected)) {
    throw new ObstacleError(
      'the mirror cannot be put in front of its tables',
      'start each table on a line of its own',
    )
  }
  return { at: document.firstTable, tables }
}

/**
 * For a redirect to the upstream, which trusts what the mirror's table says; there is one for a single mirror without a
 * password. containerd 2 tries TLS once at a mirror that has one, before it connects without.
 */
export function redirectCa(
  { top, hosts }: Pick<HostsDocument, 'top' | 'hosts'>,
  directoryName: string,
  { targets, authorization }: MirrorTables,
): TomlValue | undefined {
  const mayRedirect = targets.length === 1 && authorization === undefined
  return mayRedirect ? upstreamOf({ top, hosts }, registryOf(directoryName))?.ca : undefined
}

/** Paths of all certificates and keys that the document names, as it names them. */
export function certificatePaths({ top, hosts }: HostsDocument): { ca: string[]; client: [string, string][] } {
  const tables = [top, ...hosts.map(([, table]) => table)]
  return {
    ca: tables.flatMap(({ ca }) => (ca === undefined ? [] : ([ca].flat() as string[]))),
    client: tables.flatMap(({ client }) => {
      if (client === undefined) return []
      if (typeof client === 'string') return [[client, client] as [string, string]]
      return (client as (string | [string, string])[]).map((pair): [string, string] =>
        typeof pair === 'string' ? [pair, pair] : pair,
      )
    }),
  }
}

/** Escapes, inline tables over several lines or with a comma at the end, and times without seconds. */
function hasToml11(text: string): boolean {
  if (/\\[ex]/.test(text)) return true
  const strings = /"""[^]*?"""|'''[^]*?'''|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*/g
  const bare = text.replaceAll(strings, '')
  return /\{[^}]*\n|,\s*\}|\d\d:\d\d(?!:?\d)(?![^\n\d:])/.test(bare)
}

function parseToml(text: string): TomlTable {
  try {
    return parse(text)
  } catch (error) {
    throw new ObstacleError(`it is not valid TOML: ${errorMessage(error).split('  ')[0]}`, 'fix the file')
  }
}

function checkHosts(host: TomlValue | undefined): (readonly [string, TomlTable])[] {
  if (host === undefined) return []
  if (!isTable(host)) throw wrongType('host', 'a table for each host, such as [host."https://cache.example"]')
  return Object.entries(host).map(([url, table]) => {
    checkUrl(url, 'host')
    if (!isTable(table))
      throw wrongType(`host.${url}`, `a table for each host, such as [host."https://cache.example"]`)
    checkSettings(table, knownSettings, `of host "${url}"`)
    return [url, table] as const
  })
}

function checkSettings(table: TomlTable, known: readonly string[], where: string): void {
  for (const [key, value] of Object.entries(table)) {
    if (known.includes(key)) checkSetting(key, value, where)
    else if (known.includes(key.toLowerCase())) {
      throw new ObstacleError(
        `versions of containerd read "${key}" ${where} differently`,
        `write ${key.toLowerCase()}`,
      )
    }
  }
}

function checkSetting(key: string, value: TomlValue, where: string): void {
  const isStrings = (list: TomlValue) => Array.isArray(list) && list.every((item) => typeof item === 'string')
  const isFile = (file: TomlValue) => typeof file === 'string' && file !== ''
  const check = (isRight: boolean, wanted: string) => {
    if (!isRight) throw wrongType(`${key} ${where}`, wanted)
  }
  switch (key) {
    case 'capabilities':
      check(isStrings(value), 'a list of strings')
      checkCapabilities(value as string[], where)
      break
    case 'ca':
      check(isFile(value) || (Array.isArray(value) && value.every(isFile)), 'a file, or a list of files')
      break
    case 'client':
      check(
        isFile(value) ||
          (Array.isArray(value) &&
            value.every((pair) => isFile(pair) || (Array.isArray(pair) && pair.length === 2 && pair.every(isFile)))),
        'a file, or a list of files or of pairs of files',
      )
      break
    case 'skip_verify':
    case 'override_path':
      check(typeof value === 'boolean', 'true or false')
      break
    case 'header':
      check(
        isTable(value) && Object.values(value).every((item) => typeof item === 'string' || isStrings(item)),
        'a table of strings or lists of strings',
      )
      break
    case 'dial_timeout':
      check(typeof value === 'string' && (value === '' || durationPattern.test(value)), 'a duration such as "3s"')
      break
  }
}

function checkCapabilities(values: readonly string[], where: string): void {
  for (const value of values) {
    if (capabilities.has(value.toLowerCase())) continue
    throw new ObstacleError(
      `not every version of containerd knows the capability "${value}" ${where}`,
      'write pull, resolve or push only',
    )
  }
}

function checkUrl(value: TomlValue | undefined, what: string): void {
  if (value === undefined || (what === 'server' && value === '')) return
  if (typeof value !== 'string') throw wrongType(what, 'a URL')
  // containerd puts https:// in front of what does not start with "http".
  const hasScheme = /^https?:\/\//.test(value)
  if (urlPattern.test(value) && (hasScheme || !value.startsWith('http'))) return
  throw new ObstacleError(`${what} "${value}" is not a plain URL`, 'write it as https://HOST[:PORT][/PATH]')
}

function checkMirrorIsNew({ hosts }: HostsDocument, { targets }: MirrorTables): void {
  const mirrors = new Set(targets.map(withoutDefaultPort))
  const own = hosts.find(([url]) => mirrors.has(withoutDefaultPort(url)))
  if (own === undefined) return
  throw new ObstacleError(`it names the mirror itself, as "${own[0]}"`, 'remove that host from the file')
}

/** A file without hosts is decoded by some versions only: fine where that makes no difference. */
function checkHostless(
  { top, hosts }: HostsDocument,
  directoryName: string,
  { dialect, hasCertificates }: { dialect: Dialect; hasCertificates: boolean },
): void {
  if (dialect.readsHostlessFiles || hosts.length > 0) return
  const registry = registryOf(directoryName)
  const server = registry === 'docker.io' ? 'https://registry-1.docker.io' : `https://${registry}`
  const isDefault = top['server'] === server || top['server'] === `${server}/v2`
  const isLocal = /^(localhost|127\.|\[)/.test(registry)
  const settings = Object.keys(top).filter(
    (key) => topSettings.includes(key) && !(key === 'server' && isDefault && !isLocal),
  )
  if (settings.length === 0 && !hasCertificates) return
  throw new ObstacleError(
    'it has no [host] table, and containerd 1.6 ignores such a file while later versions do not',
    `put its settings below [host."${typeof top['server'] === 'string' ? top['server'] : server}"], or name containerd 2 by --containerd-sock`,
  )
}

/** Table headers with the offsets of their lines, in order. */
function tablesOf(text: string): { at: number; keys: string[] }[] {
  const tables: { at: number; keys: string[] }[] = []
  for (let at = 0; at < text.length; at = text.indexOf('\n', at) + 1 || text.length) {
    const line = text.slice(at, (text.indexOf('\n', at) + 1 || text.length + 1) - 1)
    // Within a string or an array of several lines the text before is not complete.
    if (/^[ \t]*\[/.test(line) && isToml(text.slice(0, at))) tables.push({ at, keys: keysOf(line) })
  }
  return tables
}

function keysOf(header: string): string[] {
  const keys: string[] = []
  for (let value: TomlValue | undefined = parseToml(header.trimEnd()); isTable(value);) {
    const [key, next]: [string?, TomlValue?] = Object.entries(value)[0] ?? []
    if (key === undefined) break
    keys.push(key)
    value = Array.isArray(next) ? next[0] : next
  }
  return keys
}

function isToml(text: string): boolean {
  return parsed(() => parse(text)) !== undefined
}

function isTable(value: TomlValue | undefined): value is TomlTable {
  return typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date)
}

function wrongType(what: string, wanted: string): ObstacleError {
  return new ObstacleError(`${what} has the wrong type, so containerd cannot decode the file`, `write ${wanted}`)
}
