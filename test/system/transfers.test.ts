/** Downloads of real containerd, followed while they run over a slow link; prints how soon each thing was known. */
import { createHash } from 'node:crypto'
import { type Stats, existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { WrittenImage } from '../../src/images/image.ts'
import { systemClock } from '../../src/lib/clock.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { IngestFolder } from '../../src/store/ingest-folder.ts'
import { ContentNotFound } from '../../src/store/store.ts'
import { type TransferEvent, TransferFailed } from '../../src/store/transfers.ts'
import { Cluster } from '../../src/testbed/cluster.ts'
import { eventually } from '../support/daemons.ts'
import { blobFile, layerOf } from '../support/fault-bed.ts'

const MiB = 1024 * 1024
const sizeBytes = 64 * MiB
const halfBytes = sizeBytes / 2
/** The layer takes three seconds. */
const upstreamRate = '200mbit'
const pullTimeoutMs = 60_000
/** The kernel's times of files are up to 4 ms old; the machine may be busy. */
const knownWithinMs = 150
/** For each thing that a test waits for. */
const waitTimeoutMs = 60_000

interface Seen extends TransferEvent {
  /** Of the wall clock, which files' times are taken from. */
  atMs: number
  /** Of the file that is written, when the event came. */
  writtenMs: number | undefined
  /** Of the download, when the event came. */
  folder: string | undefined
}

describe.each([
  { containerd: 'containerdOld', parallel: false },
  { containerd: 'containerdNew', parallel: false },
  { containerd: 'containerdNew', parallel: true },
] as const)('$containerd, parallel fetch $parallel', ({ containerd, parallel }) => {
  const name = `transfers, ${containerd}${parallel ? ', parallel fetch' : ''}`
  let cluster: Cluster
  let transfers: IngestFolder
  let events: Seen[]
  let watchesBefore: number
  let images = 0

  beforeAll(async () => {
    cluster = await Cluster.create({
      nodes: 1,
      containerd,
      extraConfig: () =>
        parallel ? `[plugins."io.containerd.transfer.v1.local"]\n  concurrent_layer_fetch_buffer = ${4 * MiB}\n` : '',
    })
    await cluster.upstreamHost.setRate(upstreamRate)
  })
  afterAll(() => cluster.close())

  beforeEach(() => {
    watchesBefore = inotifyWatches()
    events = []
    transfers = new IngestFolder(cluster.node(1).contentPath, 'k8s.io', systemClock)
    transfers.watch((event) => {
      const path = ingestOf(event.digest)
      const written = path === undefined ? undefined : statIfThere(join(path, 'data'))?.mtimeMs
      events.push({ ...event, atMs: Date.now(), writtenMs: written, folder: path })
    })
    transfers.start()
  })
  afterEach(() => transfers.stop())

  async function publish(layers: number): Promise<{ reference: string; image: WrittenImage }> {
    images += 1
    return cluster.publish(`image${images}:v1`, { sizeBytes, layers, seed: `${name} ${images}` })
  }

  /** Waits for the event, of those since `events` was emptied. */
  function told(kind: TransferEvent['kind'], digest: Digest, haveBytes = 0): Promise<Seen> {
    return eventually(() => {
      const ofDigest = events.filter((one) => one.digest === digest)
      const found = ofDigest.find((one) => one.kind === kind && one.haveBytes >= haveBytes)
      if (found !== undefined) return found
      const seen = ofDigest.map((one) => `${one.kind} ${one.haveBytes}`).join(', ')
      throw new Error(`no event ${kind} with ${haveBytes} bytes of ${digest}, but ${seen || 'none'}`)
    }, waitTimeoutMs)
  }

  function ingestOf(digest: Digest): string | undefined {
    const folder = join(cluster.node(1).contentPath, 'ingest')
    return readdirSync(folder)
      .map((entry) => join(folder, entry))
      .find((path) => readIfThere(join(path, 'ref')).endsWith(digest))
  }

  it('a pull: known at once, and followed to the right bytes', async () => {
    const { reference, image } = await publish(1)
    const { digest, size } = layerOf(image)
    const seen = async () => {
      const started = await told('started', digest)
      const startedMs = started.atMs - statSync(started.folder ?? '').birthtimeMs
      // containerd makes it last.
      const describedMs = started.atMs - statSync(join(started.folder ?? '', 'data')).birthtimeMs
      const half = async () => {
        await told('grew', digest, halfBytes)
        const rest = hashTail(digest, halfBytes)
        return { watches: inotifyWatches() - watchesBefore, restHash: await rest }
      }
      const end = async () => {
        const complete = await told('complete', digest)
        return { complete, completeMs: complete.atMs - statSync(blob).ctimeMs }
      }
      const [wholeHash, atHalf, atEnd] = await Promise.all([hashTail(digest, 0), half(), end()])
      return { startedMs, describedMs, wholeHash, ...atHalf, ...atEnd }
    }
    const blob = blobFile(cluster.node(1), digest)
    // Whatever fails first says why; nothing is left that could fail unheard.
    const [{ startedMs, describedMs, wholeHash, restHash, watches, complete, completeMs }] = await Promise.all([
      seen(),
      cluster.node(1).cri.pull(reference, pullTimeoutMs),
    ])

    expect(`sha256:${wholeHash.hex}`).toBe(digest)
    expect(wholeHash.bytes).toBe(size)
    expect(restHash.hex).toBe(createHash('sha256').update(readFileSync(blob).subarray(halfBytes)).digest('hex'))
    const grew = events.filter((one) => one.kind === 'grew' && one.digest === digest)
    const lags = grew
      .flatMap(({ atMs, writtenMs }) => (writtenMs === undefined ? [] : [atMs - writtenMs]))
      .toSorted((a, b) => a - b)
    const lagMs = lags[Math.floor(lags.length / 2)] ?? NaN
    const tailMs = wholeHash.endMs - complete.atMs
    process.stderr.write(
      `${name}: started ${startedMs.toFixed(1)} ms after its folder and ${describedMs.toFixed(1)} ms after ` +
        `the last file in it, ${grew.length} events of growth, each after ` +
        `${lagMs.toFixed(1)} ms (median; ${lags.at(-1)?.toFixed(1)} at most), complete after ${completeMs.toFixed(1)} ms; the tail had all ` +
        `${tailMs.toFixed(1)} ms after the news of it; ${watches} inotify watches\n`,
    )
    expect(startedMs).toBeLessThan(knownWithinMs)
    expect(lagMs).toBeLessThan(knownWithinMs)
    expect(completeMs).toBeLessThan(knownWithinMs)
    expect(grew.length).toBeGreaterThan(8)
    expect(watches).toBeLessThanOrEqual(2 + 3)
    expect(transfers.find(digest)?.state).toBe('complete')
    await eventually(() => expect(inotifyWatches() - watchesBefore).toBe(2))
  })

  it('a pull of eight layers: all are told of, from the begin to the end', async () => {
    const { reference, image } = await publish(8)
    const tail = async ({ digest }: { digest: Digest }) => {
      await told('started', digest)
      return hashTail(digest, 0)
    }
    const [tails] = await Promise.all([
      Promise.all(image.layers.map(tail)),
      cluster.node(1).cri.pull(reference, pullTimeoutMs),
    ])
    expect(tails.map(({ hex }) => `sha256:${hex}`)).toEqual(image.layers.map(({ digest }) => digest))
    for (const { digest } of image.layers) expect(transfers.find(digest)?.state).toBe('complete')
    expect(events.filter(({ kind }) => kind === 'failed')).toEqual([])
  })

  it('a pull whose registry is killed: failed, and the next one is another', async () => {
    // Twelve seconds for the layer: a machine that stands still for a while does not miss the middle of it.
    await cluster.upstreamHost.setRate('50mbit')
    const { reference, image } = await publish(1)
    const { digest, size } = layerOf(image)
    const pull = cluster
      .node(1)
      .cri.pull(reference, pullTimeoutMs)
      .then(() => undefined, String)
    const pullEnd = pull.then(() => Date.now())
    await told('started', digest)
    const tail = hashTail(digest, 0).catch((error: unknown) => error)
    const { folder } = await told('grew', digest, size / 4)
    await cluster.upstream.stop()
    expect(await tail).toBeInstanceOf(TransferFailed)
    const { atMs, haveBytes } = await told('failed', digest)
    // containerd removes the file first, and then the folder that it was in.
    await eventually(() => expect(existsSync(folder ?? '')).toBe(false))
    const failedMs = atMs - statSync(dirname(folder ?? '')).mtimeMs
    expect(await pull).toBeTypeOf('string')
    process.stderr.write(
      `${name}: failed ${failedMs.toFixed(1)} ms after its folder was gone, with ${haveBytes} of ${size} bytes, ` +
        `${(atMs - (await pullEnd)).toFixed(0)} ms after the pull\n`,
    )
    expect(failedMs).toBeLessThan(knownWithinMs)
    expect(haveBytes).toBeLessThan(size)
    const old = transfers.find(digest)
    expect(old?.state).toBe('failed')
    await expect(old?.open()).rejects.toBeInstanceOf(ContentNotFound)

    await cluster.upstreamHost.setRate(upstreamRate)
    await cluster.upstream.start()
    events = []
    const [again] = await Promise.all([
      told('started', digest).then(() => hashTail(digest, 0)),
      cluster.node(1).cri.pull(reference, pullTimeoutMs),
    ])
    expect(`sha256:${again.hex}`).toBe(digest)
    expect(transfers.find(digest)).not.toBe(old)
  })

  /** Follows from an offset to the end. */
  async function hashTail(digest: Digest, first: number): Promise<{ hex: string; bytes: number; endMs: number }> {
    const transfer = transfers.find(digest)
    if (transfer === undefined) throw new Error(`no transfer of ${digest}`)
    const content = await transfer.open()
    const hash = createHash('sha256')
    let bytes = 0
    try {
      await content.send(
        { first, last: content.size - 1 },
        (chunk) => {
          hash.update(chunk)
          bytes += chunk.byteLength
          return Promise.resolve()
        },
        AbortSignal.timeout(waitTimeoutMs),
      )
    } finally {
      await content.close()
    }
    return { hex: hash.digest('hex'), bytes, endMs: Date.now() }
  }
})

/** Of this process. */
function inotifyWatches(): number {
  return readdirSync('/proc/self/fdinfo')
    .map((number) => readIfThere(join('/proc/self/fdinfo', number)))
    .reduce((sum, info) => sum + (info.match(/^inotify wd:/gm)?.length ?? 0), 0)
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function statIfThere(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false })
}
