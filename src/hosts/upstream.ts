/**
 * Where containerd would go for a registry if the mirror had nothing, for redirects (307) to it. Only where that is
 * certain to be the same: a redirect uses the TLS settings and headers of the mirror's own table in hosts.toml, and
 * jumps over hosts that stand between the mirror and `server`.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { type TomlTable, type TomlValue, TomlError, parse } from 'smol-toml'
import { errorCode, isSystemError } from '../lib/errors.ts'
import { wildcardRegistry } from './registry-url.ts'

/** What hosts.toml says of a registry, without the mirror's table. */
interface Behind {
  /** Its settings at the top, which are those of `server`. */
  top: TomlTable
  /** Those that are asked between the mirror and `server`, by URL. */
  hosts: readonly (readonly [string, TomlValue])[]
}

export interface Upstream {
  /** Scheme and host. */
  origin: string
  /** Certificates of who may sign for it, beside those that the system trusts: one file, or a list. */
  ca: TomlValue | undefined
}

/** Settings of a host that the redirected request would carry to the upstream, or that say how to trust it. */
const harmless = new Set(['capabilities', 'dial_timeout', 'ca'])
/** Settings of the server that the redirected request would have to do without. */
const needed = ['skip_verify', 'header', 'client', 'override_path']
/** containerd may ask it without TLS, by rules of its own. */
const thisMachine = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/
const dockerHub = 'docker.io'
const dockerHubServer = 'https://registry-1.docker.io'

/** Scheme and host of the upstream; undefined: containerd has to find its own way. Read anew each time, as it does. */
export async function upstreamOrigin(folder: string, registry: string): Promise<string | undefined> {
  for (const name of [...directoryNames(registry), wildcardRegistry]) {
    try {
      return originFrom(await readFile(join(folder, name, 'hosts.toml'), 'utf8'), registry)
    } catch (error) {
      // containerd may read what is closed to us: what it finds there is not what the next name says.
      if (!isSystemError(error)) throw error
      if (errorCode(error) !== 'ENOENT') return undefined
    }
  }
  return undefined
}

/** The only one that containerd asks after the mirror. Undefined: there are several, or it needs more than an authority. */
export function upstreamOf({ top, hosts }: Behind, registry: string): Upstream | undefined {
  const server = top['server'] ?? (registry === dockerHub ? dockerHubServer : `https://${registry}`)
  const origin = typeof server === 'string' ? originOf(server) : undefined
  if (origin === undefined) return undefined
  const [host, ...more] = hosts
  if (host === undefined) {
    if (needed.some((key) => key in top)) return undefined
    if (top['server'] === undefined && thisMachine.test(registry)) return undefined
    return { origin, ca: top['ca'] }
  }
  // The server once more, as many people write it to give it settings: it is asked with these first.
  const [url, table] = host
  if (more.length > 0 || originOf(url) !== origin || !isHarmless(table) || !canPull(table)) return undefined
  return { origin, ca: table['ca'] }
}

function originFrom(text: string, registry: string): string | undefined {
  let document: TomlTable
  try {
    document = parse(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    return undefined
  }
  const { host, ...top } = document
  const [mirror, ...hosts] = Object.entries((host ?? {}) as TomlTable)
  if (mirror === undefined || !isHarmless(mirror[1])) return undefined
  const upstream = upstreamOf({ top, hosts }, registry)
  // Where the upstream needs no private authority, any will do.
  const isTrusted = upstream?.ca === undefined || isDeepStrictEqual(upstream.ca, mirror[1]['ca'])
  return isTrusted ? upstream?.origin : undefined
}

function originOf(server: string): string | undefined {
  const url = URL.parse(server.includes('://') ? server : `https://${server}`)
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '') return undefined
  return /^\/?(v2\/?)?$/.test(url.pathname) ? url.origin : undefined
}

function isHarmless(table: TomlValue): table is TomlTable {
  return typeof table === 'object' && !Array.isArray(table) && Object.keys(table).every((key) => harmless.has(key))
}

/** Without a word about it a host can do everything. */
function canPull({ capabilities }: TomlTable): boolean {
  return capabilities === undefined || (Array.isArray(capabilities) && capabilities.includes('pull'))
}

/** Whose folder it is. */
export function registryOf(folderName: string): string {
  return folderName.replace(/_(\d+)_$/, ':$1')
}

/** A registry's own directory, in the order in which containerd looks: with the port in a form that all file systems hold. */
export function directoryNames(registry: string): string[] {
  const colon = registry.lastIndexOf(':')
  return colon > 0 ? [`${registry.slice(0, colon)}_${registry.slice(colon + 1)}_`, registry] : [registry]
}
