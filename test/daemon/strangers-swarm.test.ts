/**
 * Strangers that connect to the swarm and use up what its nodes have for all peers: records, providers of a key and
 * connections. The daemons are processes of their own, and each stranger has an address of its own.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type Socket, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { multiaddr } from '@multiformats/multiaddr'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { writeBlob } from '../../src/images/layout.ts'
import { dhtKey } from '../../src/router/content-cid.ts'
import { Message } from '../../src/router/generated/kad-dht.ts'
import { lengthPrefixed } from '../../src/router/length-prefixed.ts'
import { messageType } from '../../src/router/rpc.ts'
import { BadNode } from '../support/bad-node.ts'
import { DaemonProcess } from '../support/daemon-process.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'

const floodRecords = 510_000
const residentMiBMax = 200
const silentConnections = 400
const blobsBefore = 50
const blobsAfter = 50

/** ADD_PROVIDER messages of one peer, each with its length before it. */
function announcement(key: Uint8Array, peer: BadNode, address: string): Uint8Array {
  const providers = [{ id: peer.id, multiaddrs: [multiaddr(`/ip4/${address}/tcp/5001`).bytes] }]
  return lengthPrefixed(Message.encode({ type: messageType.addProvider, key, closer: [], providers }).finish())
}

/** TCP connections to the swarm port that send nothing. Resolves when each is accepted or refused. */
async function openSilent(count: number, host: string, localAddress: string): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, () => connect({ host, port: 5001, localAddress }))
  const settled = sockets.map(
    (socket) =>
      new Promise((resolve) => {
        socket.on('error', () => undefined)
        socket.on('connect', resolve)
        socket.on('close', resolve)
      }),
  )
  await Promise.all(settled)
  return sockets
}

describe('strangers in the swarm', () => {
  const group = new DaemonGroup()
  const strangerIp = group.address(66)
  let folder = ''
  let first: DaemonProcess
  let second: DaemonProcess
  let stranger: BadNode

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strangers-swarm-'))
    first = await DaemonProcess.start(folder, group.address(1), undefined, ['--flights=false'])
    second = await DaemonProcess.start(folder, group.address(2), first.ip, ['--flights=false'])
    stranger = await BadNode.start(strangerIp)
  }, 60_000)
  afterAll(async () => {
    await stranger.close()
    await Promise.all([first.stop(), second.stop()])
    await rm(folder, { recursive: true, force: true })
  })

  async function newBlobs(count: number): Promise<string[]> {
    const digests: string[] = []
    for (let index = 0; index < count; index++) {
      digests.push((await writeBlob(second.layout, randomBytes(100))).digest)
    }
    return digests
  }

  /** Ids of the providers that the first daemon names for a key; it has no content itself. */
  async function providersOf(asker: BadNode, digest: string): Promise<string[]> {
    const request = { type: messageType.getProviders, key: dhtKey(digest).multihash, closer: [], providers: [] }
    const response = await asker.ask(first.ip, lengthPrefixed(Message.encode(request).finish()))
    return Message.decode(response).providers.map(({ id }) => Buffer.from(id).toString('hex'))
  }

  async function expectAllFound(digests: readonly string[]): Promise<string[]> {
    const found = await Promise.all(digests.map((digest) => providersOf(stranger, digest)))
    expect(found.filter((ids) => ids.length > 0)).toHaveLength(digests.length)
    return found.flat()
  }

  it(`cannot use up the memory for records with ${floodRecords} records, nor displace those of others`, async () => {
    const before = await newBlobs(blobsBefore)
    await eventually(() => expectAllFound(before))
    const message = announcement(Buffer.concat([Buffer.from([0x12, 0x20]), randomBytes(32)]), stranger, strangerIp)
    const keyOffset = Buffer.from(message).indexOf(Buffer.from([0x12, 0x20])) + 2
    const batchMessages = 10_000
    for (let sent = 0; sent < floodRecords; sent += batchMessages) {
      const batch = Buffer.concat(Array.from({ length: batchMessages }, () => message))
      for (let index = 0; index < batchMessages; index++)
        randomBytes(32).copy(batch, index * message.length + keyOffset)
      await stranger.tell(first.ip, batch)
    }
    const after = await newBlobs(blobsAfter)
    await eventually(() => expectAllFound([...before, ...after]))
    process.stderr.write(
      `strangers-swarm: ${floodRecords} records, RSS ${first.residentMiB} MiB, ` +
        `${/^spegel_provider_records \d+$/m.exec(await first.metrics())?.[0]}\n`,
    )
    expect(first.residentMiB).toBeLessThan(residentMiBMax)
    expect(first.complaints()).toEqual([])
  })

  it('cannot send the requests of a mirror to the address of a third party', async () => {
    const digest = digestOf(randomBytes(100))
    let connections = 0
    const thirdParty = createServer((socket) => {
      connections += 1
      socket.destroy()
    })
    thirdParty.listen(5000, group.address(77))
    await once(thirdParty, 'listening')
    try {
      for (const { ip } of [first, second]) {
        await stranger.tell(ip, announcement(dhtKey(digest).multihash, stranger, group.address(77)))
      }
      await eventually(() => expectAllFound([digest]))
      for (const { url } of [first, second]) {
        expect((await fetch(`${url}/v2/app/blobs/${digest}`)).status).toBe(404)
      }
      expect(connections).toBe(0)
    } finally {
      thirdParty.close()
    }
  })

  it('cannot displace the holder of a key with 120 identities of one address', async () => {
    const [digest = ''] = await newBlobs(1)
    const [holder = ''] = await eventually(() => expectAllFound([digest]))
    const { multihash } = dhtKey(digest)
    const identities: BadNode[] = []
    try {
      for (let index = 0; index < 120; index++) {
        const identity = await BadNode.start(strangerIp, { listens: false })
        identities.push(identity)
        await identity.tell(first.ip, announcement(multihash, identity, strangerIp))
      }
      const named = await providersOf(stranger, digest)
      expect(named.length).toBeGreaterThan(10)
      expect(named.slice(0, 2)).toContain(holder)
    } finally {
      await Promise.all(identities.map((identity) => identity.close()))
    }
  })

  it(`cannot keep a new node out with ${silentConnections} silent connections`, async () => {
    const silent = await openSilent(silentConnections, first.ip, strangerIp)
    const newcomer = await BadNode.start(group.address(3))
    try {
      const request = { type: messageType.ping, key: Buffer.alloc(0), closer: [], providers: [] }
      const response = await newcomer.ask(first.ip, lengthPrefixed(Message.encode(request).finish()))
      expect(Message.decode(response).type).toBe(messageType.ping)
    } finally {
      for (const socket of silent) socket.destroy()
      await newcomer.close()
    }
  })
})
