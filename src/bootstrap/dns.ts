/** First peers from the addresses of a name, in Kubernetes a headless service. All nodes use one router port. */
import { lookup } from 'node:dns/promises'
import { type Bootstrapper, toMultiaddr } from './bootstrapper.ts'

/** All addresses of a name. getaddrinfo, so /etc/hosts and search domains count as they do for other programs. */
export type LookupAddresses = (name: string) => Promise<string[]>

export const systemLookup: LookupAddresses = async (name) =>
  (await lookup(name, { all: true })).map(({ address }) => address)

export function dnsBootstrapper(
  domain: string,
  routerPort: number,
  lookupAddresses: LookupAddresses = systemLookup,
): Bootstrapper {
  return {
    name: `dns ${domain}`,
    async peers(signal) {
      const addresses = await lookupAddresses(domain)
      signal.throwIfAborted()
      return [...new Set(addresses)].map((ip) => toMultiaddr(ip, routerPort))
    },
  }
}
