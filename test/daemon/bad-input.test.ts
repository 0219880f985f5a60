/**
 * Malformed requests against the registry port of two daemons, each in a process of its own: whatever comes, the
 * answer is a proper one, and afterwards everything works and nothing is left open.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type Socket, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pipelinedRequestsMax, registryConnectionsMax, requestHeadersTimeoutMs } from '../../src/limits.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { writeBlob } from '../../src/images/layout.ts'
import { awakeMs } from '../../src/testbed/awake-clock.ts'
import { conversations } from '../support/bad-http.ts'
import { DaemonProcess } from '../support/daemon-process.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'
import { type Answer, converse, takeApart } from '../support/raw-http.ts'
import { excerpt, holds, printedSeed } from '../support/seed.ts'

const requestsInAll = 10_000
const requestsPerConnection = 4
const connectionsAtOnce = 50
const port = 5000

/** Connections that the daemons keep to one another for 30 s: as many as there were questions at once. */
const descriptorsTolerance = 60
/** What V8, malloc and the buffers for bodies keep once they have had it: four times as many requests add 70 MiB. */
const residentToleranceMiB = 200

/** What may be said to a complete request, and what Node says to one that is none. */
const answersOfOurs = [200, 206, 401, 404, 405, 416]
const answersOfNode = [100, 400, 413, 414, 415, 417, 431]

