/**
 * Peers that answer anything at all. What containerd sees is one of three: everything, right; 404 before the headers;
 * or a body that ends early, by FIN. That a peer sends other bytes than it should cannot be seen while they pass, so
 * the peers here never do: what they send of a body is always a right beginning.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { type Socket, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { digestOf } from '../../src/oci/digest.ts'
import type { RegistryServer } from '../../src/registry/server.ts'
import { LayoutStore } from '../../src/store/layout/layout-store.ts'
import { startRegistry } from '../support/registry.ts'
import { type BadAnswer, badAnswer } from '../support/bad-answers.ts'
import { DaemonGroup } from '../support/daemons.ts'
import { FixedRouter } from '../support/fixed-router.ts'
import { ScriptedPeer, honest } from '../support/scripted-peer.ts'
import { takeApart } from '../support/raw-http.ts'
import { excerpt, holds, printedSeed } from '../support/seed.ts'

const port = 5000
const pulls = 300
const pullsAtOnce = 100
const peersMost = 3
/** Each pull has its own content, so that it has its own peers' answers. */
const contentBytes = 100_000

describe('peers that answer anything', () => {
  const seed = printedSeed('bad-peers')
  const group = new DaemonGroup()
  const router = new FixedRouter()
  const own = group.address(1)
  const contents = new Map<string, { content: Buffer; answers: BadAnswer[]; stalled: Set<number> }>()
  const peers: ScriptedPeer[] = []
  let folder = ''
  let store: LayoutStore
  let server: RegistryServer

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bad-peers-'))
    store = await LayoutStore.open(folder, systemClock)
    server = await startRegistry({ host: own, port }, { store, router })
    for (let index = 0; index <= peersMost; index++) {
      peers.push(await ScriptedPeer.start(group.address(2 + index), port, answerAs(index)))
    }
  })
  afterAll(async () => {
    await server.close(0)
    await store.close()
    await Promise.all(peers.map((peer) => peer.close()))
    await rm(folder, { recursive: true, force: true })
  })

  /** The last of the peers is honest. */
  const answerAs =
    (index: number): Parameters<typeof ScriptedPeer.start>[2] =>
    (socket, request) => {
      const digest = /sha256:[a-f0-9]{64}/.exec(request.path)?.[0] ?? ''
      const entry = contents.get(digest)
      if (entry === undefined) return
      const answer = entry.answers[index]
      // A peer that gives a few bytes and stalls is asked again, since it gave bytes: that could go on for hours.
      if (answer?.stalls === true && entry.stalled.has(index)) {
        socket.end()
        return
      }
      entry.stalled.add(index)
      if (answer === undefined) socket.write(honest(request, entry.content, digest))
      else void answer.send(socket, honest(request, entry.content, digest), entry.content)
    }

  /** What containerd would see: the answer as far as it came, and how it ended. */
  async function pull(
    digest: string,
    section: string,
    headers: string,
  ): Promise<{ received: Buffer; reset: boolean }> {
    const socket = connect(port, own)
    socket.write(
      `GET /v2/app/${section}/${digest}?ns=reg.test HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${headers}\r\n`,
    )
    const received: Buffer[] = []
    let reset = false
    socket.on('data', (data) => received.push(data)).on('error', () => (reset = true))
    await closed(socket)
    return { received: Buffer.concat(received), reset }
  }

  /** Undefined when the outcome is one of the three. */
  function faultOf(
    received: Buffer,
    content: Buffer,
    range: { first: number; last: number } | undefined,
  ): string | undefined {
    const [answer, ...more] = takeApart(received)
    if (answer === undefined) return 'no answer'
    if (more.length > 0) return 'more than one answer'
    const { status, headers, body } = answer
    if (status === 404) return undefined
    if (status !== (range === undefined ? 200 : 206)) return `status ${status}`
    const expected = range === undefined ? content : content.subarray(range.first, range.last + 1)
    const announced = Number(headers.get('content-length'))
    // That a peer names another size shows only where containerd's download is followed, for flights.
    if (received.length - received.indexOf('\r\n\r\n') - 4 > announced) return 'more bytes than announced'
    return expected.subarray(0, body.length).equals(body) ? undefined : 'wrong bytes'
  }

  const oneOf = fc.record({
    answers: fc.array(badAnswer, { minLength: 1, maxLength: peersMost }),
    withHonest: fc.boolean(),
    range: fc.option(fc.tuple(fc.nat(contentBytes - 1), fc.nat(contentBytes - 1)), { nil: undefined }),
  })

  it(`never make containerd see anything but right bytes, 404 or a short body: ${pulls} pulls`, async () => {
    const outcomes = new Map<string, number>()
    const batches = fc.array(oneOf, { minLength: pullsAtOnce, maxLength: pullsAtOnce })
    const property = fc.asyncProperty(batches, async (batch) => {
      const done = batch.map(async ({ answers, withHonest, range }) => {
        const content = randomBytes(contentBytes)
        const digest = digestOf(content)
        contents.set(digest, { content, answers, stalled: new Set() })
        const asked = [...answers.keys(), ...(withHonest ? [peersMost] : [])]
        router.providers.set(
          digest,
          asked.map((index) => ({ id: `${digest}-${index}`, addresses: [group.address(2 + index)] })),
        )
        const bounds = range === undefined ? undefined : { first: Math.min(...range), last: Math.max(...range) }
        const header = bounds === undefined ? '' : `Range: bytes=${bounds.first}-${bounds.last}\r\n`
        const { received, reset } = await pull(digest, 'blobs', header)
        const fault = reset ? 'a reset' : faultOf(received, content, bounds)
        const outcome = `${takeApart(received)[0]?.status}`
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
        contents.delete(digest)
        router.providers.delete(digest)
        if (fault !== undefined) {
          const names = answers.map(({ name }) => name).join('; ')
          throw new Error(
            `${fault} from [${names}]${withHonest ? ' and an honest one' : ''}, ${header}: ${excerpt(received, 500)}`,
          )
        }
      })
      await Promise.all(done)
    })
    const startedMs = performance.now()
    await holds(property, { seed, runs: pulls / pullsAtOnce, timeLimitMs: 55_000 })
    process.stderr.write(
      `bad-peers: ${pulls} pulls, ${Math.round(performance.now() - startedMs)} ms, ${JSON.stringify(Object.fromEntries(outcomes))}\n`,
    )
    const { received } = await pullHonest()
    expect(takeApart(received)[0]?.status).toBe(200)
  }, 90_000)

  function pullHonest(): Promise<{ received: Buffer }> {
    const content = randomBytes(contentBytes)
    const digest = digestOf(content)
    contents.set(digest, { content, answers: [], stalled: new Set() })
    router.providers.set(digest, [{ id: 'honest', addresses: [group.address(2 + peersMost)] }])
    return pull(digest, 'blobs', '')
  }
})

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()))
}
