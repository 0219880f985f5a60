/** Registries and mirrors as options name them: `https://docker.io`, `http://127.0.0.1:5000`, `_default`. */
import { UserError } from '../lib/errors.ts'

/** All registries that have no folder of their own (containerd's name for it). */
export const wildcardRegistry = '_default'

export interface MirroredRegistry {
  /** Folder under certs.d, and the value of `ns`: a host with an optional port, or `_default`. */
  host: string
  /** Where containerd goes without a mirror; undefined for `_default`. */
  server: string | undefined
}

/** Throws a UserError that names the option. `_default` and `*` may stand once. */
export function parseMirroredRegistries(values: readonly string[], option: string): MirroredRegistry[] {
  const registries = values.map((value) => {
    if (value === wildcardRegistry || value === '*') return { host: wildcardRegistry, server: undefined }
    const { host, origin } = parseOrigin(value, option)
    // docker.io is a name only; its content is at another host.
    return { host, server: host === 'docker.io' ? 'https://registry-1.docker.io' : origin }
  })
  const hosts = registries.map(({ host }) => host)
  const repeated = hosts.find((host, index) => hosts.indexOf(host) !== index)
  if (repeated !== undefined) throw new UserError(`${option}: ${repeated} is named twice: name it once`)
  return registries
}

/** URLs that containerd asks first. Throws a UserError that names the option. */
export function parseMirrorTargets(values: readonly string[], option: string): string[] {
  if (values.length === 0) throw new UserError(`${option}: name at least one URL, such as http://127.0.0.1:5000`)
  return values.map((value) => parseOrigin(bracketIpv6(value), option).origin)
}

function parseOrigin(value: string, option: string): { host: string; origin: string } {
  const url = URL.parse(value)
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new UserError(
      `${option}: "${value}" is not a URL: write it with http:// or https://, such as https://docker.io`,
    )
  }
  if (url.pathname !== '/' || url.search !== '' || url.username !== '' || url.password !== '' || url.hash !== '') {
    throw new UserError(`${option}: "${value}" has more than a host: leave out path, query and user`)
  }
  return { host: url.host, origin: url.origin }
}

/** `http://fd00::1:5000`, as it comes from a node's address and a port put together: the last group is the port. */
function bracketIpv6(value: string): string {
  const match = /^(https?:\/\/)([0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:]*):(\d+)$/.exec(value)
  return match === null ? value : `${match[1]}[${match[2]}]:${match[3]}`
}
