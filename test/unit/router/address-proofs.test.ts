/**
 * With real nodes of the swarm: only they prove anything. A node connects from the address that it listens on; one that listens on
 * all addresses connects from 127.0.0.1 here.
 */
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

  async function start(number: number, { listensOnAll = false } = {}): Promise<TestNode> {
    const privateKey = await generateKeyPair('Ed25519')
    const id = peerIdFromPrivateKey(privateKey).toString()
    const datastore = new ProviderStore(systemClock)
    datastore.setSelf(id)
    const ip = `127.12.8.${number}`
    const port = listensOnAll ? 5002 : 5001
    const address = `/ip4/${ip}/tcp/${port}`
    const started = await startSwarmNode({
      privateKey,
      listen: [listensOnAll ? `/ip4/0.0.0.0/tcp/${port}` : address],
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
    const [node, peer] = [await start(1), await start(2, { listensOnAll: true })]
    const proofs = new AddressProofs(node.libp2p, systemClock)
    const connected = new Promise((resolve) => node.libp2p.addEventListener('connection:open', resolve))
    await peer.libp2p.dial(node.address)
    await connected
    expect(proofs.proven(peer.id, [multiaddr('/ip4/127.0.0.1/tcp/5001'), peer.address])).toEqual(['127.0.0.1'])
  })

  it('is proven without a connection of its own where the peer listens on that address only', async () => {
    const [node, peer] = [await start(1), await start(2)]
    const proofs = new AddressProofs(node.libp2p, systemClock)
    const connected = new Promise((resolve) => node.libp2p.addEventListener('connection:open', resolve))
    await peer.libp2p.dial(node.address)
    await connected
    expect(proofs.proven(peer.id, [peer.address])).toEqual([peer.ip])
  })

  it('is proven by a dial when the peer is connected from another one', async () => {
    const [node, peer] = [await start(1), await start(2, { listensOnAll: true })]
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
