/** A download that runs, asked for over HTTP: by the same code that serves whole blobs. */
import { type IncomingMessage, get } from 'node:http'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { type Metrics, createMetrics } from '../../src/metrics.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { loadHeader, loadMaxHeader } from '../../src/peers/protocol.ts'
import type { RegistryServer } from '../../src/registry/server.ts'
import { IngestFolder } from '../../src/store/ingest-folder.ts'
import { ContentNotFound, type ContentStore } from '../../src/store/store.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'
import { ContentFolderDouble } from '../support/ingest-double.ts'
import { startRegistry } from '../support/registry.ts'

const MiB = 1024 * 1024
const port = 5000
const host = new DaemonGroup().address(1)
const blob = Buffer.alloc(2 * MiB + 5, 'a blob on its way, ')
const digest = digestOf(blob)

let content: ContentFolderDouble
let transfers: IngestFolder
let server: RegistryServer
let metrics: Metrics

beforeEach(async () => {
  content = new ContentFolderDouble()
  transfers = new IngestFolder(content.path, 'k8s.io', systemClock)
  transfers.start()
  const nothing = () => Promise.reject(new ContentNotFound('nothing'))
  const store: ContentStore = {
    resolve: nothing,
    open: nothing,
    facts: () => Promise.reject(new ContentNotFound('none')),
    isStored: () => false,
    wasStoredSince: () => false,
    async *watch() {},
    problem: () => undefined,
    close: () => Promise.resolve(),
  }
  const flight = {
    transfers,
    self: { id: 'self', addresses: [host] },
    upstreamOrigin: () => Promise.resolve(undefined),
    upstreamRefuses: () => Promise.resolve(false),
  }
  metrics = createMetrics()
  server = await startRegistry({ host, port }, { store, router: undefined, flight, metrics })
})
afterEach(async () => {
  await server.close(0)
  transfers.stop()
  content.remove()
})

/** Resolves with the head; the body is gathered as it comes. */
function ask(
  range?: string,
  marks: Record<string, string> = { 'X-Spegel-Mirrored': 'true' },
): Promise<{ response: IncomingMessage; body: () => Buffer; ended: Promise<boolean> }> {
  const parts: Buffer[] = []
  return new Promise((resolve, reject) => {
    const headers = { ...marks, ...(range === undefined ? {} : { range }) }
    const path = `/v2/app/blobs/${digest}?ns=reg.test`
    const request = get({ host, port, path, headers, agent: false }, (response) => {
      response.on('data', (part: Buffer) => parts.push(part))
      response.on('error', () => undefined)
      // True when everything that was announced came.
      const ended = new Promise<boolean>((done) => response.once('close', () => done(response.complete)))
      resolve({ response, body: () => Buffer.concat(parts), ended })
    })
    request.once('error', reject)
  })
}

const followers = async () => (await metrics.flightFollowers.get()).values[0]?.value

it('is answered with its whole length at once, and with each step when it is there', async () => {
  const ingest = content.begin(digest, blob.length)
  ingest.append(blob.subarray(0, MiB + 2))
  await eventually(() => expect(transfers.find(digest)?.haveBytes).toBe(MiB + 2))
  const whole = await ask()
  const part = await ask(`bytes=${MiB + 1}-${2 * MiB}`)
  expect(whole.response.statusCode).toBe(200)
  expect(whole.response.headers['content-length']).toBe(`${blob.length}`)
  expect(part.response.statusCode).toBe(206)
  expect(part.response.headers['content-length']).toBe(`${MiB}`)
  expect(part.response.headers['content-range']).toBe(`bytes ${MiB + 1}-${2 * MiB}/${blob.length}`)
  await eventually(() => expect(whole.body().length).toBe(MiB + 2))
  await eventually(() => expect(part.body().length).toBe(1))
  expect(await followers()).toBe(2)
  ingest.append(blob.subarray(MiB + 2))
  ingest.commit()
  expect(await whole.ended).toBe(true)
  expect(await part.ended).toBe(true)
  expect(whole.body().equals(blob)).toBe(true)
  expect(part.body().equals(blob.subarray(MiB + 1, 2 * MiB + 1))).toBe(true)
  await eventually(async () => expect(await followers()).toBe(0))
})

it('that fails ends the body by FIN, and is a 404 from then on', async () => {
  const ingest = content.begin(digest, blob.length)
  ingest.append(blob.subarray(0, MiB))
  await eventually(() => expect(transfers.find(digest)?.haveBytes).toBe(MiB))
  const whole = await ask()
  await eventually(() => expect(whole.body().length).toBe(MiB))
  const failures: unknown[] = []
  whole.response.on('error', (error) => failures.push(error))
  ingest.giveUp()
  expect(await whole.ended).toBe(false)
  expect(whole.body().equals(blob.subarray(0, MiB))).toBe(true)
  // Node says of a reset "read ECONNRESET", of a FIN that came too early "aborted".
  expect(failures.map(String)).toEqual(['Error: aborted'])
  const after = await ask()
  expect(after.response.statusCode).toBe(404)
})

it('is refused to who looks for an idle holder, once it feeds somebody', async () => {
  const ingest = content.begin(digest, blob.length)
  ingest.append(blob.subarray(0, MiB))
  await eventually(() => expect(transfers.find(digest)?.haveBytes).toBe(MiB))
  const idleOnly = { 'X-Spegel-Mirrored': 'true', [loadMaxHeader]: '0' }
  const first = await ask(undefined, idleOnly)
  expect(first.response.statusCode).toBe(200)
  const second = await ask(undefined, idleOnly)
  expect(second.response.statusCode).toBe(503)
  expect(second.response.headers[loadHeader]).toBe('1')
  expect((await ask()).response.statusCode).toBe(200)
  ingest.giveUp()
  await first.ended
})

it('is for peers that have less of it than we, and for nobody else', async () => {
  const ingest = content.begin(digest, blob.length)
  await eventually(() => expect(transfers.find(digest)).toBeDefined())
  const nothingYet = await ask()
  ingest.append(blob.subarray(0, MiB))
  await eventually(() => expect(transfers.find(digest)?.haveBytes).toBe(MiB))
  const tooFar = await ask(`bytes=${MiB}-`)
  // It would be given its own download.
  const ownContainerd = await ask(undefined, { 'user-agent': 'containerd/2.3.4' })
  for (const { response } of [nothingYet, tooFar, ownContainerd]) expect(response.statusCode).toBe(404)
  const justBelow = await ask(`bytes=${MiB - 1}-`)
  expect(justBelow.response.statusCode).toBe(206)
})
