/** Scripted scenes: each behaviour of upstream and each fault really happens, as seen from outside. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { arrivals } from '../../src/benchmark/scene/arrivals.ts'
import { Fault, type FaultyNode, faultyNode } from '../../src/benchmark/scene/faults.ts'
import { type Scene, type UpstreamEntry, parseScene } from '../../src/benchmark/scene/scene.ts'
import { ScriptedUpstream } from '../../src/benchmark/scene/scripted-upstream.ts'
import { startTimeline } from '../../src/benchmark/scene/timeline.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { measureLinks } from '../../src/testbed/link-rates.ts'
import { seededRandom } from '../../src/lib/random.ts'
import { ContainerdNode } from '../../src/testbed/containerd-node.ts'
import { statusFrom } from '../../src/testbed/fetch.ts'
import { type WrittenImage, writeImage } from '../../src/images/image.ts'
import { blobPath } from '../../src/images/layout.ts'
import { type Host, Network } from '../../src/testbed/network.ts'
import { output, runningPid } from '../../src/testbed/process.ts'
import { RegistryProcess } from '../../src/testbed/registry-process.ts'
import { type Tools, prepareTools } from '../../src/testbed/tools.ts'
import { eventually } from '../support/daemons.ts'
import { type Downloaded, RawDownload, download } from '../support/raw-download.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 60_000
/** More than all the buffers of the kernel on the way. */
const bigBytes = 48 * MiB

/** What is to be cleaned up, also when the set-up fails half-way. */
const mess: (() => Promise<void>)[] = []
let tools: Tools
let network: Network
let folder: string
let upstreamHost: Host
let client: Host
let registry: RegistryProcess
let upstream: ScriptedUpstream
let big: WrittenImage
let small: WrittenImage

beforeAll(async () => {
  tools = await prepareTools((line) => process.stderr.write(`set-up: ${line}\n`))
  folder = await mkdtemp(join(tmpdir(), 'spegel-ts-scene-'))
  mess.push(() => rm(folder, { recursive: true, force: true }))
  network = await Network.create()
  mess.push(() => network.close())
  upstreamHost = await network.addHost('upstream')
  client = await network.addHost('client')
  registry = new RegistryProcess(upstreamHost, tools.registry, join(folder, 'registry'), { port: 5080 })
  mess.push(() => registry.stop())
  await registry.start()
  upstream = await ScriptedUpstream.start(upstreamHost, registry.url, join(folder, 'upstream'))
  mess.push(() => upstream.stop())
  big = await publish('big', bigBytes)
  small = await publish('small', 4 * MiB)
})
afterAll(async () => {
  for (const cleanUp of mess.toReversed()) await cleanUp()
})

/** As `repository:v1`, of one layer. */
async function publish(repository: string, sizeBytes: number): Promise<WrittenImage> {
  const layout = join(folder, 'images')
  const image = await writeImage(layout, { name: `x/${repository}:v1`, sizeBytes, layers: 1, seed: repository })
  await registry.place(layout, image, repository, 'v1')
  return image
}

function layerOf({ layers: [layer] }: WrittenImage): WrittenImage['layers'][number] {
  if (layer === undefined) throw new Error('an image without a layer')
  return layer
}

const blobUrl = (repository: string, image: WrittenImage) =>
  `${upstream.url}/v2/${repository}/blobs/${layerOf(image).digest}`
const hexOf = (image: WrittenImage) => layerOf(image).digest.replace('sha256:', '')

/** A behaviour as a file would have it. */
function entryOf(behaviour: Record<string, unknown>): UpstreamEntry {
  const [entry] = sceneOf({ upstream: [behaviour] }).upstream
  if (entry === undefined) throw new Error('no behaviour')
  return entry
}

function sceneOf(changes: Record<string, unknown>): Scene {
  const base = { description: 'x', images: [{ size: '48MB', layers: 1 }], phases: { create: {} } }
  return parseScene(JSON.stringify({ ...base, ...changes }), 'scene')
}

/** What comes of it while upstream behaves so. */
async function during<T>(behaviour: Record<string, unknown>, action: () => Promise<T>): Promise<T> {
  const over = await upstream.begin(entryOf(behaviour))
  try {
    return await action()
  } finally {
    await over()
  }
}

