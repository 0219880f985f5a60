/** A given list of first peers. */
import { UserError } from '../lib/errors.ts'
import { undialableReason } from '../lib/peer-address.ts'
import { type Bootstrapper, toMultiaddr } from './bootstrapper.ts'

/** Takes multiaddrs. */
export function staticBootstrapper(peers: readonly string[]): Bootstrapper {
  return { name: 'static', peers: () => Promise.resolve([...peers]) }
}

/**
 * The multiaddr of a peer given as one, or as `IP:PORT`. Throws a UserError that names the option when the peer can never
 * be dialled.
 */
export function parseStaticPeer(peer: string, option: string): string {
  const address = peer.startsWith('/') ? peer : hostPortToMultiaddr(peer)
  const reason = address === undefined ? 'is not a peer' : undialableReason(address)
  if (address !== undefined && reason === undefined) return address
  throw new UserError(
    `${option}: "${peer}" ${reason}: write IP:PORT, or a multiaddr like /ip4/10.0.0.1/tcp/5001 with or without /p2p/ID`,
  )
}

function hostPortToMultiaddr(peer: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+(?:%[^\]]*)?)\]|([0-9a-f:.]+(?:%.*)?)):(\d+)$/i.exec(peer)
  const ip = match?.[1] ?? match?.[2]
  return ip === undefined ? undefined : toMultiaddr(ip, Number(match?.[3]))
}
