/**
 * Addresses that a node of a cluster can be reached at. Peers say anything: what is no IP over TCP is of no use here,
 * and a peer with thousands of addresses would make every answer that names it too long to be read.
 */
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { parsed } from '../lib/foreign.ts'
import { addressesPerPeerMax } from '../limits.ts'

export function reachable(addresses: readonly Multiaddr[]): Multiaddr[] {
  const found: Multiaddr[] = []
  for (const address of addresses) {
    if (found.length >= addressesPerPeerMax) break
    if (isIpOverTcp(address)) found.push(address)
  }
  return found
}

/** As messages carry them. One that cannot be read, perhaps of a kind that we do not know, does not spoil the others. */
export function readReachable(addresses: readonly Uint8Array[]): Multiaddr[] {
  return reachable(addresses.flatMap(read))
}

function read(bytes: Uint8Array): Multiaddr[] {
  const address = parsed(() => multiaddr(bytes))
  return address === undefined ? [] : [address]
}

function isIpOverTcp(address: Multiaddr): boolean {
  const [host, transport] = address.getComponents()
  return (host?.name === 'ip4' || host?.name === 'ip6') && transport?.name === 'tcp'
}
