/** Which URLs in hosts.toml are the address of this daemon. */
import { isIPv4 } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { HostPort } from '../lib/address.ts'

export interface MirrorAddress {
  /** What `--mirror-targets` names: addresses by which containerd reaches the daemon, such as a node port. */
  targets: readonly string[]
  /** Where the daemon listens. */
  listen: HostPort
}

/**
 * `url`: where containerd requests content, with its path. True for one of the targets, and for the daemon's port on any
 * address of this machine.
 */
export function isMirror(url: string, { targets, listen }: MirrorAddress): boolean {
  // As containerd reads it: without a scheme in small letters it is another host.
  const [, origin] = /^(https?:\/\/[^/\s]+)\/v2\/?$/.exec(url) ?? []
  if (origin === undefined) return false
  return targets.some((target) => URL.parse(target)?.origin === URL.parse(origin)?.origin) || isOwnSocket(url, listen)
}

/** Whether a connection to the URL from here ends at this daemon, unless another program has the address. */
export function isOwnSocket(url: string, { port, host }: HostPort): boolean {
  const parsed = parseHost(url)
  if (parsed?.protocol !== 'http:' || Number(parsed.port) !== port) return false
  return parsed.host === host || isLoopback(parsed.host) || isInterface(parsed.host)
}

/** An address of this network namespace that no other namespace has: not loopback. */
export function isOwnInterface(url: string): boolean {
  const host = parseHost(url)?.host
  return host !== undefined && !isLoopback(host) && isInterface(host)
}

function parseHost(url: string): { protocol: string; host: string; port: string } | undefined {
  const parsed = URL.parse(url)
  if (parsed === null) return undefined
  const { protocol, hostname, port } = parsed
  // An IPv6 address has brackets in a URL only.
  return { protocol, host: hostname.replace(/^\[(.*)\]$/, '$1'), port: port === '' ? '80' : port }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'))
}

function isInterface(host: string): boolean {
  return Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === host))
}
