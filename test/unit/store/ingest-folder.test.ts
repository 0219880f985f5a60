/**
 * Over a content folder made by hand. Time stands still unless a test moves it, and stays before the next re-scan while
 * it waits: what is noticed is noticed by events, or because the file is known to grow.
 */
import { readFileSync, readdirSync, readlinkSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  endedTransfersMax,
  ingestPaceMs,
  ingestRescanMs,
  ingestUnreadPaceMs,
  ingestWatchesMax,
  ingestsMax,
  rescanMissingMs,
} from '../../../src/limits.ts'
import { type Digest, digestOf } from '../../../src/oci/digest.ts'
import { IngestFolder } from '../../../src/store/ingest-folder.ts'
import { type Content, ContentNotFound } from '../../../src/store/store.ts'
import { type TransferEvent, TransferFailed } from '../../../src/store/transfers.ts'
import { eventually as eventuallyInTime } from '../../support/daemons.ts'
import { ContentFolderDouble } from '../../support/ingest-double.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const MiB = 1024 * 1024
const never = new AbortController().signal
const blob = Buffer.alloc(3 * MiB + 77, 'the bytes of a blob, ')
const digest = digestOf(blob)
const step = (number: number) => blob.subarray(number * MiB, (number + 1) * MiB)

let content: ContentFolderDouble
let clock: ManualClock
let transfers: IngestFolder
let events: TransferEvent[]
let tails: Content[]
let noRescanBeforeMs: number

beforeEach(() => {
  content = new ContentFolderDouble()
  clock = new ManualClock()
  noRescanBeforeMs = clock.nowMs() + ingestRescanMs
  transfers = new IngestFolder(content.path, 'k8s.io', clock)
  events = []
  tails = []
  transfers.watch((event) => events.push(event))
})
afterEach(async () => {
  transfers.stop()
  for (const tail of tails) await tail.close()
  content.remove()
})

/** Time goes on a little with each try. */
function eventually<T>(probe: () => T | Promise<T>): Promise<T> {
  return eventuallyInTime(() => {
    if (clock.nowMs() + ingestPaceMs < noRescanBeforeMs) clock.advance(ingestPaceMs)
    return probe()
  })
}

const told = (of: Digest = digest) =>
  events.filter((event) => event.digest === of).map(({ kind, haveBytes }) => `${kind} ${haveBytes}`)
const tells = (...expected: string[]) => eventually(() => expect(told()).toEqual(expected))

async function openTail(): Promise<Content> {
  const transfer = transfers.find(digest)
  if (transfer === undefined) throw new Error('no transfer')
  const tail = await transfer.open()
  tails.push(tail)
  return tail
}

/** What the reader was given so far; the promise settles as `send` does. */
function read(
  tail: Content,
  first = 0,
  last = tail.size - 1,
  signal = never,
): { bytes: () => Buffer; end: Promise<void> } {
  const parts: Buffer[] = []
  const end = tail.send({ first, last }, (chunk) => Promise.resolve(void parts.push(Buffer.from(chunk))), signal)
  end.catch(() => undefined)
  return { bytes: () => Buffer.concat(parts), end }
}

