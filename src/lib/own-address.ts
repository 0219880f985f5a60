/** Which of this machine's addresses others reach it at. */
import { createSocket } from 'node:dgram'
import { networkInterfaces } from 'node:os'
import { isSystemError } from './errors.ts'

/** Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket sends nothing, it only picks the route. */
const probes = [
  { type: 'udp4', address: '192.0.2.1' },
  { type: 'udp6', address: '2001:db8::1' },
] as const

/**
 * The address of the default route, IPv4 before IPv6; without a route the first address that is not loopback. Link
 * local addresses do not count. Undefined when the machine has only loopback.
 */
export async function ownAddress(): Promise<string | undefined> {
  for (const { type, address } of probes) {
    const routed = await sourceAddress(type, address)
    if (routed !== undefined) return routed
  }
  const candidates = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
  return (candidates.find(({ family }) => family === 'IPv4') ?? candidates[0])?.address
}

function sourceAddress(type: 'udp4' | 'udp6', target: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(type)
    const finish = (address: string | undefined) => {
      socket.close()
      resolve(address)
    }
    // No route to it.
    socket.once('error', (error) => (isSystemError(error) ? finish(undefined) : reject(error)))
    socket.connect(9, target, () => {
      const { address } = socket.address()
      finish(address === '0.0.0.0' || address === '::' ? undefined : address)
    })
  })
}
