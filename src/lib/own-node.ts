/**
 * Which connections come from this node itself, where its containerd runs. containerd connects from a loopback address, from
 * an address of the node, or, behind kube-proxy, from the address that the node has on the pod's network: the gateway. The
 * address of a connection cannot be forged as a header can. A pod of this node that connects through kube-proxy has the same
 * address, though, and cannot be told apart.
 */
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { canonicalIp } from './address.ts'
import { isSystemError } from './errors.ts'

export interface OwnNodeSources {
  /** The addresses of all interfaces that this process sees. */
  interfaceIps: () => string[]
  /** The gateways of the default routes. */
  gatewayIps: () => string[]
}

/** The text of `/proc/net/route` and `/proc/net/ipv6_route`, or an empty one. */
export type ReadRoutes = (path: '/proc/net/route' | '/proc/net/ipv6_route') => string

export class OwnNode {
  readonly #ips: ReadonlySet<string>

  /** `nodeIps`: named by the operator. All addresses are read once: those of a pod do not change. */
  constructor(nodeIps: readonly string[], { interfaceIps, gatewayIps }: OwnNodeSources = systemSources()) {
    this.#ips = new Set(['127.0.0.1', '::1', ...interfaceIps(), ...gatewayIps(), ...nodeIps].map(canonicalIp))
  }

  /** `remoteAddress`: that of a socket; undefined once the socket is closed. */
  has(remoteAddress: string | undefined): boolean {
    return remoteAddress !== undefined && this.#ips.has(canonicalIp(remoteAddress))
  }
}

export function systemSources(readRoutes: ReadRoutes = readFileOrNothing): OwnNodeSources {
  return {
    interfaceIps: () =>
      Object.values(networkInterfaces())
        .flatMap((addresses) => addresses ?? [])
        .map(({ address }) => address),
    gatewayIps: () => [
      ...gatewaysV4(readRoutes('/proc/net/route')),
      ...gatewaysV6(readRoutes('/proc/net/ipv6_route')),
    ],
  }
}

/** Columns: interface, destination, gateway, …, mask at 7; addresses are little-endian hexadecimal (proc(5)). */
function gatewaysV4(text: string): string[] {
  const rows = text.split('\n').map((line) => line.split(/\s+/))
  return rows.flatMap(([, destination, gateway = '', ...rest]) => {
    const isDefault = destination === '00000000' && rest[4] === '00000000'
    if (!isDefault || !/^[0-9a-f]{8}$/i.test(gateway) || gateway === '00000000') return []
    return [[...Buffer.from(gateway, 'hex')].toReversed().join('.')]
  })
}

/** Columns: destination, its prefix length, source, its prefix length, gateway. */
function gatewaysV6(text: string): string[] {
  const rows = text.split('\n').map((line) => line.split(/\s+/))
  return rows.flatMap(([destination, prefixLength, , , gateway = '']) => {
    const isDefault = /^0{32}$/.test(destination ?? '') && prefixLength === '00'
    if (!isDefault || !/^[0-9a-f]{32}$/i.test(gateway) || /^0{32}$/.test(gateway)) return []
    return [gateway.match(/.{4}/g)?.join(':') ?? '']
  })
}

function readFileOrNothing(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (!isSystemError(error)) throw error
    return ''
  }
}