describe('a download', () => {
  beforeEach(() => {
    content.makeIngestFolder()
    transfers.start()
  })

  it('is told of when it starts, at each step and when it is complete', async () => {
    const ingest = content.begin(digest, blob.length)
    await tells('started 0')
    expect(transfers.find(digest)).toMatchObject({ digest, size: blob.length, haveBytes: 0, state: 'running' })
    ingest.append(step(0))
    await tells('started 0', `grew ${MiB}`)
    expect(transfers.find(digest)?.haveBytes).toBe(MiB)
    ingest.append(blob.subarray(MiB))
    await tells('started 0', `grew ${MiB}`, `grew ${blob.length}`)
    expect(transfers.find(digest)?.state).toBe('running')
    ingest.commit()
    await tells('started 0', `grew ${MiB}`, `grew ${blob.length}`, `complete ${blob.length}`)
    expect(transfers.find(digest)).toMatchObject({ state: 'complete', haveBytes: blob.length })
  })

  it('has failed when containerd is gone, and is another one when that is back and goes on with it', async () => {
    const ingest = content.begin(digest, blob.length)
    await tells('started 0')
    ingest.append(step(0))
    await tells('started 0', `grew ${MiB}`)
    const { end } = read(await openTail())
    transfers.noteContainerd(false)
    await expect(end).rejects.toThrow(TransferFailed)
    expect(transfers.find(digest)?.state).toBe('failed')
    clock.advance(ingestRescanMs)
    expect(told()).toEqual(['started 0', `grew ${MiB}`, `failed ${MiB}`])
    transfers.noteContainerd(true)
    expect(told().slice(3)).toEqual([`started ${MiB}`])
    ingest.append(blob.subarray(MiB))
    ingest.commit()
    await eventually(() => expect(told().at(-1)).toBe(`complete ${blob.length}`))
  })

  it('is known to run before the kernel has told, when somebody asks', () => {
    expect(transfers.isRunning(digest)).toBe(false)
    content.begin(digest, blob.length, `default/1/layer-${digest}`)
    expect(transfers.isRunning(digest)).toBe(false)
    content.begin(digest, blob.length)
    expect(transfers.find(digest)).toBeUndefined()
    expect(transfers.isRunning(digest)).toBe(true)
    expect(transfers.isRunning(digestOf(Buffer.from('another')))).toBe(false)
  })

  it('is known only when all of its description is there', async () => {
    const ingest = content.begin(digest, blob.length)
    await tells('started 0')
    ingest.giveUp()
    await tells('started 0', 'failed 0')
    ingest.describe(`k8s.io/1/layer-${digest}`, blob.length)
    const other = digestOf(Buffer.from('other'))
    content.begin(other, 1)
    await eventually(() => expect(told(other)).toEqual(['started 0']))
    expect(told()).toEqual(['started 0', 'failed 0'])
    ingest.makeData()
    await tells('started 0', 'failed 0', 'started 0')
  })

  it.each([
    ['another namespace', `moby/1/layer-${digest}`, blob.length],
    ['no blob of an image', `k8s.io/1/import-${digest}`, blob.length],
    ['no digest', 'k8s.io/1/layer-sha256:abc', blob.length],
    ['no size', `k8s.io/1/layer-${digest}`, 0],
  ])('of %s is none', async (_name, ref, size) => {
    const watchesBefore = inotifyWatches()
    const ingest = content.begin(digest, size, ref)
    const other = digestOf(Buffer.from('other'))
    const second = content.begin(other, 1, `k8s.io/2/config-${other}`)
    await eventually(() => expect(told(other)).toEqual(['started 0']))
    ingest.append(step(0))
    second.append(Buffer.from('x'))
    await eventually(() => expect(told(other)).toEqual(['started 0', 'grew 1']))
    expect(told()).toEqual([])
    expect(transfers.find(digest)).toBeUndefined()
    await eventually(() => expect(inotifyWatches() - watchesBefore).toBe(1))
    // The name may come again.
    ingest.giveUp()
    content.begin(digest, blob.length)
    await tells('started 0')
  })

  it('fails when it is given up, or becomes more or less than was expected', async () => {
    content.begin(digest, blob.length).giveUp()
    let ingest = content.begin(digest, blob.length)
    await eventually(() => expect(told().at(-1)).toBe('started 0'))
    ingest.giveUp()
    await eventually(() => expect(told().at(-1)).toBe('failed 0'))
    expect(transfers.find(digest)?.state).toBe('failed')

    events = []
    ingest = content.begin(digest, blob.length)
    ingest.append(step(0))
    await tells(`started ${MiB}`)
    ingest.commit()
    await tells(`started ${MiB}`, `failed ${MiB}`)

    events = []
    ingest = content.begin(digest, MiB)
    await tells('started 0')
    ingest.append(blob)
    await tells('started 0', 'failed 0')
    expect(transfers.find(digest)?.state).toBe('failed')
    await expect(transfers.find(digest)?.open()).rejects.toBeInstanceOf(ContentNotFound)
  })

  it('that begins anew is another one, in a new folder of the same name and in the same file', async () => {
    const first = content.begin(digest, blob.length)
    first.append(step(0))
    await eventually(() => expect(told().at(-1)).toMatch(`${MiB}`))
    const before = transfers.find(digest)
    const reader = read(await openTail())
    first.giveUp()
    const second = content.begin(digest, blob.length)
    // More than the first had: only the file itself tells that it is another one.
    second.append(blob.subarray(0, 2 * MiB))
    await eventually(() => expect(told().slice(-2)).toEqual([`failed ${MiB}`, `started ${2 * MiB}`]))
    await expect(reader.end).rejects.toBeInstanceOf(TransferFailed)
    expect(before?.state).toBe('failed')
    expect(transfers.find(digest)).toMatchObject({ state: 'running', haveBytes: 2 * MiB })

    const again = read(await openTail())
    second.truncate()
    await eventually(() => expect(told().slice(-2)).toEqual([`failed ${2 * MiB}`, 'started 0']))
    await expect(again.end).rejects.toBeInstanceOf(TransferFailed)
    second.append(blob)
    await eventually(() => expect(told().at(-1)).toBe(`grew ${blob.length}`))
    second.commit()
    await eventually(() => expect(told().at(-1)).toBe(`complete ${blob.length}`))
  })

  it('fails when it is given up because another one was first', async () => {
    const slower = content.begin(digest, blob.length)
    const faster = content.begin(digest, blob.length, `k8s.io/2/layer-${digest}`)
    slower.append(step(0))
    faster.append(blob)
    await eventually(() => expect(told()).toContain(`started ${MiB}`))
    faster.commit()
    slower.giveUp()
    await eventually(() => expect(told()).toContain(`complete ${blob.length}`))
    await eventually(() => expect(told()).toContain(`failed ${MiB}`))
  })

  it('of a digest that has two is the latest that runs', async () => {
    const left = content.begin(digest, blob.length)
    await tells('started 0')
    const running = content.begin(digest, blob.length, `k8s.io/2/layer-${digest}`)
    running.append(step(0))
    await eventually(() => expect(transfers.find(digest)?.haveBytes).toBe(MiB))
    running.giveUp()
    await eventually(() => expect(transfers.find(digest)).toMatchObject({ haveBytes: 0, state: 'running' }))
    left.giveUp()
    await eventually(() => expect(transfers.find(digest)?.state).toBe('failed'))
  })
})

