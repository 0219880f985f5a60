/**
 * A member of the swarm that sends nonsense to the others, and answers their questions with it: they go on finding what
 * they have, and nothing grows without bound. The daemons are processes of their own.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { multiaddr } from '@multiformats/multiaddr'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { addressesPerPeerMax, dhtMessageBytesMax } from '../../src/limits.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { dhtKey } from '../../src/router/content-cid.ts'
import { Message } from '../../src/router/generated/kad-dht.ts'
import { lengthPrefixed } from '../../src/router/length-prefixed.ts'
import { writeBlob } from '../../src/images/layout.ts'
import { badMessage } from '../support/bad-messages.ts'
import { BadNode } from '../support/bad-node.ts'
import { DaemonProcess } from '../support/daemon-process.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'
import { holds, printedSeed } from '../support/seed.ts'

const MiB = 1024 * 1024
const messages = 1_000
const messagesAtOnce = 50
const residentToleranceMiB = 150
const addProvider = 2
const getProviders = 3
const putValue = 0

describe('a node that talks nonsense', () => {
  const seed = printedSeed('bad-swarm')
  const group = new DaemonGroup()
  let folder = ''
  let daemons: DaemonProcess[] = []
  let bad: BadNode

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bad-swarm-'))
    const first = await DaemonProcess.start(folder, group.address(1))
    daemons = [first, await DaemonProcess.start(folder, group.address(2), first.ip)]
    bad = await BadNode.start(group.address(9))
    for (const { ip } of daemons) await bad.tell(ip, lengthPrefixed(Buffer.alloc(0)))
    await eventually(everybodyKnowsIt)
  }, 60_000)
  afterAll(async () => {
    await bad.close()
    await Promise.all(daemons.map((daemon) => daemon.stop()))
    await rm(folder, { recursive: true, force: true })
  })

  async function everybodyKnowsIt(): Promise<void> {
    for (const daemon of daemons) expect(await daemon.metrics()).toMatch(/^spegel_dht_peers 2$/m)
  }

  /** What one gets now, the others find. */
  async function newBlobIsFound(holder: DaemonProcess, askers: readonly DaemonProcess[]): Promise<void> {
    const blob = randomBytes(1_000)
    const { digest } = await writeBlob(holder.layout, blob)
    for (const asker of askers) {
      await eventually(async () => {
        const response = await fetch(`${asker.url}/v2/app/blobs/${digest}`)
        expect(response.status).toBe(200)
        expect(Buffer.from(await response.arrayBuffer()).equals(blob)).toBe(true)
      })
    }
  }

  async function allIsWell(): Promise<void> {
    for (const holder of daemons) {
      await newBlobIsFound(
        holder,
        daemons.filter((other) => other !== holder),
      )
    }
    for (const daemon of daemons) {
      expect(daemon.running).toBe(true)
      expect(daemon.complaints()).toEqual([])
    }
  }

  const resident = () => daemons.map((daemon) => daemon.residentMiB)
  function isBounded(before: readonly number[]): void {
    for (const [index, after] of resident().entries()) {
      expect(after).toBeLessThan((before[index] ?? 0) + residentToleranceMiB)
    }
  }

  it(`does not disturb by what it says: ${messages} messages`, async () => {
    const before = resident()
    const startedMs = performance.now()
    const batches = fc.array(fc.tuple(fc.nat(1), badMessage), {
      minLength: messagesAtOnce,
      maxLength: messagesAtOnce,
    })
    const property = fc.asyncProperty(batches, async (batch) => {
      await Promise.all(batch.map(([index, message]) => bad.tell(daemons[index]?.ip ?? '', message)))
      for (const daemon of daemons) expect(daemon.running).toBe(true)
    })
    await holds(property, { seed, runs: messages / messagesAtOnce, timeLimitMs: 40_000 })
    await allIsWell()
    process.stderr.write(
      `bad-swarm: ${messages} messages, ${Math.round(performance.now() - startedMs)} ms, RSS in MiB ` +
        `${before.join(' ')} -> ${resident().join(' ')}\n`,
    )
    isBounded(before)
  })

  it('does not disturb by what it answers', async () => {
    const before = resident()
    const answers = fc.sample(badMessage, { seed, numRuns: 500 })
    let next = 0
    bad.answerWith(() => answers[next++ % answers.length] ?? Buffer.alloc(0))
    // Each question about something that nobody has goes to all.
    const askFor = async (index: number) => {
      const { url } = daemons[index % daemons.length] ?? { url: '' }
      const response = await fetch(`${url}/v2/app/blobs/${digestOf(randomBytes(8))}`)
      expect(response.status).toBe(404)
    }
    for (let round = 0; round < 10; round++) {
      await Promise.all(Array.from({ length: 20 }, (_, index) => askFor(index)))
      // Whoever answered wrongly is not asked for a while, unless it comes back by itself.
      await Promise.all(daemons.map(({ ip }) => bad.tell(ip, Buffer.alloc(0))))
    }
    expect(bad.asked).toBeGreaterThan(10)
    await allIsWell()
    bad.answerWith(undefined)
    isBounded(before)
  })

  it('cannot make the answers of others unreadable by announcing itself with hundreds of addresses', async () => {
    const holder = daemons[1] ?? daemons[0]
    const blob = randomBytes(2_000)
    const { digest } = await writeBlob(holder?.layout ?? '', blob)
    const key = dhtKey(digest).multihash
    for (let round = 0; round < 20; round++) {
      const addresses = Array.from({ length: 100 }, (_, at) => multiaddr(`/ip4/127.250.${round}.${at}/tcp/1`).bytes)
      const self = { id: bad.id, multiaddrs: addresses }
      const announcement = Message.encode({ type: addProvider, key, closer: [], providers: [self] }).finish()
      await Promise.all(daemons.map(({ ip }) => bad.tell(ip, lengthPrefixed(announcement))))
    }
    for (const { ip } of daemons) {
      const question = { type: getProviders, key, closer: [], providers: [] }
      await eventually(async () => {
        const bytes = await bad.ask(ip, lengthPrefixed(Message.encode(question).finish()))
        expect(bytes.length).toBeLessThan(dhtMessageBytesMax)
        // Both are named, with their addresses.
        const { providers } = Message.decode(bytes)
        expect(providers.map(({ multiaddrs }) => multiaddrs.length).sort((x, y) => x - y)).toEqual([
          1,
          addressesPerPeerMax,
        ])
      })
    }
    await allIsWell()
  })

  it('cannot fill the memory of others', async () => {
    const before = resident()
    const target = daemons[0]?.ip ?? ''
    // Some of them are short enough to be read.
    const sizes = Array.from({ length: 60 }, (_, index) => (index % 6 === 0 ? 60_000 : 3.5 * MiB))
    for (const bytes of sizes) {
      // A public key is a record that kad-dht keeps, with whatever stands behind it.
      await bad.tell(target, lengthPrefixed(paddedPublicKey(bytes)))
      // A multihash of the identity function is as long as one likes.
      const announcement = {
        type: addProvider,
        key: identityMultihash(randomBytes(bytes)),
        closer: [],
        providers: [{ id: bad.id, multiaddrs: [multiaddr('/ip4/127.0.0.1/tcp/1').bytes] }],
      }
      await bad.tell(target, lengthPrefixed(Message.encode(announcement).finish()))
    }
    process.stderr.write(`bad-swarm: large records, RSS in MiB ${before.join(' ')} -> ${resident().join(' ')}\n`)
    isBounded(before)
    await allIsWell()
  })
})

function varint(value: number): Buffer {
  const out: number[] = []
  let rest = value
  for (; rest >= 0x80; rest >>>= 7) out.push((rest & 0x7f) | 0x80)
  return Buffer.from([...out, rest])
}

/** Field of a protobuf message. */
function field(number: number, content: Uint8Array): Buffer {
  return Buffer.concat([varint((number << 3) | 2), varint(content.length), content])
}

function identityMultihash(content: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([0]), varint(content.length), content])
}

/** PUT_VALUE of an Ed25519 key, with an unknown field of this size behind it. */
function paddedPublicKey(bytes: number): Buffer {
  const key = Buffer.concat([Buffer.from([0x08, 0x01]), field(2, randomBytes(32))])
  const name = Buffer.concat([Buffer.from('/pk/'), identityMultihash(key)])
  const record = Buffer.concat([field(1, name), field(2, Buffer.concat([key, field(9, randomBytes(bytes))]))])
  return Buffer.concat([Buffer.from([0x08, putValue]), field(2, name), field(3, record)])
}
