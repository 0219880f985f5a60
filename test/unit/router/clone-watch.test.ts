/** Real libp2p nodes on loopback addresses. */
import { once } from 'node:events'
import type { PrivateKey, Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { createLogger } from '../../../src/logger.ts'
import { cloneCheckDelayMs } from '../../../src/limits.ts'
import { CloneWatch, identityProtocol } from '../../../src/router/clone-watch.ts'
import { loadIdentity } from '../../../src/router/identity.ts'
import { lengthPrefixed } from '../../../src/router/length-prefixed.ts'
import { type SwarmNode, startSwarmNode } from '../../../src/router/libp2p-node.ts'
import { ProviderStore } from '../../../src/router/provider-store.ts'
import { DaemonGroup, eventually } from '../../support/daemons.ts'

describe('processes with one identity', () => {
  const group = new DaemonGroup()
  const cleanUps: (() => Promise<unknown> | void)[] = []
  let nodes = 0
  /** Log messages of all watches. */
  let said: string[] = []
  afterEach(async () => {
    for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
    said = []
  })

  interface TestNode extends SwarmNode {
    address: string
    /** How often it was told of a clone. */
    told: () => number
    /** As a daemon that begins to stop. */
    retire: () => void
  }

  async function start(privateKey: PrivateKey, serve?: (stream: Stream) => void): Promise<TestNode> {
    const address = `/ip4/${group.address((nodes += 1))}/tcp/5001`
    const datastore = new ProviderStore(systemClock)
    const node = await startSwarmNode({
      privateKey,
      listen: [address],
      announce: [address],
      datastore,
      version: 'test',
    })
    cleanUps.push(() => node.libp2p.stop())
    let told = 0
    let retire = () => {}
    if (serve === undefined) {
      const write = (line: string) => void said.push((JSON.parse(line) as { msg: string }).msg)
      const logger = createLogger('INFO', { write })
      const watch = new CloneWatch({ ...node, privateKey, clock: systemClock, logger, onClone: () => (told += 1) })
      await watch.start()
      retire = () => watch.close()
      cleanUps.push(retire)
    } else {
      await node.libp2p.handle(identityProtocol, serve)
    }
    return { ...node, address, told: () => told, retire }
  }

  const connect = (from: TestNode, to: TestNode) => from.libp2p.dial(multiaddr(to.address), { force: true })
  const checks = () => new Promise((resolve) => setTimeout(resolve, 3 * cloneCheckDelayMs))

  it('are both told, by a third node that is connected to both', async () => {
    const key = await loadIdentity(undefined)
    const [third, first, second] = [await start(await loadIdentity(undefined)), await start(key), await start(key)]
    await connect(first, third)
    await connect(second, third)
    await eventually(() => expect([first.told(), second.told(), third.told()]).toEqual([1, 1, 0]))
    // The third node logs it when both have responded to its reports.
    await eventually(() => expect(said).toEqual([expect.stringMatching(/^two running nodes have the same identity/)]))
  })

  it('are not seen in several connections of one process, in both directions', async () => {
    const third = await start(await loadIdentity(undefined))
    const node = await start(await loadIdentity(undefined))
    for (const [from, to] of [
      [node, third],
      [node, third],
      [third, node],
    ] as const)
      await connect(from, to)
    await eventually(() => expect(third.libp2p.getConnections(node.libp2p.peerId)).toHaveLength(3))
    await checks()
    expect([node.told(), said]).toEqual([0, []])
  })

  it('are not seen when a node comes back, at the same or another address', async () => {
    const key = await loadIdentity(undefined)
    const third = await start(await loadIdentity(undefined))
    const before = await start(key)
    await connect(before, third)
    await before.libp2p.stop()
    const after = await start(key)
    await connect(after, third)
    await checks()
    expect([after.told(), said]).toEqual([0, []])
  })

  it.each<[string, (stream: Stream) => void]>([
    ['never answers any more', () => {}],
    ['is reset', (stream) => stream.abort(new Error('gone'))],
    ['ends', (stream) => void stream.close()],
    ['brings nonsense', (stream) => void stream.send(lengthPrefixed(Buffer.alloc(80)))],
  ])('are not seen in a connection from before a restart, which %s', async (_name, serve) => {
    const key = await loadIdentity(undefined)
    const third = await start(await loadIdentity(undefined))
    await connect(await start(key, serve), third)
    const after = await start(key)
    await connect(after, third)
    await eventually(() => expect(third.libp2p.getConnections(after.libp2p.peerId)).toHaveLength(2))
    await checks()
    expect([after.told(), said]).toEqual([0, []])
  })

  it('are not seen while a process that is about to end lets its transfers end', async () => {
    const key = await loadIdentity(undefined)
    const third = await start(await loadIdentity(undefined))
    const before = await start(key)
    await connect(before, third)
    before.retire()
    const after = await start(key)
    await connect(after, third)
    await eventually(() => expect(third.libp2p.getConnections(after.libp2p.peerId)).toHaveLength(2))
    await checks()
    expect([after.told(), before.told(), said]).toEqual([0, 0, []])
  })

  it('are not believed in without a statement that only the other one can make', async () => {
    const [key, strangerKey] = [await loadIdentity(undefined), await loadIdentity(undefined)]
    const [node, liar] = [await start(key), await start(strangerKey)]
    const connection = await connect(liar, node)
    const open = async (...bytes: Uint8Array[]) => {
      const stream = await connection.newStream(identityProtocol)
      const answered = once(stream as unknown as EventTarget, 'message').then(([event]) =>
        Buffer.from((event as { data: { subarray(): Uint8Array } }).data.subarray()).subarray(1),
      )
      stream.send(lengthPrefixed(Buffer.concat(bytes)))
      return { stream, answer: await answered }
    }
    const bootId = Buffer.alloc(16, 7)
    const domain = Buffer.from('spegel-ts identity 1.0.0\0')
    const forgeries: ((nonce: Buffer) => Promise<Uint8Array>)[] = [
      // Its own statement, asked for with the nonce that it has just drawn.
      async (nonce) => (await open(Buffer.of(1), nonce)).answer,
      // Another key.
      async (nonce) => Buffer.concat([bootId, await strangerKey.sign(Buffer.concat([domain, nonce, bootId]))]),
      // A statement of before, over another nonce.
      async () => Buffer.concat([bootId, await key.sign(Buffer.concat([domain, Buffer.alloc(32), bootId]))]),
      // Something else that the key has signed.
      async (nonce) => Buffer.concat([bootId, await key.sign(Buffer.concat([nonce, bootId]))]),
      () => Promise.resolve(Buffer.alloc(0)),
    ]
    for (const forge of forgeries) {
      const { stream, answer } = await open(Buffer.of(2))
      const closed = once(stream as unknown as EventTarget, 'close')
      stream.send(lengthPrefixed(await forge(answer)))
      await stream.close().catch(() => undefined)
      await closed
      expect(node.told()).toBe(0)
    }
    // The right one, to see that the others failed for what they are.
    const { stream, answer } = await open(Buffer.of(2))
    stream.send(lengthPrefixed(Buffer.concat([bootId, await key.sign(Buffer.concat([domain, answer, bootId]))])))
    await eventually(() => expect(node.told()).toBe(1))
  })
})