describe('malformed requests', () => {
  const seed = printedSeed('bad-input')
  const group = new DaemonGroup()
  const blobs = [randomBytes(300_000), randomBytes(30_000)] as const
  const byDigest = new Map(blobs.map((blob) => [digestOf(blob) as string, blob]))
  let folder = ''
  let daemons: [DaemonProcess, DaemonProcess]

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bad-input-'))
    const first = await DaemonProcess.start(folder, group.address(1))
    daemons = [first, await DaemonProcess.start(folder, group.address(2), first.ip)]
    for (const [index, blob] of blobs.entries()) await writeBlob((daemons[index] ?? first).layout, blob)
    await eventually(everythingWorks)
  }, 60_000)
  afterAll(async () => {
    await Promise.all(daemons.map((daemon) => daemon.stop()))
    await rm(folder, { recursive: true, force: true })
  })

  /** Each daemon has one of the blobs, and gets the other one from its peer. */
  async function everythingWorks(): Promise<void> {
    for (const { url } of daemons) {
      for (const [digest, blob] of byDigest) {
        const response = await fetch(`${url}/v2/app/blobs/${digest}?ns=reg.test`)
        expect(response.status).toBe(200)
        expect(Buffer.from(await response.arrayBuffer()).equals(blob)).toBe(true)
      }
    }
  }

  async function nothingIsLeft(before: readonly number[]): Promise<void> {
    await eventually(async () => {
      for (const [index, daemon] of daemons.entries()) {
        expect(daemon.descriptors).toBeLessThanOrEqual((before[index] ?? 0) + descriptorsTolerance)
        const inflight = (await daemon.metrics()).match(/^http_requests_inflight\{.*\} .*$/gm) ?? []
        expect(inflight.filter((line) => !line.endsWith(' 0'))).toEqual([])
      }
    })
    for (const daemon of daemons) {
      expect(daemon.running).toBe(true)
      expect(daemon.complaints()).toEqual([])
    }
  }

  /** Why an answer is not one that may be given. */
  function faultOf({ status, headers, body }: Answer): string | undefined {
    if (![...answersOfOurs, ...answersOfNode].includes(status)) return `status ${status}`
    const content = byDigest.get(headers.get('docker-content-digest') ?? '')
    if (content === undefined) return undefined
    const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '')
    const first = Number(range?.[1] ?? 0)
    if ((status === 206) !== (range !== null)) return `a ${status} with the range "${range?.[0]}"`
    const announced = range === null ? content.length : Number(range[2]) - first + 1
    if (Number(headers.get('content-length')) !== announced) return `the length ${headers.get('content-length')}`
    return content.subarray(first, first + body.length).equals(body) ? undefined : 'a wrong body'
  }

  it(`are answered without a crash, a 5xx or a leak: ${requestsInAll}`, async () => {
    const descriptors = daemons.map((daemon) => daemon.descriptors)
    const resident = daemons.map((daemon) => daemon.residentMiB)
    const statuses = new Map<number, number>()
    const startedMs = awakeMs()
    const conversation = fc.tuple(fc.constantFrom(0, 1), conversations([...byDigest.keys()], requestsPerConnection))
    const batches = fc.array(conversation, { minLength: connectionsAtOnce, maxLength: connectionsAtOnce })
    const property = fc.asyncProperty(batches, async (batch) => {
      const answered = batch.map(async ([index, sent]) => {
        const received = await converse(daemons[index]?.ip ?? '', port, sent)
        try {
          for (const answer of takeApart(received)) {
            statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
            expect(faultOf(answer)).toBeUndefined()
          }
        } catch (error) {
          const bytes = Buffer.concat(sent.pieces)
          throw new Error(`daemon ${index}, ${sent.ending}, ${excerpt(bytes)} gave ${excerpt(received)}`, {
            cause: error,
          })
        }
      })
      await Promise.all(answered)
      for (const daemon of daemons) expect(daemon.running).toBe(true)
    })
    await holds(property, {
      seed,
      runs: requestsInAll / requestsPerConnection / connectionsAtOnce,
      timeLimitMs: 50_000,
    })
    await everythingWorks()
    await nothingIsLeft(descriptors)
    const residentAfter = daemons.map((daemon) => daemon.residentMiB)
    process.stderr.write(
      `bad-input: ${requestsInAll} requests, ${Math.round(awakeMs() - startedMs)} ms, descriptors ` +
        `${descriptors.join(' ')} -> ${daemons.map((daemon) => daemon.descriptors).join(' ')}, RSS in MiB ` +
        `${resident.join(' ')} -> ${residentAfter.join(' ')}, answers ${JSON.stringify(Object.fromEntries(statuses))}\n`,
    )
    for (const [index, after] of residentAfter.entries()) {
      expect(after).toBeLessThan((resident[index] ?? 0) + residentToleranceMiB)
    }
  }, 90_000)

  const head = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n`
  const blobHead = () => head(`/v2/app/blobs/${[...byDigest.keys()][0]}`)
  const own = () => daemons[0]

  it('that are sent ahead are answered in order, and leave nothing open when the client leaves', async () => {
    const before = daemons.map((daemon) => daemon.descriptors)
    const ahead = Buffer.from(`${blobHead()}\r\n`.repeat(pipelinedRequestsMax))
    const answers = takeApart(await converse(own().ip, port, { pieces: [ahead], ending: 'wait', patienceMs: 3_000 }))
    expect(answers.map(({ status, body }) => [status, body.length])).toEqual(
      Array.from({ length: pipelinedRequestsMax }, () => [200, 300_000]),
    )
    // They do not read, so that most of the answers are still to come when they leave.
    const clients = Array.from({ length: 50 }, () => connect(port, own().ip).on('error', () => undefined))
    for (const socket of clients) socket.write(ahead)
    await Promise.all(clients.map((socket) => once(socket, 'readable')))
    for (const socket of clients) socket.resetAndDestroy()
    await nothingIsLeft(before)
  })

  it('that are sent behind one that closes the connection are not begun', async () => {
    const before = daemons.map((daemon) => daemon.descriptors)
    const closing = Buffer.from(`${blobHead()}Connection: close\r\n\r\n${`${blobHead()}\r\n`.repeat(10)}`)
    const ask = async () =>
      takeApart(await converse(own().ip, port, { pieces: [closing], ending: 'wait', patienceMs: 10_000 }))
    for (const answers of await Promise.all(Array.from({ length: 20 }, ask))) expect(answers).toHaveLength(1)
    await nothingIsLeft(before)
  })

  it('that are sent ahead without end cost the connection', async () => {
    const flood = Buffer.from(`${blobHead()}\r\n`.repeat(10_000))
    const received = await converse(own().ip, port, { pieces: [flood], ending: 'wait', patienceMs: 10_000 })
    expect(takeApart(received).length).toBeLessThan(2 * pipelinedRequestsMax)
  })

  it('do not get into the body that is being sent', async () => {
    for (const garbage of ['\u0000\r\n\r\n', 'GET\r\n\r\n', `${head('/')}Content-Length: x\r\n\r\n`]) {
      const pieces = [Buffer.from(`${blobHead()}\r\n`), Buffer.from(garbage)]
      const answers = takeApart(await converse(own().ip, port, { pieces, ending: 'wait', patienceMs: 10_000 }))
      expect(answers[0]?.body.equals(blobs[0])).toBe(true)
      expect(answers.map(faultOf)).not.toContainEqual(expect.anything())
    }
  })

  it.each(['Content-Length: 10000000000', 'Transfer-Encoding: chunked'])(
    'with an endless body do not have it read: %s',
    async (header) => {
      const socket = connect(port, own().ip)
      let received = ''
      socket.on('error', () => undefined)
      socket.on('data', (data) => (received += data.toString('latin1')))
      socket.write(`${head('/v2/')}${header}\r\n\r\n`)
      const chunk = Buffer.from(`10000\r\n${'b'.repeat(0x10000)}\r\n`)
      const write = () => {
        while (!socket.destroyed && socket.write(chunk));
      }
      socket.on('drain', write)
      write()
      await closed(socket)
      // A client that goes on writing may be reset before it has read.
      expect(received).toMatch(/^(?:HTTP\/1\.1 200 OK\r\n|$)/)
      // What the kernels take on their own account.
      expect(socket.bytesWritten).toBeLessThan(64 * 1024 * 1024)
    },
  )

  it('that never get ready are ended in time, and keep nobody else out', async () => {
    const before = daemons.map((daemon) => daemon.descriptors)
    const starts = ['', 'G', 'GET /v2/ HTTP/1.1\r\n', blobHead(), `${blobHead()}X: `]
    const startedMs = awakeMs()
    const slow = Array.from({ length: 100 }, async (_, index) => {
      const socket = connect(port, own().ip)
      socket.on('error', () => undefined)
      socket.write(starts[index % starts.length] ?? '')
      const drip = setInterval(() => socket.write('a'), 500)
      socket.resume()
      await closed(socket)
      clearInterval(drip)
    })
    await everythingWorks()
    await Promise.all(slow)
    expect(awakeMs() - startedMs).toBeLessThan(requestHeadersTimeoutMs + 5_000)
    await nothingIsLeft(before)
  })

  it('on more connections than there may be are refused at once, until some of them are gone', async () => {
    const before = daemons.map((daemon) => daemon.descriptors)
    const sockets: Socket[] = []
    // In waves, since the kernel queues only so many that are not accepted yet.
    while (sockets.length < registryConnectionsMax + 50) {
      const wave = Array.from({ length: 200 }, () => connect(port, own().ip))
      await Promise.all(wave.map((socket) => once(socket, 'connect')))
      for (const socket of wave) socket.on('error', () => undefined).resume()
      sockets.push(...wave)
    }
    await eventually(() => expect(sockets.filter((socket) => socket.closed).length).toBeGreaterThanOrEqual(50))
    expect(own().descriptors).toBeLessThanOrEqual((before[0] ?? 0) + registryConnectionsMax + descriptorsTolerance)
    for (const socket of sockets) socket.destroy()
    await eventually(everythingWorks)
    await nothingIsLeft(before)
  })
})

/** Whether it was ended or reset. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()))
}
