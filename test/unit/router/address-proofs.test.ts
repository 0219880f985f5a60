/** With real nodes of the swarm: only they prove anything. On loopback, inbound connections come from 127.0.0.1. */
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { addressProofMs, addressProofRetryMs } from '../../../src/limits.ts'
import { systemClock } from '../../../src/lib/clock.ts'
import { AddressProofs } from '../../../src/router/address-proofs.ts'
import { type SwarmNode, startSwarmNode } from '../../../src/router/libp2p-node.ts'
import { ProviderStore } from '../../../src/router/provider-store.ts'
import { ManualClock } from '../../support/manual-clock.ts'

interface TestNode extends SwarmNode {
  id: string
  ip: string
  address: Multiaddr
}

describe('an address of a peer', () => {
  const nodes: TestNode[] = []
  const { signal } = new AbortController()
  afterEach(async () => {
    await Promise.all(nodes.splice(0).map(async ({ libp2p }) => libp2p.stop()))
  })

  async function start(number: number): Promise<TestNode> {
    const privateKey = await generateKeyPair('Ed25519')
    const id = peerIdFromPrivateKey(privateKey).toString()
    const datastore = new ProviderStore(systemClock)
    datastore.setSelf(id)
    const ip = `127.12.8.${number}`
    const address = `/ip4/${ip}/tcp/5001`
    const started = await startSwarmNode({
      privateKey,
      listen: [address],
      announce: [address],
      datastore,
      version: 'test',
    })
    const node = { ...started, id, ip, address: multiaddr(address) }
    nodes.push(node)
    return node
  }

  it('is proven by a connection to it, and for a while after its end', async () => {
    const [node, peer] = [await start(1), await start(2)]
    const clock = new ManualClock()
    const proofs = new AddressProofs(node.libp2p, clock)
    expect(proofs.proven(peer.id, [peer.address])).toEqual([])
    const connection = await node.libp2p.dial(peer.address)
    const elsewhere = multiaddr('/ip4/10.0.0.1/tcp/5001')
    expect(proofs.proven(peer.id, [elsewhere, peer.address])).toEqual([peer.ip])
    expect(proofs.latestIp(peer.id)).toBe(peer.ip)
    clock.advance(2 * addressProofMs)
    expect(proofs.proven(peer.id, [peer.address])).toEqual([peer.ip])
    await connection.close()
    clock.advance(addressProofMs + 1)
    expect(proofs.proven(peer.id, [peer.address])).toEqual([])
  })

  it('is proven by a connection from it, as that address only', async () => {
    const [node, peer] = [await start(1), await start(2)]
    const proofs = new AddressProofs(node.libp2p, systemClock)
    const connected = new Promise((resolve) => node.libp2p.addEventListener('connection:open', resolve))
    await peer.libp2p.dial(node.address)
    await connected
    expect(proofs.proven(peer.id, [multiaddr('/ip4/127.0.0.1/tcp/5001'), peer.address])).toEqual(['127.0.0.1'])
  })

  it('is proven by a dial when the peer is connected from another one', async () => {
    const [node, peer] = [await start(1), await start(2)]
    const proofs = new AddressProofs(node.libp2p, systemClock)
    await peer.libp2p.dial(node.address)
    const both = await Promise.all([
      proofs.prove(peer.id, [peer.address], signal),
      proofs.prove(peer.id, [peer.address], signal),
    ])
    expect(both).toEqual([[peer.ip], [peer.ip]])
    const outbound = node.libp2p.getConnections().filter(({ direction }) => direction === 'outbound')
    expect(outbound).toHaveLength(1)
  })

  it('is not proven where another peer responds, and not dialled again at once', async () => {
    const [node, peer, third] = [await start(1), await start(2), await start(3)]
    const clock = new ManualClock()
    const proofs = new AddressProofs(node.libp2p, clock)
    await peer.libp2p.dial(node.address)
    let dials = 0
    const { dial } = node.libp2p
    node.libp2p.dial = (...args) => {
      dials += 1
      return dial.apply(node.libp2p, args)
    }
    expect(await proofs.prove(peer.id, [third.address], signal)).toEqual([])
    expect(await proofs.prove(peer.id, [third.address], signal)).toEqual([])
    expect(dials).toBe(1)
    clock.advance(addressProofRetryMs + 1)
    expect(await proofs.prove(peer.id, [third.address], signal)).toEqual([])
    expect(dials).toBe(2)
  })
})
