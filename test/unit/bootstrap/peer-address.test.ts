import fc from 'fast-check'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, it } from 'vitest'
import { parseStaticPeer } from '../../../src/bootstrap/static.ts'
import { undialableReason } from '../../../src/lib/peer-address.ts'

const id = '12D3KooWNi4JRLATQcLauik8xAukw3frUC7cJ2PDzS7kRjtVAucq'
const option = '--static-bootstrap-peers'

describe('a static bootstrap peer', () => {
  it.each([
    ['10.0.0.1:5001', '/ip4/10.0.0.1/tcp/5001'],
    ['127.0.0.1:1', '/ip4/127.0.0.1/tcp/1'],
    ['10.0.0.1:65535', '/ip4/10.0.0.1/tcp/65535'],
    ['[fd00::1]:5001', '/ip6/fd00::1/tcp/5001'],
    ['[::ffff:10.0.0.1]:5001', '/ip6/::ffff:10.0.0.1/tcp/5001'],
    ['/ip4/10.0.0.1/tcp/5001', '/ip4/10.0.0.1/tcp/5001'],
    [`/ip4/10.0.0.1/tcp/5001/p2p/${id}`, `/ip4/10.0.0.1/tcp/5001/p2p/${id}`],
    ['/ip6/fd00::1/tcp/5001', '/ip6/fd00::1/tcp/5001'],
    ['/dns/node-1.example/tcp/5001', '/dns/node-1.example/tcp/5001'],
    ['/dns4/localhost/tcp/5001', '/dns4/localhost/tcp/5001'],
    ['/dns6/_peers.mirror.svc.cluster.local./tcp/5001', '/dns6/_peers.mirror.svc.cluster.local./tcp/5001'],
  ])('is accepted as %s', (peer, expected) => {
    expect(parseStaticPeer(peer, option)).toBe(expected)
  })

  it.each([
    ['10.0.0.1:99999', /the port "99999": a port is a number from 1 to 65535/],
    ['10.0.0.1:65536', /the port "65536"/],
    ['10.0.0.1:0', /the port "0"/],
    ['/ip4/10.0.0.1/tcp/0', /the port "0"/],
    ['/ip4/10.0.0.1/tcp/70000', /the port "70000"/],
    ['/ip4/10.0.0.1/tcp/05001', /the port "05001"/],
    ['/ip4/10.0.0.1/tcp', /the port ""/],
    ['10.0.0.1', /is not a peer/],
    ['10.0.0.1:', /is not a peer/],
    ['10.0.0.1:-1', /is not a peer/],
    ['10.0.0.1:http', /is not a peer/],
    ['', /is not a peer/],
    ['node-1:5001', /is not a peer/],
    ['http://10.0.0.1:5001', /is not a peer/],
    ['10.0.0.256:5001', /"10\.0\.0\.256", which is not an IPv4 address/],
    ['10.0.0:5001', /which is not an IPv4 address/],
    ['010.0.0.1:5001', /which is not an IPv4 address/],
    ['[fd00::1:5001', /is not a peer/],
    ['[fd00::1]5001', /is not a peer/],
    ['[fd00:::1]:5001', /which is not an IPv6 address/],
    ['/ip4/fd00::1/tcp/5001', /which is not an IPv4 address/],
    ['/ip6/10.0.0.1/tcp/5001', /which is not an IPv6 address/],
    ['[fe80::1%eth0]:5001', /zone id/],
    ['fe80::1%eth0:5001', /zone id/],
    ['/ip6/fe80::1%eth0/tcp/5001', /zone id/],
    ['/ip6zone/eth0/ip6/fe80::1/tcp/5001', /does not start with/],
    ['[fe80::1]:5001', /link-local/],
    ['0.0.0.0:5001', /unspecified/],
    ['0.1.2.3:5001', /unspecified/],
    ['[::]:5001', /unspecified/],
    ['[0:0:0:0:0:0:0:0]:5001', /unspecified/],
    ['[::ffff:0.0.0.0]:5001', /unspecified/],
    ['/dns4/0.0.0.0/tcp/5001', /unspecified/],
    ['224.0.0.1:5001', /multicast/],
    ['239.255.255.250:5001', /multicast/],
    ['[ff02::1]:5001', /multicast/],
    ['[::ffff:224.0.0.1]:5001', /multicast/],
    ['255.255.255.255:5001', /broadcast/],
    ['240.0.0.1:5001', /reserved/],
    ['/ip4/10.0.0.1', /only tcp is supported/],
    ['/ip4/10.0.0.1/udp/5001', /the transport "udp": only tcp is supported/],
    ['/ip4/10.0.0.1/udp/5001/quic-v1', /only tcp is supported/],
    ['/ip4/10.0.0.1/tcp/5001/ws', /"\/ws" after the port/],
    ['/ip4/10.0.0.1/tcp/5001/http', /"\/http" after the port/],
    ['/ip4/10.0.0.1/tcp/5001/', /after the port/],
    ['/ip4/10.0.0.1/tcp/5001/p2p', /is not valid/],
    ['/ip4/10.0.0.1/tcp/5001/p2p/abc', /the peer id "abc", which is not valid/],
    [`/ip4/10.0.0.1/tcp/5001/p2p/${id.slice(0, -1)}`, /is not valid/],
    [`/ip4/10.0.0.1/tcp/5001/p2p/${id}x`, /is not valid/],
    [`/ip4/10.0.0.1/tcp/5001/p2p/${id.replace('N', '0')}`, /is not valid/],
    [`/ip4/10.0.0.1/tcp/5001/p2p/${id}/p2p-circuit`, /after the port/],
    [`/p2p/${id}`, /does not start with/],
    ['/dnsaddr/peers.example/tcp/5001', /does not start with/],
    ['/unix/run/peer.sock', /does not start with/],
    ['/dns4//tcp/5001', /"", which is not a DNS name/],
    ['/dns4/-x.example/tcp/5001', /which is not a DNS name/],
    ['/dns4/a b/tcp/5001', /which is not a DNS name/],
    ['/dns4/10.0.0.999/tcp/5001', /which is not a DNS name/],
    [`/dns4/${'x'.repeat(64)}.example/tcp/5001`, /which is not a DNS name/],
  ])('is refused as "%s", with the option, the value and what to write', (peer, reason) => {
    const parse = () => parseStaticPeer(peer, option)
    expect(parse).toThrow(reason)
    expect(parse).toThrow(`${option}: "${peer}" `)
    expect(parse).toThrow(/: write IP:PORT, or a multiaddr like [^\n]+$/)
  })

  it('may have the id of each kind of key', async () => {
    for (const type of ['Ed25519', 'secp256k1', 'RSA'] as const) {
      const peerId = peerIdFromPrivateKey(await generateKeyPair(type))
      expect(undialableReason(`/ip4/10.0.0.1/tcp/5001/p2p/${peerId.toString()}`)).toBeUndefined()
    }
  })

  it('is accepted only when libp2p can parse it', () => {
    const part = fc.oneof(
      fc.constantFrom('ip4', 'ip6', 'dns4', 'tcp', 'udp', 'p2p', 'ws', '', '10.0.0.1', 'fd00::1', '5001', '0', id),
      fc.ipV4(),
      fc.ipV6(),
      fc.nat(100_000).map(String),
      fc.string({ maxLength: 60 }),
    )
    const likely = fc
      .tuple(fc.constantFrom('ip4', 'ip6', 'dns4'), part, part, part, fc.constantFrom('', `/p2p/${id}`, '/ws'))
      .map(([family, host, port, other, end]) => `/${family}/${host}/${other === '' ? 'udp' : 'tcp'}/${port}${end}`)
    const any = fc.array(part, { maxLength: 7 }).map((parts) => `/${parts.join('/')}`)
    fc.assert(
      fc.property(fc.oneof(likely, any), (address) => {
        if (undialableReason(address) === undefined) multiaddr(address)
      }),
      { numRuns: 2_000 },
    )
  })
})
