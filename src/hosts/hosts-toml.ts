/**
 * The text of a hosts.toml (containerd docs/hosts.md). Only what containerd 1.6 to 2.3 all accept: a word that one of
 * them does not know makes it ignore the whole file, silently. `dial_timeout` is read from 2.0 on and skipped before.
 */
import { type TomlTable, type TomlValue, parse, stringify } from 'smol-toml'
import { UserError, errorMessage } from '../lib/errors.ts'
import { registryOf, upstreamOf } from './upstream.ts'

/** A dead daemon must not slow pulls: containerd's own default is 30 s for each request. */
const dialTimeout = '200ms'

export interface HostsTomlInit {
  /** Where containerd goes when the hosts do not have it; undefined: the registry's own name. */
  server: string | undefined
  /** URLs, asked in this order. */
  targets: readonly string[]
  /** Ask the mirror what a tag stands for, too. */
  resolveTags: boolean
  /** The value of an Authorization header for the mirror. */
  authorization: string | undefined
}

/** Our hosts only. Single quotes as TOML literals: URLs need no escapes. */
export function renderHostsToml({ server, ...init }: HostsTomlInit): string {
  const head = server === undefined ? '' : `server = '${server}'\n\n`
  return `${head}${renderTargets(init)}`
}

export interface ExistingHosts {
  text: string
  path: string
  /** Name of the folder that it is in. */
  folder: string
}

/**
 * Our hosts first, then everything of the existing file as it was: its own `server`, certificates and hosts.
 * Throws a UserError when the existing text is not TOML.
 */
export function prependHostsToml({ text, path, folder }: ExistingHosts, { server, ...init }: HostsTomlInit): string {
  const { host, ...top } = parseToml(text, path)
  const kept = server === undefined ? top : { server, ...top }
  const targets = new Set(init.targets)
  const hosts = Object.entries((host ?? {}) as TomlTable).filter(([url]) => !targets.has(url))
  // Only for a redirect to the upstream, which trusts what the mirror's table says; there is one for a single mirror
  // without a password. containerd 2 tries TLS once at a mirror that has one, before it asks without.
  const mayRedirect = targets.size === 1 && init.authorization === undefined
  const ca = mayRedirect ? upstreamOf({ top: kept, hosts }, registryOf(folder))?.ca : undefined
  return [
    Object.keys(kept).length === 0 ? '' : `${stringify(kept).trim()}\n`,
    renderTargets(init, ca),
    hosts.length === 0 ? '' : `${stringify({ host: Object.fromEntries(hosts) }).trim()}\n`,
  ]
    .filter((part) => part !== '')
    .join('\n')
}

function renderTargets(
  { targets, resolveTags, authorization }: Omit<HostsTomlInit, 'server'>,
  ca?: TomlValue,
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

function parseToml(text: string, path: string): TomlTable {
  try {
    return parse(text)
  } catch (error) {
    throw new UserError(`${path}: ${errorMessage(error)}: mend it; nothing was changed`)
  }
}