describe('the tail of a download', () => {
  beforeEach(() => {
    content.makeIngestFolder()
    transfers.start()
  })

  it('gives each step as soon as it is there, across the end of the download, and ranges of it', async () => {
    const ingest = content.begin(digest, blob.length)
    await tells('started 0')
    const tail = await openTail()
    expect(tail.size).toBe(blob.length)
    const whole = read(tail)
    const part = read(tail, MiB - 5, 2 * MiB)
    ingest.append(step(0))
    await eventually(() => expect(whole.bytes().length).toBe(MiB))
    await eventually(() => expect(part.bytes().length).toBe(5))
    ingest.append(step(1))
    await eventually(() => expect(whole.bytes().length).toBe(2 * MiB))
    ingest.append(blob.subarray(2 * MiB))
    ingest.commit()
    await Promise.all([whole.end, part.end])
    expect(whole.bytes().equals(blob)).toBe(true)
    expect(part.bytes().equals(blob.subarray(MiB - 5, 2 * MiB + 1))).toBe(true)
    await eventually(() => expect(transfers.find(digest)?.state).toBe('complete'))
    // Opened, it is there to its end, also when it is deleted.
    rmSync(content.blobPath(digest))
    const again = read(tail)
    await again.end
    expect(again.bytes().equals(blob)).toBe(true)
  })

  it('is the blob when the download has ended', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(blob)
    await tells(`started ${blob.length}`)
    ingest.commit()
    await eventually(() => expect(transfers.find(digest)?.state).toBe('complete'))
    const tail = await openTail()
    const whole = read(tail)
    await whole.end
    expect(whole.bytes().equals(blob)).toBe(true)
  })

  it('ends with the signal, with a taker that fails, with the folder', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(step(0))
    await tells(`started ${MiB}`)
    const tail = await openTail()
    const stop = new AbortController()
    const stopped = read(tail, 0, tail.size - 1, stop.signal)
    await eventually(() => expect(stopped.bytes().length).toBe(MiB))
    stop.abort(new Error('enough'))
    await expect(stopped.end).rejects.toThrow('enough')
    await expect(
      tail.send({ first: 0, last: blob.length - 1 }, () => Promise.reject(new Error('full')), never),
    ).rejects.toThrow('full')
    let chunks = 0
    const lastFails = () => (++chunks === 2 ? Promise.reject(new Error('full at last')) : Promise.resolve())
    await expect(tail.send({ first: MiB - 3, last: MiB - 1 }, lastFails, never)).resolves.toBeUndefined()
    await expect(tail.send({ first: MiB - 3, last: MiB - 1 }, lastFails, never)).rejects.toThrow('full at last')
    const waiting = read(tail)
    await eventually(() => expect(waiting.bytes().length).toBe(MiB))
    const opening = transfers.find(digest)?.open()
    transfers.stop()
    await expect(opening).rejects.toBeInstanceOf(ContentNotFound)
    await expect(waiting.end).rejects.toBeInstanceOf(TransferFailed)
    expect(waiting.bytes().equals(step(0))).toBe(true)
  })

  it('gives what containerd was handed before that is in the file', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(step(0))
    await tells(`started ${MiB}`)
    const transfer = transfers.find(digest)
    // Nobody would read it.
    transfer?.noteAhead(MiB, step(1))
    expect(transfer?.hasPast(MiB)).toBe(false)
    const whole = read(await openTail())
    await eventually(() => expect(whole.bytes().length).toBe(MiB))
    transfer?.noteAhead(MiB, step(1).subarray(0, MiB / 2))
    expect(transfer?.hasPast(MiB)).toBe(true)
    expect(transfer?.haveBytes).toBe(MiB)
    await eventually(() => expect(whole.bytes().length).toBe(1.5 * MiB))
    // Of a containerd that is far behind the file is waited for, and then what is ahead goes on.
    transfer?.noteAhead(2 * MiB, step(2))
    expect(transfer?.hasPast(1.5 * MiB)).toBe(false)
    ingest.append(step(1))
    await eventually(() => expect(whole.bytes().length).toBe(3 * MiB))
    // The last bytes are less than a step.
    transfer?.noteAhead(3 * MiB, blob.subarray(3 * MiB))
    await whole.end
    expect(transfer?.haveBytes).toBe(2 * MiB)
    expect(whole.bytes().equals(blob)).toBe(true)
  })

  it('ends for who was given what containerd lost when it left; others are given what is in the file', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(step(0))
    await tells(`started ${MiB}`)
    const transfer = transfers.find(digest)
    const beyond = read(await openTail())
    transfer?.noteAhead(MiB, step(1).subarray(0, MiB / 2))
    await eventually(() => expect(beyond.bytes().length).toBe(1.5 * MiB))
    const later = read(await openTail(), 2 * MiB, 2 * MiB)
    transfer?.loseAhead()
    const within = read(await openTail(), 0, 2 * MiB)
    await expect(beyond.end).rejects.toBeInstanceOf(TransferFailed)
    expect(transfer).toMatchObject({ state: 'running', haveBytes: MiB, readableBytes: MiB })
    ingest.append(blob.subarray(MiB))
    await within.end
    expect(within.bytes().equals(blob.subarray(0, 2 * MiB + 1))).toBe(true)
    await later.end
  })

  it('says how far it can be read; without readers nothing is kept', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(step(0))
    await tells(`started ${MiB}`)
    const transfer = transfers.find(digest)
    const tail = await openTail()
    transfer?.noteAhead(MiB, step(1))
    expect(transfer?.readableBytes).toBe(2 * MiB)
    transfer?.noteAhead(5 * MiB, step(0))
    expect(transfer?.readableBytes).toBe(MiB)
    transfer?.noteAhead(MiB, step(1))
    await tail.close()
    tails = []
    expect(transfer?.readableBytes).toBe(2 * MiB)
    ingest.append(step(1).subarray(0, 5))
    await eventually(() => expect(transfer?.readableBytes).toBe(MiB + 5))
  })

  it('is not opened when the first look at it finds that it was given up', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(step(0))
    await tells(`started ${MiB}`)
    ingest.append(step(1))
    await tells(`started ${MiB}`, `grew ${2 * MiB}`)
    const opening = transfers.find(digest)?.open()
    // Seen by nobody else before: no event is handled until the next turn.
    ingest.truncate()
    await expect(opening).rejects.toBeInstanceOf(ContentNotFound)
  })

  it('gives nothing of what containerd was handed when the download has failed', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(step(0))
    await tells(`started ${MiB}`)
    const transfer = transfers.find(digest)
    const whole = read(await openTail())
    await eventually(() => expect(whole.bytes().length).toBe(MiB))
    ingest.giveUp()
    await eventually(() => expect(transfer?.state).toBe('failed'))
    transfer?.noteAhead(MiB, step(1))
    await expect(whole.end).rejects.toBeInstanceOf(TransferFailed)
    expect(whole.bytes().length).toBe(MiB)
  })

  it('is looked at more often while somebody reads it, and at once when that begins', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(Buffer.alloc(10))
    await tells('started 10')
    ingest.append(Buffer.alloc(10))
    await tells('started 10', 'grew 20')
    const transfer = transfers.find(digest)
    ingest.append(Buffer.alloc(10))
    // It may be a little later already: waiting for what was told takes time.
    clock.advance(ingestUnreadPaceMs - 3 * ingestPaceMs)
    expect(transfer?.haveBytes).toBe(20)
    clock.advance(3 * ingestPaceMs)
    expect(transfer?.haveBytes).toBe(30)
    ingest.append(Buffer.alloc(10))
    const tail = await openTail()
    expect(transfer?.haveBytes).toBe(40)
    ingest.append(Buffer.alloc(10))
    clock.advance(ingestPaceMs)
    expect(transfer?.haveBytes).toBe(50)
    await tail.close()
    tails = []
    clock.advance(ingestPaceMs)
    ingest.append(Buffer.alloc(10))
    clock.advance(ingestPaceMs)
    expect(transfer?.haveBytes).toBe(50)
    clock.advance(ingestUnreadPaceMs)
    expect(transfer?.haveBytes).toBe(60)
  })

  it('gives nothing more once the download has failed, though more is there', async () => {
    const ingest = content.begin(digest, blob.length)
    ingest.append(blob.subarray(0, 3 * MiB))
    await tells(`started ${3 * MiB}`)
    const tail = await openTail()
    const parts: number[] = []
    const sending = tail.send(
      { first: 0, last: blob.length - 1 },
      async (chunk) => {
        parts.push(chunk.byteLength)
        if (parts.length > 1) return
        ingest.giveUp()
        await eventually(() => expect(transfers.find(digest)?.state).toBe('failed'))
      },
      never,
    )
    await expect(sending).rejects.toBeInstanceOf(TransferFailed)
    expect(parts).toEqual([MiB])
  })
})

