/**
 * A containerd that says anything: events, listings, sizes, names and errors. Only keys that are keys are offered, only
 * answers that are answers are given, and as soon as it makes sense again, so does what is offered.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ContainerdClient } from '../../src/containerd/client.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { type Digest, digestOf, isDigest } from '../../src/oci/digest.ts'
import { parseImageReference, tagKey } from '../../src/oci/reference.ts'
import type { RegistryServer } from '../../src/registry/server.ts'
import { ContainerdStore } from '../../src/store/containerd/containerd-store.ts'
import { startRegistry } from '../support/registry.ts'
import { ContainerdDouble, type Inventory, type ServiceStatus } from '../support/containerd-double.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'
import { holds, printedSeed } from '../support/seed.ts'

const rounds = 150
const port = 5000
const namespace = 'k8s.io'

const digests = Array.from({ length: 20 }, (_, index) => digestOf(Buffer.from(`content ${index}`)))
const digest = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom<string>(...digests) },
  fc.constantFrom(
    '',
    'sha256:',
    'sha256:../../etc/passwd',
    `sha256:${'A'.repeat(64)}`,
    `md5:${'a'.repeat(32)}`,
    `sha256:${'a'.repeat(63)}`,
  ),
  fc.string({ unit: 'binary', maxLength: 30 }),
)
const size = fc.oneof(
  { weight: 6, arbitrary: fc.nat(2_000_000) },
  fc.constantFrom(-1, -(2 ** 40), 0, Number.MAX_SAFE_INTEGER, 2 ** 62, -(2 ** 62)),
)
const name = fc.oneof(
  { weight: 4, arbitrary: fc.nat(9).map((index) => `reg.test/app:v${index}`) },
  fc.constantFrom(
    '',
    'sha256:abc',
    'app',
    'reg.test/app',
    `reg.test/app@${digests[0]}`,
    `reg.test/app:v1@${digests[0]}`,
    'reg.test/APP:v1',
  ),
  fc.constantFrom(
    'a/b:c:d',
    '/x:y',
    'reg.test/:v1',
    'reg.test/../x:v1',
    `reg.test/${'a'.repeat(5_000)}:v1`,
    'reg.test/app:v1\n',
    '\u0000/x:y',
  ),
  fc.string({ unit: 'binary', maxLength: 40 }),
)
const failure: fc.Arbitrary<ServiceStatus> = fc.record({
  code: fc.integer({ min: 1, max: 16 }),
  details: fc.string(),
})
const content = fc.array(fc.record({ digest, size }), { maxLength: 30 })
const images = fc.array(
  fc.record({ name, target: fc.option(fc.record({ mediaType: fc.string(), digest, size }), { nil: undefined }) }),
  { maxLength: 15 },
)
const inventory: fc.Arbitrary<Inventory> = fc.record({
  content: fc.oneof({ weight: 4, arbitrary: content }, failure),
  images: fc.oneof({ weight: 4, arbitrary: images }, failure),
})
const event = fc.record({
  timestamp: fc.option(fc.record({ seconds: fc.integer(), nanos: fc.integer() }), { nil: undefined }),
  namespace: fc.oneof(fc.constant(namespace), fc.string()),
  topic: fc.oneof(
    {
      weight: 4,
      arbitrary: fc.constantFrom(
        '/content/create',
        '/images/create',
        '/images/delete',
        '/snapshot/remove',
        '/images/',
      ),
    },
    fc.string({ unit: 'binary' }),
  ),
  event: fc.option(
    fc.record({
      typeUrl: fc.string(),
      value: fc.oneof(
        fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
        // ContentCreate: the digest is field 1.
        digest.map((text) => Buffer.concat([Buffer.from([0x0a, Buffer.byteLength(text)]), Buffer.from(text)])),
      ),
    }),
    { nil: undefined },
  ),
})

describe('a containerd that says anything', () => {
  const seed = printedSeed('bad-containerd')
  const ip = new DaemonGroup().address(1)
  const offered = new Set<string>()
  const everOffered = new Set<string>()
  const stop = new AbortController()
  let folder = ''
  let double: ContainerdDouble
  let store: ContainerdStore
  let server: RegistryServer
  let watching: Promise<void>

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bad-containerd-'))
    double = await ContainerdDouble.start(join(folder, 'sock'))
    const client = new ContainerdClient(join(folder, 'sock'), namespace)
    const logger = pino({ level: 'silent' })
    // Without a folder everything comes from containerd.
    store = new ContainerdStore({ client, folder: undefined, clock: systemClock, random: () => 0, logger }, namespace)
    await store.start()
    watching = watch()
    server = await startRegistry({ host: ip, port }, { store, router: undefined })
    await eventually(isWell)
  })
  afterAll(async () => {
    stop.abort()
    await server.close(0)
    await store.close()
    await watching
    double.close()
    await rm(folder, { recursive: true, force: true })
  })

  function isWell(): void {
    expect(store.problem()).toBeUndefined()
  }

  async function watch(): Promise<void> {
    for await (const { added, removed } of store.watch(stop.signal)) {
      for (const key of added) {
        offered.add(key)
        everOffered.add(key)
      }
      for (const key of removed) offered.delete(key)
    }
  }

  /** A digest, or a tag as it is looked up in the swarm. */
  function isKey(key: string): boolean {
    const reference = parseImageReference(key)
    return (
      isDigest(key) ||
      (reference?.tag !== undefined && tagKey(reference.registry, reference.repository, reference.tag) === key)
    )
  }

  async function statusOf(path: string, headers: Record<string, string>): Promise<number> {
    const response = await fetch(`http://${ip}:${port}/v2/app/${path}?ns=reg.test`, { method: 'HEAD', headers })
    return response.status
  }

  const askEvent = { timestamp: undefined, namespace, topic: '/images/update', event: undefined }

  /** One right inventory, and exactly that is offered. */
  async function makesSenseAgain(): Promise<void> {
    const there = digests.slice(0, 5)
    const right: Inventory = {
      content: there.map((text) => ({ digest: text, size: 10 })),
      images: [{ name: 'reg.test/app:v1', target: { mediaType: '', digest: there[0] as Digest, size: 10 } }],
    }
    double.inventory = right
    await eventually(() => {
      double.send(askEvent)
      expect([...offered].sort()).toEqual([...there, 'reg.test/app:v1'].sort())
      expect(store.problem()).toBeUndefined()
    })
    for (const text of there) expect(await statusOf(`blobs/${text}`, {})).toBe(200)
    expect(await store.resolve('reg.test/app:v1')).toBe(there[0])
  }

  it(`makes nobody offer or answer nonsense, and is believed again when it makes sense: ${rounds} rounds`, async () => {
    const startedMs = performance.now()
    const round = fc.tuple(inventory, fc.array(event, { maxLength: 20 }), fc.integer({ min: 0, max: 9 }), digest)
    const property = fc.asyncProperty(round, async ([said, events, breaking, asked]) => {
      double.inventory = said
      for (const one of events) double.send(one)
      if (breaking === 0) double.breakStreams()
      const range = breaking % 2 === 0 ? {} : { range: `bytes=${breaking}-` }
      const answers = [
        await statusOf(`blobs/${encodeURIComponent(asked)}`, range),
        await statusOf(`manifests/${encodeURIComponent(asked)}`, range),
        await statusOf('manifests/v1', range),
      ]
      for (const answer of answers) expect([200, 206, 404, 416]).toContain(answer)
      expect([...offered].filter((key) => !isKey(key))).toEqual([])
    })
    await holds(property, { seed, runs: rounds, timeLimitMs: 40_000 })
    await makesSenseAgain()
    expect([...everOffered].filter((key) => !isKey(key))).toEqual([])
    process.stderr.write(
      `bad-containerd: ${rounds} rounds, ${Math.round(performance.now() - startedMs)} ms, ${double.listings} listings, ` +
        `${everOffered.size} keys offered at some time\n`,
    )
  }, 60_000)

  it('keeps its stream of events when one of them cannot be read', async () => {
    await makesSenseAgain()
    // The random rounds may have broken it just before they ended.
    await eventually(() => expect(double.isFollowed).toBe(true))
    const { listings, subscriptions } = double
    const unreadable = {
      ...askEvent,
      topic: '/content/create',
      event: { typeUrl: '', value: Buffer.from([0x0a, 0xff]) },
    }
    double.send(unreadable)
    await eventually(() => expect(double.listings).toBeGreaterThan(listings))
    await makesSenseAgain()
    expect(double.subscriptions).toBe(subscriptions)
    expect(store.problem()).toBeUndefined()
  })

  it('may tell of a removal before its garbage collector is done (a listing that comes too early)', async () => {
    await makesSenseAgain()
    const { listings } = double
    double.send({ ...askEvent, topic: '/images/delete' })
    await eventually(() => expect(double.listings).toBeGreaterThan(listings))
    double.inventory = { content: [], images: [] }
    await eventually(() => expect([...offered]).toEqual([]))
  })

  it('may have a blob with an impossible size: it is not there, the others are', async () => {
    for (const impossible of [-1, -(2 ** 40)]) {
      const [first, second] = digests
      double.inventory = {
        content: [first, second].map((text, index) => ({
          digest: text as string,
          size: index === 0 ? impossible : 10,
        })),
        images: [],
      }
      await eventually(() => {
        double.send(askEvent)
        expect(offered).toContain(second)
      })
      expect(await statusOf(`blobs/${first}`, {})).toBe(404)
      expect(await statusOf(`blobs/${second}`, {})).toBe(200)
    }
  })
})
