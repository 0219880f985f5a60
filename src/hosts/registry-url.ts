/**
 * Registries and mirrors as options name them: `https://docker.io`, `http://127.0.0.1:5000`, `_default`. The text is taken
 * as it is: a URL parser drops default ports and rewrites addresses, while containerd looks for the name that stands in
 * the image reference.
 */
import { isIP } from 'node:net'
import { UserError } from '../lib/errors.ts'

/** containerd's name for every registry without a directory of its own. */
export const wildcardRegistry = '_default'

export interface MirroredRegistry {
  /** Directory under certs.d, and the value of `ns`: a host with an optional port, or `_default`. */
  host: string
  /** Where containerd goes without a mirror; undefined for `_default`. */
  server: string | undefined
}

/** Other names of Docker Hub. containerd asks mirrors for all of them as docker.io. */
const dockerHubAliases = new Set([
  'index.docker.io',
  'registry-1.docker.io',
  'hub.docker.com',
  'registry.hub.docker.com',
])

/** Throws a UserError that names the option. `_default` and `*` may appear once. */
export function parseMirroredRegistries(values: readonly string[], option: string): MirroredRegistry[] {
  const registries = values.map((value) => {
    if (value === wildcardRegistry || value === '*') return { host: wildcardRegistry, server: undefined }
    const { host, origin } = parseOrigin(value, option)
    if (dockerHubAliases.has(host.replace(/:443$/, ''))) {
      throw new UserError(`${option}: "${value}": containerd knows Docker Hub as docker.io: write https://docker.io`)
    }
    // docker.io is a name only; its content is at another host.
    return { host, server: host === 'docker.io' ? 'https://registry-1.docker.io' : origin }
  })
  const hosts = registries.map(({ host }) => host)
  const repeated = hosts.find((host, index) => hosts.indexOf(host) !== index)
  if (repeated !== undefined) throw new UserError(`${option}: ${repeated} is named twice: name it once`)
  return registries
}

/** URLs that containerd asks first, each once. Throws a UserError that names the option. */
export function parseMirrorTargets(values: readonly string[], option: string): string[] {
  if (values.length === 0) throw new UserError(`${option}: name at least one URL, such as http://127.0.0.1:5000`)
  const targets = values.map((value) => {
    const { host, origin } = parseOrigin(bracketIpv6(value), option)
    const unspecified = /^(0\.0\.0\.0|\[[0:]*\])(:|$)/.exec(host)?.[1]
    if (unspecified === undefined) return origin
    throw new UserError(
      `${option}: "${value}": ${unspecified} is not an address to connect to: write 127.0.0.1 or [::1]`,
    )
  })
  return [...new Map(targets.map((target) => [withoutDefaultPort(target), target])).values()]
}

/** Whether two URLs name the same scheme, host and port, however they are written. Undefined: not a URL. */
export function withoutDefaultPort(url: string): string | undefined {
  return URL.parse(url.includes('://') ? url : `https://${url}`)?.origin
}

function parseOrigin(value: string, option: string): { host: string; origin: string } {
  const fail = (problem: string): never => {
    // A password must not reach a log.
    throw new UserError(`${option}: "${value.replace(/\/\/[^/]*@/, '//')}" ${problem}`)
  }
  const variable = /\$\(?\{?\w*\}?\)?|%\w+%|\{\{.*\}\}/.exec(value)?.[0]
  if (variable !== undefined)
    fail(`contains ${variable}, a variable that nothing has replaced: define it, or write the value`)
  const match = /^(https?):\/\/([^/?#@]*)(\/?)(.*)$/i.exec(value)
  if (match === null) return fail('is not a URL: write it with http:// or https://, such as https://docker.io')
  const [, scheme = '', authority = '', , rest = ''] = match
  if (rest !== '') fail('has more than a host: leave out path, query and user')
  if (authority.includes('*'))
    fail('has a wildcard, which containerd does not know: name each registry, or _default for all')
  const [, name = '', port] = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(authority) ?? []
  if (!isHostName(name)) {
    const zone = name.includes('%') ? ': leave out the zone, which containerd does not know' : ''
    fail(`has no valid host${zone || ': write a DNS name, an IPv4 address, or an IPv6 address in brackets'}`)
  }
  if (port !== undefined && !isPort(port)) fail(`has no valid port: write a number from 1 to 65535 after the colon`)
  const host = authority.toLowerCase()
  return { host, origin: `${scheme.toLowerCase()}://${host}` }
}

function isHostName(name: string): boolean {
  if (name.startsWith('[')) return isIP(name.slice(1, -1)) === 6 && !name.includes('%')
  // Digits and dots only would be an address: containerd and a URL parser read incomplete ones differently.
  if (/^[\d.]+$/.test(name)) return isIP(name) === 4
  return name.length <= 253 && name.split('.').every((label) => /^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/i.test(label))
}

function isPort(port: string): boolean {
  return /^[1-9]\d{0,4}$/.test(port) && Number(port) <= 65_535
}

/** `http://fd00::1:5000`, as it comes from a node's address and a port put together: the last group is the port. */
function bracketIpv6(value: string): string {
  const match = /^(https?:\/\/)([0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:]*):(\d+)\/?$/.exec(value)
  return match === null ? value : `${match[1]}[${match[2]}]:${match[3]}`
}
