/** Messages of the DHT protocol as nobody should send them: arbitraries of fast-check. Framed, or broken in framing. */
import { createHash } from 'node:crypto'
import { multiaddr } from '@multiformats/multiaddr'
import fc from 'fast-check'
import { Message, type Peer } from '../../src/router/generated/kad-dht.ts'
import { lengthPrefixed } from '../../src/router/length-prefixed.ts'

const bytes = (maxLength: number) => fc.uint8Array({ maxLength })
const sha256 = (data: Uint8Array) =>
  Buffer.concat([Buffer.from([0x12, 0x20]), createHash('sha256').update(data).digest()])

const multihash = fc.oneof(
  bytes(40).map(sha256),
  // The identity hash of an Ed25519 key, as peer ids are; the key may be none.
  bytes(32).map((key) => Buffer.concat([Buffer.from([0x00, 0x24, 0x08, 0x01, 0x12, 0x20]), key])),
  bytes(32).map((data) => Buffer.concat([Buffer.from([0x00, data.length]), data])),
  fc.constantFrom(
    Buffer.alloc(0),
    Buffer.from([0x12, 0x20]),
    Buffer.from([0x12, 0x21, 1]),
    Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f]),
  ),
  bytes(60),
)

const address = fc.oneof(
  fc.ipV4().map((ip) => multiaddr(`/ip4/${ip}/tcp/1`).bytes),
  fc.constantFrom(
    ...[
      '/ip4/0.0.0.0/tcp/0',
      '/ip6/::/tcp/5001',
      '/dns4/x.invalid/tcp/1',
      '/ip4/127.0.0.1/udp/1/quic-v1',
      '/unix/x',
      '/ip4/127.0.0.1',
    ].map((text) => multiaddr(text).bytes),
  ),
  bytes(30),
)

const peer: fc.Arbitrary<Peer> = fc.record({ id: multihash, multiaddrs: fc.array(address, { maxLength: 6 }) })
const peers = fc.oneof(
  { weight: 6, arbitrary: fc.array(peer, { maxLength: 8 }) },
  fc.array(peer, { minLength: 100, maxLength: 300 }),
)

const message = fc
  .record({
    type: fc.oneof({ weight: 5, arbitrary: fc.nat(5) }, fc.integer({ min: 0, max: 2 ** 31 - 1 })),
    key: multihash,
    closer: peers,
    providers: peers,
  })
  .map((fields) => Buffer.from(Message.encode(fields).finish()))

/** Some bytes of a message changed. */
const damaged = fc
  .tuple(message, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }))
  .map(([whole, changes]) => {
    const copy = Buffer.from(whole)
    for (const [at, value] of changes) if (copy.length > 0) copy[at % copy.length] = value
    return copy
  })

/** What is written to a stream. */
export const badMessage: fc.Arbitrary<Uint8Array> = fc.oneof(
  { weight: 6, arbitrary: message.map(lengthPrefixed) },
  { weight: 4, arbitrary: damaged.map(lengthPrefixed) },
  { weight: 2, arbitrary: bytes(500).map(lengthPrefixed) },
  { weight: 2, arbitrary: bytes(2_000) },
  fc.constantFrom(
    Buffer.alloc(1),
    Buffer.alloc(64, 0xff),
    // 2 GiB, 4 MiB, and one byte more than is there.
    Buffer.from([0x80, 0x80, 0x80, 0x80, 0x08, 1, 2, 3]),
    Buffer.from([0x80, 0x80, 0x80, 0x02, 1]),
    Buffer.from([0x05, 1, 2, 3, 4]),
  ),
)