describe('the scripted upstream', () => {
  it('passes on what the registry says, and logs it as the registry does', async () => {
    const seen = { proxy: upstream.requests().length, registry: registry.requests().length }
    const tag = `${upstream.url}/v2/big/manifests/v1`
    const accept = { Accept: big.target.mediaType }
    const [url, { digest, size }] = [blobUrl('big', big), layerOf(big)]
    const head = await download(client, tag, { method: 'HEAD', headers: accept })
    expect(head).toMatchObject({ status: 200, bytes: 0 })
    expect(head.head).toContain(`Docker-Content-Digest: ${big.target.digest}`)
    expect(await download(client, tag, { headers: accept })).toMatchObject({
      status: 200,
      sha256: big.target.digest.replace('sha256:', ''),
    })
    const whole = await download(client, url)
    expect(whole).toMatchObject({ status: 200, bytes: size, sha256: hexOf(big), isWhole: true })
    expect(whole.head).toContain(`Docker-Content-Digest: ${digest}`)
    const range = await download(client, url, { headers: { Range: 'bytes=1000-' } })
    expect(range).toMatchObject({ status: 206, bytes: size - 1000 })
    expect(await download(client, `${upstream.url}/v2/big/blobs/sha256:${'0'.repeat(64)}`)).toMatchObject({
      status: 404,
    })
    await eventually(() => {
      const own = upstream.requests().slice(seen.proxy)
      expect(own).toHaveLength(5)
      expect(own.map(({ client: ip }) => ip)).toEqual(own.map(() => client.ip))
      // The registry counts what it would have sent to a HEAD, too.
      const itsOwn = registry.requests().slice(seen.registry)
      const sent = itsOwn.map((entry) => (entry.method === 'HEAD' ? { ...entry, bytes: 0 } : entry))
      expect(own).toEqual(sent.map((entry) => ({ ...entry, client: client.ip })))
    })
  })

  it('holds no more than a piece of a body that nobody reads', async () => {
    const memoryMiB = () =>
      Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${upstream.pid}/status`, 'utf8'))?.[1]) / 1024
    await download(client, blobUrl('big', big))
    const slow = Array.from({ length: 4 }, () => new RawDownload(client, blobUrl('big', big), { pauseAfterBytes: 1 }))
    await Promise.all(slow.map(({ begun }) => begun))
    const before = memoryMiB()
    // While four wait, others get all of it.
    for (let count = 0; count < 4; count++)
      expect((await download(client, blobUrl('big', big))).sha256).toBe(hexOf(big))
    // Of four bodies of 48 MiB.
    expect(memoryMiB() - before).toBeLessThan(40)
    for (const each of slow) each.goOn()
    for (const each of slow) expect(await each.done).toMatchObject({ sha256: hexOf(big), isWhole: true })
  })

  it('keeps a connection to the registry for questions, and none for a body that was left', async () => {
    const connections = async () => {
      const lines = await output(
        upstreamHost.spawn('ss', ['-Htn', 'state', 'established', `dst ${upstreamHost.ip}:5080`]),
      )
      // Port after port of this side.
      return [...lines.matchAll(/:(\d+)\s+\S+:5080/g)].map(([, port]) => Number(port)).sort((a, b) => a - b)
    }
    const ask = () => download(client, `${upstream.url}/v2/small/manifests/v1`, { method: 'HEAD' })
    await ask()
    const before = await connections()
    expect(before).not.toEqual([])
    for (let count = 0; count < 5; count++) await ask()
    expect(await connections()).toEqual(before)
    const left = new RawDownload(client, blobUrl('big', big), { pauseAfterBytes: 1 })
    await left.begun
    expect(await connections()).toHaveLength(before.length + 1)
    left.leave()
    await eventually(async () => expect(await connections()).toEqual(before))
  })

  it('passes on that the registry broke off, and that it is not there', async () => {
    const running = new RawDownload(client, blobUrl('big', big), { pauseAfterBytes: 1 })
    await running.begun
    await registry.stop()
    try {
      running.goOn()
      expect(await running.done).toMatchObject({ status: 200, isWhole: false, error: '' })
      expect(await download(client, blobUrl('small', small))).toMatchObject({ status: 502 })
      expect(await download(client, blobUrl('small', small), { method: 'HEAD' })).toMatchObject({ status: 502 })
    } finally {
      await registry.start()
    }
    expect(await download(client, blobUrl('small', small))).toMatchObject({ status: 200, isWhole: true })
  })

  it('delays every answer', async () => {
    const ask = () => download(client, `${upstream.url}/v2/small/manifests/v1`, { method: 'HEAD' })
    await during({ behaviour: 'delay', time: '400ms' }, async () => {
      expect((await ask()).headMs).toBeGreaterThanOrEqual(399)
    })
    await eventually(async () => expect((await ask()).headMs).toBeLessThan(300))
  })

  it.each([
    // Both, of 4 MiB each, through one limit; each through its own.
    ['total', { total: '4MB/s' }, 2],
    ['perConnection', { perConnection: '4MB/s' }, 1],
  ])('sends bodies no faster than the rate, and not much slower (%s)', async (_name, rate, seconds) => {
    await during({ behaviour: 'rate', ...rate }, async () => {
      const both = await Promise.all([0, 1].map(() => download(client, blobUrl('small', small))))
      expect(both.map(({ sha256 }) => sha256)).toEqual([hexOf(small), hexOf(small)])
      const slowest = Math.max(...both.map(({ totalMs }) => totalMs))
      expect(slowest).toBeGreaterThan(seconds * 1000 * 0.9)
      expect(slowest).toBeLessThan(seconds * 1000 * 1.5)
    })
    await eventually(async () => expect((await download(client, blobUrl('small', small))).totalMs).toBeLessThan(500))
  })

  it('refuses connections, and lets what is under way come to its end', async () => {
    const running = new RawDownload(client, blobUrl('big', big), { pauseAfterBytes: 1 })
    await running.begun
    await during({ behaviour: 'refuse' }, async () => {
      expect(await download(client, blobUrl('small', small))).toMatchObject({ status: 0, error: 'ECONNREFUSED' })
      running.goOn()
      expect(await running.done).toMatchObject({ isWhole: true, sha256: hexOf(big) })
    })
    expect(await download(client, blobUrl('small', small))).toMatchObject({ status: 200, isWhole: true })
  })

  it('refuses with 503', async () => {
    const seen = registry.requests().length
    await during({ behaviour: 'refuse', by: 'status' }, async () => {
      expect(await download(client, blobUrl('small', small))).toMatchObject({ status: 503 })
      expect(await download(client, blobUrl('small', small), { method: 'HEAD' })).toMatchObject({
        status: 503,
        bytes: 0,
      })
    })
    expect(registry.requests().length).toBe(seen)
    expect(
      upstream
        .requests()
        .slice(-2)
        .map(({ status }) => status),
    ).toEqual([503, 503])
    expect(await download(client, blobUrl('small', small))).toMatchObject({ status: 200 })
  })

  it.each([
    ['FIN', ''],
    ['RST', 'ECONNRESET'],
  ])('cuts bodies by %s, refuses connections, and comes back', async (by, error) => {
    const seen = upstream.requests().length
    // At its own pace the body would take 12 s. It comes in pieces of 20 ms.
    const pieceBytes = 80_000
    await during({ behaviour: 'rate', perConnection: '4MB/s' }, async () => {
      const running = new RawDownload(client, blobUrl('big', big))
      await running.begun
      let cut: Downloaded | undefined
      await during({ behaviour: 'cut', by }, async () => {
        cut = await running.done
        expect(await download(client, blobUrl('small', small))).toMatchObject({ error: 'ECONNREFUSED' })
      })
      expect(cut).toMatchObject({ status: 200, isWhole: false, error })
      expect(cut?.bytes).toBeGreaterThan(0)
      const [entry] = upstream.requests().slice(seen)
      // Of the piece that was cut the kernel had taken a part, if it was slow: that is not counted.
      expect(entry?.bytes).toBeGreaterThan((cut?.bytes ?? Infinity) - pieceBytes)
      expect(entry?.bytes).toBeLessThan(bigBytes / 2)
    })
    expect(await download(client, blobUrl('small', small))).toMatchObject({ status: 200, isWhole: true })
  })

  it('changes exactly the byte in the middle of a blob, as often as it is told', async () => {
    const right = await readFile(blobPath(join(folder, 'images'), layerOf(small).digest))
    const wrong = Buffer.from(right)
    const middle = Math.floor(right.length / 2)
    wrong.writeUInt8(right.readUInt8(middle) ^ 0xff, middle)
    const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
    const url = blobUrl('small', small)
    const part = (from: number) => download(client, url, { headers: { Range: `bytes=${from}-` } })
    await during({ behaviour: 'wrongBytes' }, async () => {
      expect(await download(client, url)).toMatchObject({ bytes: right.length, sha256: sha256(wrong) })
      expect(await part(1_000)).toMatchObject({ sha256: sha256(wrong.subarray(1_000)) })
      expect(await part(middle + 1)).toMatchObject({ sha256: sha256(right.subarray(middle + 1)) })
      const manifest = await download(client, `${upstream.url}/v2/small/manifests/v1`, {
        headers: { Accept: small.target.mediaType },
      })
      expect(`sha256:${manifest.sha256}`).toBe(small.target.digest)
    })
    await during({ behaviour: 'wrongBytes', times: 1 }, async () => {
      expect(await download(client, url)).toMatchObject({ sha256: sha256(wrong) })
      expect(await download(client, url)).toMatchObject({ sha256: sha256(right) })
    })
    await during({ behaviour: 'wrongBytes', times: 1, minSize: `${right.length}B` }, async () => {
      const { digest } = small.config
      const config = await download(client, `${upstream.url}/v2/small/blobs/${digest}`)
      expect(`sha256:${config.sha256}`).toBe(digest)
      expect(await download(client, url)).toMatchObject({ sha256: sha256(wrong) })
    })
    expect(await download(client, url)).toMatchObject({ sha256: sha256(right) })
  })

  it('sends headers at once and the first byte late', async () => {
    await during({ behaviour: 'firstByteLate', time: '1s' }, async () => {
      const got = await download(client, blobUrl('small', small))
      expect(got).toMatchObject({ status: 200, sha256: hexOf(small) })
      expect(got.firstByteMs - got.headMs).toBeGreaterThan(900)
      const headers = { Accept: small.target.mediaType }
      const manifest = await download(client, `${upstream.url}/v2/small/manifests/v1`, { headers })
      expect(manifest).toMatchObject({ status: 200, isWhole: true })
      expect(manifest.totalMs).toBeLessThan(900)
    })
    await eventually(async () => {
      const got = await download(client, blobUrl('small', small))
      expect(got.firstByteMs - got.headMs).toBeLessThan(500)
    })
  })

  it('answers 429 to more GETs than the limit, counts each client for itself, and no HEADs', async () => {
    const url = blobUrl('small', small)
    const statusOf = async (host: Host, method: 'GET' | 'HEAD' = 'GET') =>
      (await download(host, url, { method })).status
    await during({ behaviour: 'rateLimit', requests: 2, window: '3s' }, async () => {
      expect(await statusOf(client)).toBe(200)
      expect(await statusOf(client, 'HEAD')).toBe(200)
      expect(await statusOf(client)).toBe(200)
      const limited = await download(client, url)
      expect(limited.status).toBe(429)
      expect(limited.head).toMatch(/^retry-after: [123]$/im)
      expect(await statusOf(client, 'HEAD')).toBe(200)
      expect(await statusOf(upstreamHost)).toBe(200)
      await eventually(async () => expect(await statusOf(client)).toBe(200))
    })
    await during({ behaviour: 'rateLimit', requests: 1, window: '1m', per: 'all' }, async () => {
      expect(await statusOf(client)).toBe(200)
      expect(await statusOf(upstreamHost)).toBe(429)
    })
    expect(await statusOf(upstreamHost)).toBe(200)
  })
})

describe('faults', () => {
  let host: Host
  let node: ContainerdNode
  let faulty: FaultyNode

  beforeAll(async () => {
    host = await network.addHost('n1')
    node = new ContainerdNode({ host, containerd: tools.containerdNew, folder: join(folder, 'n1') })
    await node.startContainerd()
    await node.configure(upstream.url)
    await node.startDaemon([])
    faulty = faultyNode(node, { pid: () => runningPid(node.daemon), start: () => node.startDaemon([]) }, '400mbit')
  })
  afterAll(() => node.remove())

  const stateOf = (pid = 0) => {
    try {
      return /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    } catch {
      return 'none'
    }
  }
  /** Asked by a neighbour: over the cable. 0: no answer. */
  const answerOverCable = async (patienceSeconds: number) => {
    const script = `exec 3<>/dev/tcp/${host.ip}/5000 && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3`
    const line = await output(
      client.spawn('timeout', [String(patienceSeconds), 'bash', '--norc', '-c', script]),
    ).catch(() => '')
    return Number(/^HTTP\/1\.\d (\d+)/.exec(line)?.[1] ?? 0)
  }
  const receivedBytes = async () => {
    const counters = await output(host.spawn('cat', ['/proc/net/dev']))
    return Number(/^\s*eth0:\s*(\d+)/m.exec(counters)?.[1])
  }
  const pids = () => ({ mirror: faulty.mirrorPid(), containerd: faulty.containerdPid() })

  it.each(['mirror', 'containerd'] as const)('freeze and thaw: %s', async (what) => {
    const pid = pids()[what]
    expect(stateOf(pid)).not.toBe('T')
    const fault = new Fault({ action: 'freeze', what }, faulty)
    await fault.strike()
    expect(stateOf(pid)).toBe('T')
    await fault.mend()
    expect(stateOf(pid)).not.toBe('T')
    expect(pids()[what]).toBe(pid)
    // The mirror has to find its containerd again.
    await eventually(async () => expect(await statusFrom(host, 5000, '/readyz')).toBe(200))
  })

  it.each([
    ['kill', 'mirror', 'SIGKILL'],
    ['kill', 'containerd', 'SIGKILL'],
    ['restart', 'mirror', null],
    ['restart', 'containerd', null],
  ] as const)('%s and start: %s', async (action, what, signal) => {
    const before = pids()
    const child = what === 'mirror' ? node.daemon : node.containerd
    const fault = new Fault({ action, what }, faulty)
    await fault.strike()
    expect(['none', 'Z']).toContain(stateOf(before[what]))
    await eventually(() => expect(pids()[what]).toBeUndefined())
    // Told by the kernel: a program that ends by itself on SIGTERM was not killed.
    expect(child.signalCode).toBe(signal)
    await fault.mend()
    expect(pids()[what]).not.toBe(before[what])
    const other = what === 'mirror' ? 'containerd' : 'mirror'
    expect(pids()[other]).toBe(before[other])
    await node.ctr(tools.ctr, ['version'])
    // The mirror has to find its containerd again.
    await eventually(async () => expect(await statusFrom(host, 5000, '/readyz')).toBe(200))
  })

  it('unplug and plug in: packets are lost, processes live', async () => {
    const before = pids()
    expect(await answerOverCable(5)).toBe(200)
    const fault = new Fault({ action: 'unplug', what: 'node' }, faulty)
    await fault.strike()
    const received = await receivedBytes()
    expect(await answerOverCable(1)).toBe(0)
    expect(await receivedBytes()).toBe(received)
    expect(await statusFrom(host, 5000, '/livez')).toBe(200)
    await fault.mend()
    await eventually(async () => expect(await answerOverCable(2)).toBe(200))
    expect(await receivedBytes()).toBeGreaterThan(received)
    expect(pids()).toEqual(before)
  })

  it('slow: a neighbour gets no more than the rate, and all of it afterwards', async () => {
    const rate = async () => (await measureLinks(host, [client])).upstreamSingle
    await host.setRate('400mbit')
    const fault = new Fault({ action: 'slow', what: 'node', rate: 5e6 }, faulty)
    await fault.strike()
    expect(await rate()).toBeLessThan(5.5e6)
    await fault.mend()
    expect(await rate()).toBeGreaterThan(10e6)
    const bare = faultyNode(node)
    await expect(new Fault({ action: 'slow', what: 'node', rate: 5e6 }, bare).strike()).rejects.toThrow('--node-rate')
  })

  it('kill and freeze of a node: everything at once, and back', async () => {
    const before = pids()
    const frozen = new Fault({ action: 'freeze', what: 'node' }, faulty)
    await frozen.strike()
    expect([stateOf(before.mirror), stateOf(before.containerd)]).toEqual(['T', 'T'])
    expect(await answerOverCable(1)).toBe(0)
    await frozen.mend()
    await eventually(async () => expect(await answerOverCable(2)).toBe(200))
    expect(pids()).toEqual(before)
    const killed = new Fault({ action: 'kill', what: 'node' }, faulty)
    await killed.strike()
    await eventually(() => expect(pids()).toEqual({ mirror: undefined, containerd: undefined }))
    expect(await answerOverCable(1)).toBe(0)
    await killed.mend()
    await eventually(async () => expect(await answerOverCable(2)).toBe(200))
    await node.ctr(tools.ctr, ['version'])
  })

  it('what does not run cannot be broken', async () => {
    const bare = faultyNode(node)
    await expect(new Fault({ action: 'kill', what: 'mirror' }, bare).strike()).rejects.toThrow('n1: no mirror runs')
  })

  describe('beside real pulls', () => {
    /** A pull, for whose layer upstream takes 6 s, and the timeline beside it. */
    async function play(changes: Record<string, unknown>) {
      const scene = sceneOf({
        ...changes,
        upstream: [{ behaviour: 'rate', total: '8MB/s' }, ...((changes['upstream'] as unknown[]) ?? [])],
      })
      const random = seededRandom(1)
      const plan = arrivals('create', scene.phases.create, { nodes: 1, images: 1 }, random)
      const seen = upstream.requests().length
      const timeline = await startTimeline({
        scene,
        phase: 'create',
        plan,
        firstLayers: [layerOf(big)],
        nodes: [faulty],
        upstream,
        clock: systemClock,
        random,
      })
      const reference = `${new URL(upstream.url).host}/big:v1`
      const error = await node.cri.pull(reference, pullTimeoutMs).then(
        () => undefined,
        (reason: unknown) => String(reason),
      )
      const ingested = await node.ingestBytes(layerOf(big).digest)
      const record = await timeline.stop()
      await node.cri.remove(reference).catch(() => undefined)
      const blobs = upstream
        .requests()
        .slice(seen)
        .filter(({ path, method }) => method === 'GET' && path.includes(layerOf(big).digest))
      return { error, ingested, ...record, blobs, whats: record.events.map(({ what }) => what) }
    }

    it('upstream is cut when half of the layer is there, and containerd gets no more than that', async () => {
      const { error, blobs, whats, events } = await play({ upstream: [{ behaviour: 'cut', at: '50%', by: 'RST' }] })
      expect(error).toMatch(/reset|refused/)
      expect(whats).toEqual([
        'upstream: rate',
        'upstream: cut (RST)',
        'upstream: rate: over',
        'upstream: cut (RST): over',
      ])
      // 24 MiB at 8 MiB/s.
      expect(events[1]?.at).toBeGreaterThan(2.5e9)
      expect(blobs[0]?.bytes).toBeGreaterThan(bigBytes / 2)
      expect(blobs[0]?.bytes).toBeLessThan(bigBytes * 0.8)
    })

    it('the mirror of who receives first is killed in the middle, and the pull comes to its end upstream', async () => {
      const before = faulty.mirrorPid()
      const fault = { action: 'kill', what: 'mirror', node: 'firstWithBytes', at: '50%', for: '200ms' }
      const { error, whats, missed } = await play({ faults: [fault] })
      expect({ error, missed }).toEqual({ error: undefined, missed: [] })
      // A mirror takes its time to start: the pull may be over before.
      expect(whats.slice(0, 2)).toEqual(['upstream: rate', 'n1: mirror killed'])
      expect(new Set(whats.slice(2))).toEqual(new Set(['n1: mirror started again', 'upstream: rate: over']))
      expect(faulty.mirrorPid()).not.toBe(before)
      expect(await statusFrom(host, 5000, '/readyz')).toBe(200)
    })

    it('containerd is killed in the middle: half of the layer stays, and the end of the phase mends it', async () => {
      const fault = { action: 'kill', what: 'containerd', node: 1, at: '50%' }
      const { error, ingested, whats } = await play({ faults: [fault] })
      expect(error).toBeDefined()
      expect(ingested).toBeGreaterThanOrEqual(bigBytes / 2)
      expect(ingested).toBeLessThan(bigBytes * 0.8)
      expect(whats).toContain('n1: containerd started again')
      await node.ctr(tools.ctr, ['version'])
    })

    it('what was to happen later does not, and is told', async () => {
      const { error, missed, whats } = await play({
        faults: [{ action: 'unplug', what: 'node', node: 1, at: '10m' }],
      })
      expect(error).toBeUndefined()
      expect(missed).toEqual(['unplug node (1): the pulls were over before'])
      expect(whats).toEqual(['upstream: rate', 'upstream: rate: over'])
    })
  })
})
