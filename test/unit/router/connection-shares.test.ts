import { type Socket, connect } from 'node:net'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Connection, MultiaddrConnection, PeerId } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { pendingHandshakeShares, swarmConnectionShares, swarmConnectionsMax } from '../../../src/limits.ts'
import { ConnectionShares } from '../../../src/router/connection-shares.ts'
import { type SwarmNode, startSwarmNode } from '../../../src/router/libp2p-node.ts'
import { ProviderStore } from '../../../src/router/provider-store.ts'

/** DOUBLE of a connection, pending or open. */
class TestConnection extends EventTarget {
  readonly remoteAddr
  readonly remotePeer: PeerId
  aborted = false

  constructor(ip: string, peerId: string) {
    super()
    this.remoteAddr = multiaddr(`/ip4/${ip}/tcp/40000`)
    this.remotePeer = {
      toString: () => peerId,
      equals: (other: PeerId) => other.toString() === peerId,
    } as unknown as PeerId
  }

  abort(): void {
    this.aborted = true
    this.dispatchEvent(new Event('close'))
  }
}

const many = <Value>(count: number, make: (index: number) => Value) =>
  Array.from({ length: count }, (_, index) => make(index))
const aborted = (connections: readonly TestConnection[]) =>
  connections.filter((connection) => connection.aborted).length

describe('pending handshakes', () => {
  const begin = (shares: ConnectionShares, connection: TestConnection) =>
    shares.gater.denyInboundConnection(connection as unknown as MultiaddrConnection)

  it('of one address are closed when they are too many, the oldest first, and none of another address', () => {
    const shares = new ConnectionShares()
    const honest = new TestConnection('10.0.0.1', '')
    expect(begin(shares, honest)).toBe(false)
    const silent = many(1_000, () => new TestConnection('10.0.0.66', ''))
    for (const connection of silent) expect(begin(shares, connection)).toBe(false)
    const { addressMax } = pendingHandshakeShares
    expect(silent.map((connection) => connection.aborted)).toEqual(silent.map((_, at) => at < 1_000 - addressMax))
    expect(honest.aborted).toBe(false)
    expect(shares.pendingCount).toBe(addressMax + 1)
  })

  it('make room for a newcomer when many addresses have used up all', () => {
    const shares = new ConnectionShares()
    const silent = many(2_000, (index) => new TestConnection(`10.0.66.${index % 40}`, ''))
    for (const connection of silent) begin(shares, connection)
    const newcomer = new TestConnection('10.0.0.1', '')
    begin(shares, newcomer)
    expect(newcomer.aborted).toBe(false)
    expect(shares.pendingCount).toBe(pendingHandshakeShares.totalMax)
  })

  it('are no longer counted when the identity is proven or the connection ends', () => {
    const shares = new ConnectionShares()
    const [proven, ended] = [new TestConnection('10.0.0.1', 'a'), new TestConnection('10.0.0.1', 'b')]
    for (const connection of [proven, ended]) begin(shares, connection)
    const upgraded = proven as unknown as MultiaddrConnection
    expect(shares.gater.denyInboundUpgradedConnection(proven.remotePeer, upgraded)).toBe(false)
    ended.dispatchEvent(new Event('close'))
    expect(shares.pendingCount).toBe(0)
  })
})

describe('connections of the swarm', () => {
  function watched(): { open: (connection: TestConnection) => void; evicted: string[]; shares: ConnectionShares } {
    const libp2p = Object.assign(new EventTarget(), { getConnections: () => [] })
    const shares = new ConnectionShares()
    const evicted: string[] = []
    shares.watch(libp2p, (peerId) => evicted.push(peerId.toString()))
    const open = (connection: TestConnection) =>
      libp2p.dispatchEvent(new CustomEvent('connection:open', { detail: connection as unknown as Connection }))
    return { shares, evicted, open }
  }

  it('of honest peers stay when 1,000 identities of one address connect', () => {
    const { open, shares, evicted } = watched()
    const honest = many(100, (index) => new TestConnection(`10.0.1.${index}`, `honest ${index}`))
    for (const connection of honest) open(connection)
    const sybils = many(1_000, (index) => new TestConnection('10.0.0.66', `sybil ${index}`))
    for (const connection of sybils) open(connection)
    expect(aborted(honest)).toBe(0)
    expect(aborted(sybils)).toBe(1_000 - swarmConnectionShares.addressMax)
    expect(evicted[0]).toBe('sybil 0')
    expect(shares.openCount).toBe(100 + swarmConnectionShares.addressMax)
  })

  it('make room for a newcomer when all are used, by one of the largest address', () => {
    const { open, shares } = watched()
    const sybils = many(1_200, (index) => new TestConnection(`10.0.66.${index % 10}`, `sybil ${index}`))
    for (const connection of sybils) open(connection)
    const newcomer = new TestConnection('10.0.0.1', 'newcomer')
    open(newcomer)
    expect(newcomer.aborted).toBe(false)
    expect(shares.openCount).toBe(swarmConnectionsMax)
  })

  it('of one peer are bounded, and the peer is not evicted with its oldest connection', () => {
    const { open, evicted } = watched()
    const connections = many(20, () => new TestConnection('10.0.0.1', 'peer'))
    for (const connection of connections) open(connection)
    expect(aborted(connections)).toBe(20 - swarmConnectionShares.peerMax)
    expect(evicted).toEqual([])
  })
})

describe('a swarm node', () => {
  const nodes: SwarmNode[] = []
  const sockets: Socket[] = []
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy()
    await Promise.all(nodes.splice(0).map(async ({ libp2p }) => libp2p.stop()))
  })

  async function start(ip: string): Promise<SwarmNode> {
    const privateKey = await generateKeyPair('Ed25519')
    const datastore = new ProviderStore(systemClock)
    datastore.setSelf(peerIdFromPrivateKey(privateKey).toString())
    const address = `/ip4/${ip}/tcp/5001`
    const node = await startSwarmNode({
      privateKey,
      listen: [address],
      announce: [address],
      datastore,
      version: 'test',
    })
    nodes.push(node)
    return node
  }

  it('accepts a peer while 300 TCP connections of one address stay silent, and closes the oldest of them', async () => {
    const node = await start('127.12.7.1')
    const closed = many(300, () => {
      const socket = connect({ host: '127.12.7.1', port: 5001, localAddress: '127.12.7.66' })
      sockets.push(socket)
      socket.on('error', () => undefined)
      return new Promise((resolve) => socket.on('close', resolve))
    })
    await Promise.all(closed.slice(0, 300 - pendingHandshakeShares.addressMax))
    const newcomer = await start('127.12.7.2')
    const connection = await newcomer.libp2p.dial(multiaddr('/ip4/127.12.7.1/tcp/5001'))
    expect(connection.remotePeer.equals(node.libp2p.peerId)).toBe(true)
    await connection.newStream('/ipfs/ping/1.0.0')
    const open = sockets.filter(({ destroyed }) => !destroyed).length
    expect(open).toBe(pendingHandshakeShares.addressMax)
  })
})
