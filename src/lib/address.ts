/** Addresses as options write them: `host:port`, `:port`, `[v6]:port`. */
import { isIP } from 'node:net'
import { UserError } from './errors.ts'

export interface HostPort {
  /** Empty for "all addresses". IPv6 without brackets. */
  host: string
  port: number
}

/** Parses `host:port`; an empty host means all addresses. Throws a UserError that names the option. */
export function parseHostPort(text: string, option: string): HostPort {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65_535) {
    throw new UserError(`${option}: "${text}" is not an address: write HOST:PORT or :PORT, IPv6 in brackets`)
  }
  return { host: match[1] ?? match[2] ?? '', port }
}

/** `host:port` with brackets around IPv6. */
export function formatHostPort(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
}
