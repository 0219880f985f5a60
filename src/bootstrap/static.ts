/** A given list of first peers. */
import { isIP } from 'node:net'
import { UserError } from '../lib/errors.ts'
import { type Bootstrapper, toMultiaddr } from './bootstrapper.ts'

/** Takes multiaddrs. */
export function staticBootstrapper(peers: readonly string[]): Bootstrapper {
  return { name: 'static', peers: () => Promise.resolve([...peers]) }
}

/** The multiaddr of a peer given as one, or as `IP:PORT`. Throws a UserError that names the option. */
export function parseStaticPeer(peer: string, option: string): string {
  if (/^\/(ip4|ip6|dns|dns4|dns6)\/[^/]+\/tcp\/\d+(\/p2p\/[A-Za-z0-9]+)?$/.test(peer)) return peer
  const match = /^\[?([^\]]+?)\]?:(\d+)$/.exec(peer)
  const [, ip = '', port = ''] = match ?? []
  if (isIP(ip) !== 0) return toMultiaddr(ip, Number(port))
  throw new UserError(`${option}: "${peer}" is not a peer: write IP:PORT or a multiaddr like /ip4/10.0.0.1/tcp/5001`)
}
