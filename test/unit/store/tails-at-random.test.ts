/** Readers of downloads that do anything at any moment. What a reader was given is right, and whole if it says so. */
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import { IngestFolder } from '../../../src/store/ingest-folder.ts'
import { TransferFailed } from '../../../src/store/transfers.ts'
import { eventually } from '../../support/daemons.ts'
import { ContentFolderDouble, type IngestDouble } from '../../support/ingest-double.ts'
import { holds, printedSeed } from '../../support/seed.ts'

const size = 2_500_000
const digest = digestOf(Buffer.from('any'))
const seed = printedSeed('tails at random')

/** Each try has bytes of its own, so that a reader that mixes two of them is found. */
const tryBytes: Buffer[] = []
const bytesOfTry = (number: number) => (tryBytes[number] ??= Buffer.alloc(size, `bytes of try ${number}, `))

const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('write' as const), bytes: fc.integer({ min: 1, max: size }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('hand' as const), bytes: fc.integer({ min: 1, max: size }) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      range: fc.tuple(fc.nat(size - 1), fc.nat(size - 1)),
      /** Turns of the event loop that each chunk takes. */
      slowness: fc.nat(3),
      /** Bytes after which it leaves. */
      leavesAfter: fc.option(fc.nat(size), { freq: 4 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('commit', 'giveUp', 'truncate', 'beginAnew') }) },
)
const steps = fc.array(fc.record({ step, turns: fc.nat(6) }), { minLength: 5, maxLength: 40 })

const counts = { handed: 0, readers: 0, whole: 0, failed: 0, left: 0 }
afterAll(() => void process.stderr.write(`tails at random: ${JSON.stringify(counts)}\n`))

describe('tails at random', () => {
  it('never give wrong bytes, never less than all without an error, and always end', async () => {
    const property = fc.asyncProperty(steps, async (schedule) => {
      const content = new ContentFolderDouble()
      const transfers = new IngestFolder(content.path, 'k8s.io', systemClock)
      transfers.start()
      const readers: Promise<void>[] = []
      const download = new Download(content)
      try {
        for (const { step: now, turns: count } of schedule) {
          if (now.kind === 'read') readers.push(readAndCheck(transfers, download, now))
          else if (now.kind === 'truncate') await download.truncate(transfers)
          else if (now.kind === 'hand') await download.hand(transfers, now.bytes)
          else download.play(now)
          await turns(count)
        }
        download.end()
        await Promise.all(readers)
        await eventually(() => expect(transfers.find(digest)?.state).not.toBe('running'))
      } finally {
        transfers.stop()
        await Promise.allSettled(readers)
        content.remove()
      }
    })
    await holds(property, { seed, runs: 60, timeLimitMs: 18_000 })
    // Otherwise the property would say nothing.
    expect(Math.min(counts.whole, counts.failed, counts.left)).toBeGreaterThan(0)
  })
})

/** What containerd does, one try after the other. */
class Download {
  readonly #content: ContentFolderDouble
  #ingest: IngestDouble
  #tries = 1
  /** What it was given, and has written or has not. */
  #handedBytes = 0

  constructor(content: ContentFolderDouble) {
    this.#content = content
    this.#ingest = content.begin(digest, size)
  }

  play(now: { kind: string; bytes?: number }): void {
    if (now.kind === 'write') {
      const have = this.#ingest.haveBytes
      this.#ingest.append(bytesOfTry(this.#tries).subarray(have, have + (now.bytes ?? 0)))
      return
    }
    // A commit may come too early: then the blob is shorter than was expected.
    if (now.kind === 'commit') this.#ingest.commit()
    else this.#ingest.giveUp()
    this.#begin()
  }

  /**
   * Bytes of another try in the same file can only be told from the old ones when the shorter file was seen; with
   * containerd they are the same bytes.
   */
  async truncate(transfers: IngestFolder): Promise<void> {
    const before = await this.#seen(transfers)
    if (this.#ingest.haveBytes === 0) return
    this.#ingest.truncate()
    this.#handedBytes = 0
    this.#tries += 1
    await eventually(() => {
      if (before?.state !== 'failed') throw new Error('the shorter file was not seen')
    })
  }

  /** More than it has written yet. As above: in another try these are other bytes. */
  async hand(transfers: IngestFolder, bytes: number): Promise<void> {
    const transfer = await this.#seen(transfers)
    const from = Math.max(this.#handedBytes, this.#ingest.haveBytes)
    this.#handedBytes = Math.min(size, from + bytes)
    if (this.#handedBytes === from) return
    if (transfer !== undefined) counts.handed += 1
    transfer?.noteAhead(from, bytesOfTry(this.#tries).subarray(from, this.#handedBytes))
  }

  end(): void {
    this.#ingest.giveUp()
  }

  get tries(): number {
    return this.#tries
  }

  #begin(): void {
    this.#tries += 1
    this.#handedBytes = 0
    this.#ingest = this.#content.begin(digest, size)
  }

  async #seen(transfers: IngestFolder) {
    const { haveBytes } = this.#ingest
    await eventually(() => {
      const seen = transfers.find(digest)
      if (seen?.state !== 'running' || seen.haveBytes !== haveBytes) throw new Error('not seen yet')
    })
    return transfers.find(digest)
  }
}

async function readAndCheck(
  transfers: IngestFolder,
  download: Download,
  { range, slowness, leavesAfter }: { range: [number, number]; slowness: number; leavesAfter: number | null },
): Promise<void> {
  const transfer = transfers.find(digest)
  const content = await transfer?.open().catch(() => undefined)
  if (content === undefined) return
  counts.readers += 1
  const [first = 0, last = 0] = range.toSorted((a, b) => a - b)
  const leaving = new AbortController()
  const parts: Buffer[] = []
  let givenBytes = 0
  const outcome = await content
    .send(
      { first, last },
      async (chunk) => {
        // Bytes that are given may not change while they are being taken.
        const copy = Buffer.from(chunk)
        await turns(slowness)
        if (!copy.equals(chunk)) throw new Error('the bytes changed while they were being taken')
        parts.push(copy)
        givenBytes += copy.length
        if (leavesAfter !== null && givenBytes >= leavesAfter) leaving.abort(new Error('left'))
      },
      leaving.signal,
    )
    .then(
      () => 'whole' as const,
      (error: unknown) => {
        if (error instanceof TransferFailed) return 'failed' as const
        if (leaving.signal.aborted) return 'left' as const
        throw error
      },
    )
  await content.close()
  counts[outcome] += 1
  const given = Buffer.concat(parts)
  const possible = Array.from({ length: download.tries }, (_, index) => bytesOfTry(index + 1))
  const right = possible.some((bytes) => bytes.subarray(first, first + given.length).equals(given))
  if (!right) throw new Error(`wrong bytes within ${first}-${last}`)
  if (outcome === 'whole' && given.length !== last - first + 1) throw new Error(`${given.length} of ${first}-${last}`)
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}
