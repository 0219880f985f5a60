/**
 * Where containerd would go for a registry if the mirror had nothing, for redirects (307) to it. Only where that is
 * certain to be the same: a redirect uses the TLS settings and headers of the mirror's own table in hosts.toml, and
 * jumps over hosts that stand between the mirror and `server`.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { type TomlTable, parse } from 'smol-toml'
import { wildcardRegistry } from './registry-url.ts'

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
  for (const name of folderNames(registry)) {
    const text = await readFile(join(folder, name, 'hosts.toml'), 'utf8').catch(() => undefined)
    if (text !== undefined) return originFrom(text, registry)
  }
  return undefined
}

function originFrom(text: string, registry: string): string | undefined {
  let document: TomlTable
  try {
    document = parse(text)
  } catch {
    return undefined
  }
  const [mirror, ...others] = Object.values((document['host'] ?? {}) as TomlTable)
  if (typeof mirror !== 'object' || others.length > 0) return undefined
  if (Object.keys(mirror).some((key) => !harmless.has(key))) return undefined
  if (needed.some((key) => key in document) || !hasSameCa(document, mirror as TomlTable)) return undefined
  if (document['server'] === undefined && thisMachine.test(registry)) return undefined
  const server = document['server'] ?? (registry === dockerHub ? dockerHubServer : `https://${registry}`)
  if (typeof server !== 'string') return undefined
  const url = URL.parse(server.includes('://') ? server : `https://${server}`)
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '') return undefined
  return /^\/?(v2\/?)?$/.test(url.pathname) ? url.origin : undefined
}

/** The redirect trusts what the mirror's table says; without a private one for the server any will do. */
function hasSameCa({ ca }: TomlTable, mirror: TomlTable): boolean {
  return ca === undefined || isDeepStrictEqual(ca, mirror['ca'])
}

/** In the order in which containerd looks: with the port in a form that all file systems can hold, then as it is. */
function folderNames(registry: string): string[] {
  const escaped = registry.replace(/:(\d+)$/, '_$1_')
  return [...new Set([escaped, registry, wildcardRegistry])]
}