describe('the folder', () => {
  it('may come later, go, and come anew', async () => {
    transfers.start()
    content.makeIngestFolder()
    content.begin(digest, blob.length)
    await tells('started 0')
    renameSync(content.ingestPath, `${content.path}/old`)
    await tells('started 0', 'failed 0')
    content.makeIngestFolder()
    content.begin(digest, blob.length).append(step(0))
    await eventually(() => expect(transfers.find(digest)?.haveBytes).toBe(MiB))
    const other = digestOf(Buffer.from('other'))
    content.begin(other, 1)
    await eventually(() => expect(told(other)).toEqual(['started 0']))
  })

  it('may have all that is above it come later: found by the re-scan', () => {
    rmSync(content.path, { recursive: true })
    transfers.start()
    content.makeIngestFolder()
    content.begin(digest, blob.length)
    expect(transfers.find(digest)).toBeUndefined()
    clock.advance(rescanMissingMs)
    expect(told()).toEqual(['started 0'])
  })

  it('has downloads that were there before us', () => {
    content.begin(digest, blob.length).append(step(0))
    transfers.start()
    expect(told()).toEqual([`started ${MiB}`])
  })

  it('costs one watch for each download, up to a limit: the others are followed by the re-scan', async () => {
    const watchesBefore = inotifyWatches()
    content.makeIngestFolder()
    const ingests = Array.from({ length: ingestsMax + 1 }, (_, number) => {
      const one = digestOf(Buffer.from(`${number}`))
      return { digest: one, ingest: content.begin(one, 2) }
    })
    transfers.start()
    expect(events.length).toBe(ingestsMax)
    expect(inotifyWatches() - watchesBefore).toBe(2 + ingestWatchesMax)

    const followed = ingests.filter((one) => transfers.find(one.digest) !== undefined)
    for (const { ingest } of ingests) ingest.append(Buffer.from('1'))
    const grown = () => followed.filter((one) => transfers.find(one.digest)?.haveBytes === 1).length
    await eventually(() => expect(grown()).toBe(ingestWatchesMax))
    clock.advance(ingestRescanMs)
    expect(grown()).toBe(ingestsMax)

    for (const { ingest } of followed) ingest.giveUp()
    const failed = () => events.filter(({ kind }) => kind === 'failed').length
    await eventually(() => expect(failed()).toBe(ingestsMax))
    const remembered = followed.filter((one) => transfers.find(one.digest) !== undefined)
    expect(remembered.length).toBe(endedTransfersMax)
    clock.advance(ingestRescanMs)
    const left = ingests.find((one) => !followed.includes(one))
    expect(transfers.find(left?.digest ?? digest)?.haveBytes).toBe(1)
    expect(inotifyWatches() - watchesBefore).toBe(3)
    expect(openDescriptors(content.path)).toBe(1)
    transfers.stop()
    expect(openDescriptors(content.path)).toBe(0)
  })
})

/** Of this process. */
function inotifyWatches(): number {
  const infos = readdirSync('/proc/self/fdinfo').map((number) => {
    try {
      return readFileSync(join('/proc/self/fdinfo', number), 'utf8')
    } catch {
      return ''
    }
  })
  return infos.reduce((sum, info) => sum + (info.match(/^inotify wd:/gm)?.length ?? 0), 0)
}

/** Descriptors of this process on files below a folder. */
function openDescriptors(folder: string): number {
  return readdirSync('/proc/self/fd').filter((number) => {
    try {
      return readlinkSync(join('/proc/self/fd', number)).startsWith(folder)
    } catch {
      return false
    }
  }).length
}
