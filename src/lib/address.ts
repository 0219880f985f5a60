/** Addresses as options write them: `host:port`, `:port`, `[v6]:port`. */
import { BlockList, isIP } from 'node:net'
import { UserError } from './errors.ts'

export interface HostPort {
  /** Empty for "all addresses". IPv6 without brackets. */
  host: string
  port: number
}

/** Parses `host:port`; an empty host means all addresses. Throws a UserError that names the option. */
export function parseHostPort(text: string, option: string): HostPort {
  const [, ipv6, name, digits] = /^(?:\[([^\]]*)\]|([\w.-]*)):(\d{1,5})$/.exec(text) ?? []
  const port = Number(digits)
  if (digits === undefined || port > 65_535 || (ipv6 !== undefined && isIP(ipv6) !== 6)) {
    throw new UserError(`${option}: "${text}" is not an address: write HOST:PORT or :PORT, IPv6 in brackets`)
  }
  return { host: ipv6 ?? name ?? '', port }
}

/** Not the address of one machine: the unspecified addresses, multicast, and broadcast. */
const notUnicast = new BlockList()
notUnicast.addAddress('0.0.0.0')
notUnicast.addAddress('::', 'ipv6')
notUnicast.addSubnet('224.0.0.0', 4)
notUnicast.addSubnet('ff00::', 8, 'ipv6')
notUnicast.addAddress('255.255.255.255')

/**
 * An IP address that other nodes can connect to. Throws a UserError that names the option. A zone (`fe80::1%eth0`) only
 * has a meaning on the machine itself.
 */
export function parsePeerIp(text: string, option: string): string {
  const family = isIP(text)
  if (family === 0) throw new UserError(`${option}: "${text}" is not an IP address: write it without port and prefix`)
  if (text.includes('%') || notUnicast.check(text, family === 6 ? 'ipv6' : 'ipv4')) {
    throw new UserError(
      `${option}: other nodes cannot reach "${text}": write an address of this node on their network`,
    )
  }
  return text
}

/** `host:port` with brackets around IPv6. */
export function formatHostPort(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
}

/** The host if it is one IP address; undefined for all addresses, and for a name. */
export function oneIp(host: string): string | undefined {
  return isIP(host) === 0 || host === '0.0.0.0' || host === '::' ? undefined : host
}

/** One spelling for each IP address: IPv4-mapped addresses as IPv4, IPv6 compressed, without a zone. */
export function canonicalIp(ip: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip)?.[1]
  if (mapped !== undefined) return mapped
  if (isIP(ip) !== 6) return ip
  return new URL(`http://[${ip.replace(/%.*/, '')}]`).hostname.slice(1, -1)
}

/** The IP address in a Host header, in its canonical spelling. Undefined when the header names no IP address. */
export function parseHostHeader(host: string): string | undefined {
  const [, ipv6, ipv4] = /^(?:\[([0-9a-f:.]+)\]|([\d.]+))(?::\d{1,5})?$/i.exec(host) ?? []
  const ip = ipv6 ?? ipv4 ?? ''
  return isIP(ip) === 0 ? undefined : canonicalIp(ip)
}
