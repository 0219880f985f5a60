/**
 * Judges the multiaddr of a peer before it is dialled. The router dials IP addresses and DNS names over TCP and nothing
 * else; a single address that it cannot dial must neither fail the others nor be retried for as long as the daemon runs.
 */
import { BlockList, isIP } from 'node:net'

/** Ranges in which no peer can ever listen, each with the reason. Rules for IPv4 also match IPv4-mapped IPv6 addresses. */
const undialableRanges = [
  range('ipv4', '0.0.0.0', 8, 'is the unspecified address'),
  range('ipv6', '::', 128, 'is the unspecified address'),
  range('ipv4', '224.0.0.0', 4, 'is a multicast address'),
  range('ipv6', 'ff00::', 8, 'is a multicast address'),
  range('ipv4', '255.255.255.255', 32, 'is the broadcast address'),
  range('ipv4', '240.0.0.0', 4, 'is a reserved address'),
  range('ipv6', 'fe80::', 10, 'is a link-local address, which cannot be dialled without an interface'),
]

/**
 * Why nothing can ever be reached at this multiaddr (`/ip4/10.0.0.1/tcp/5001[/p2p/12D3…]`), as the end of a sentence;
 * undefined when it can be dialled.
 */
export function undialableReason(address: string): string | undefined {
  const [start, family = '', host = '', transport, port = '', ...rest] = address.split('/')
  if (start !== '' || !['ip4', 'ip6', 'dns', 'dns4', 'dns6'].includes(family)) {
    return 'does not start with /ip4/, /ip6/, /dns/, /dns4/ or /dns6/'
  }
  const hostReason = family.startsWith('ip') ? undialableIpReason(host, family) : undialableNameReason(host)
  if (hostReason !== undefined) return hostReason
  if (transport !== 'tcp') return `has the transport "${transport ?? ''}": only tcp is supported`
  if (!isDialablePort(port)) return `has the port "${port}": a port is a number from 1 to 65535`
  if (rest.length === 0) return undefined
  const [protocol, id = '', ...more] = rest
  if (protocol !== 'p2p' || more.length > 0)
    return `has "/${rest.join('/')}" after the port: only /p2p/ID is supported`
  return isPeerId(id) ? undefined : `has the peer id "${id}", which is not valid`
}

function undialableIpReason(ip: string, family: string): string | undefined {
  if (ip.includes('%')) return `has the zone id of "${ip}": zone ids are not supported`
  const version = isIP(ip)
  if (version === 0 || family !== `ip${version}`) return `has "${ip}", which is not an IPv${family.slice(2)} address`
  const found = undialableRanges.find(({ list }) => list.check(ip, version === 4 ? 'ipv4' : 'ipv6'))
  return found?.reason
}

function undialableNameReason(name: string): string | undefined {
  const version = isIP(name)
  if (version !== 0) return undialableIpReason(name, `ip${version}`)
  const isName =
    /^(?!.{254})([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?$/i.test(name)
  // A last label of digits is a misspelled IP address: no top-level domain is numeric.
  return isName && !/(^|\.)\d+\.?$/.test(name) ? undefined : `has "${name}", which is not a DNS name`
}

/** Decimal without a leading zero, as multiaddrs are written. */
function isDialablePort(text: string): boolean {
  return /^[1-9]\d{0,4}$/.test(text) && Number(text) <= 65_535
}

/** The kinds of peer id: the hash of an RSA key, or an Ed25519 or secp256k1 key itself, each by its first bytes and length. */
const peerIdForms = [
  { prefix: '1220', bytes: 34 },
  { prefix: '0024080112', bytes: 38 },
  { prefix: '00250802122102', bytes: 39 },
  { prefix: '00250802122103', bytes: 39 },
]

function isPeerId(text: string): boolean {
  const hex = decodeBase58(text)
  return peerIdForms.some(({ prefix, bytes }) => hex?.startsWith(prefix) === true && hex.length === 2 * bytes)
}

/** Hex digits, or undefined when the text is too long for a peer id or is not base58. */
function decodeBase58(text: string): string | undefined {
  const alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
  if (text.length > 64) return undefined
  let value = 0n
  for (const character of text) {
    const digit = alphabet.indexOf(character)
    if (digit === -1) return undefined
    value = value * 58n + BigInt(digit)
  }
  const leadingZeros = /^1*/.exec(text)?.[0].length ?? 0
  const digits = value === 0n ? '' : value.toString(16)
  return '00'.repeat(leadingZeros) + digits.padStart(digits.length + (digits.length % 2), '0')
}

function range(family: 'ipv4' | 'ipv6', start: string, prefixBits: number, reason: string) {
  const list = new BlockList()
  list.addSubnet(start, prefixBits, family)
  return { list, reason }
}
