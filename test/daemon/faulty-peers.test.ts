import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { type Metrics, createMetrics } from '../../src/metrics.ts'
import { streamsMax } from '../../src/limits.ts'
import { digestOf } from '../../src/oci/digest.ts'
import type { RegistryServer } from '../../src/registry/server.ts'
import { LayoutStore } from '../../src/store/layout/layout-store.ts'
import { awakeMs } from '../../src/testbed/awake-clock.ts'
import { startRegistry } from '../support/registry.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'
import { FixedRouter } from '../support/fixed-router.ts'
import { type PeerScript, ScriptedPeer, answer, honest } from '../support/scripted-peer.ts'

const content = randomBytes(700_000)
const digest = digestOf(content)
const port = 5000
const path = `/v2/app/blobs/${digest}?ns=reg.test`

/** What containerd would see on the wire. */
async function pull(
  ip: string,
  headers = '',
): Promise<{ head: string; body: Buffer; ended: 'fin' | 'reset' | 'complete' }> {
  const socket = connect(port, ip)
  socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n${headers}\r\n`)
  let received = Buffer.alloc(0)
  const ended = await new Promise<'fin' | 'reset' | 'complete'>((resolve) => {
    socket.on('data', (data) => {
      received = Buffer.concat([received, data])
      const end = received.indexOf('\r\n\r\n')
      const length = /content-length: (\d+)/i.exec(received.subarray(0, end).toString())
      if (end >= 0 && length !== null && received.length - end - 4 === Number(length[1])) resolve('complete')
    })
    socket.on('end', () => resolve('fin'))
    socket.on('error', () => resolve('reset'))
  })
  socket.destroy()
  const end = received.indexOf('\r\n\r\n')
  return { head: received.subarray(0, end).toString(), body: received.subarray(end + 4), ended }
}

describe('peers that fail', () => {
  const group = new DaemonGroup()
  const own = group.address(1)
  let folder = ''
  let router: FixedRouter
  let metrics: Metrics
  let store: LayoutStore
  let server: RegistryServer
  let peers: ScriptedPeer[]

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'faulty-'))
    router = new FixedRouter()
    metrics = createMetrics()
    peers = []
    store = await LayoutStore.open(folder, systemClock)
    server = await startRegistry({ host: own, port }, { store, router, metrics })
  })
  afterEach(async () => {
    await server.close(0)
    await store.close()
    await Promise.all(peers.map((peer) => peer.close()))
    await rm(folder, { recursive: true, force: true })
  })

  async function has(key: string, ...scripts: PeerScript[]): Promise<void> {
    for (const script of scripts) {
      const ip = group.address(2 + peers.length)
      peers.push(await ScriptedPeer.start(ip, port, script))
      router.providers.set(key, [...(router.providers.get(key) ?? []), { id: ip, addresses: [ip] }])
    }
  }

  const good: PeerScript = (socket, request) => socket.write(honest(request, content, digest))
  const breaksAfter =
    (bytes: number): PeerScript =>
    (socket, request) => {
      socket.end(honest(request, content, digest, bytes))
    }

  const beforeHeaders: [string, PeerScript][] = [
    ['answers 500', (socket) => socket.write(answer(500, {}))],
    ['answers 429', (socket) => socket.write(answer(429, {}))],
    ['answers 404', (socket) => socket.write(answer(404, {}))],
    ['answers nonsense', (socket) => socket.write('SSH-2.0-OpenSSH_9.2\r\n\r\n')],
    [
      'sends another digest',
      (socket) => socket.write(answer(200, { 'docker-content-digest': digestOf(Buffer.from('x')) }, content)),
    ],
    ['sends no length', (socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nabc')],
    [
      'sends a range that nobody asked for',
      (socket) => socket.write(answer(206, { 'content-range': 'bytes 0-2/10' }, Buffer.from('abc'))),
    ],
    ['sends endless headers', (socket) => endless(socket)],
    ['closes', (socket) => socket.end()],
    ['resets', (socket) => socket.resetAndDestroy()],
  ]

  it.each(beforeHeaders)('goes on at the next peer when one %s', async (_name, script) => {
    await has(digest, script, script, good)
    const { head, body, ended } = await pull(own)
    expect(head).toMatch(/^HTTP\/1\.1 200/)
    expect(body.equals(content)).toBe(true)
    expect(ended).toBe('complete')
  })

  it('understands an answer that only a library parses', async () => {
    await has(digest, (socket, request) => {
      socket.write('HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n')
      good(socket, request)
    })
    const { body } = await pull(own)
    expect(body.equals(content)).toBe(true)
  })

  it('uses a connection again, also after HEAD, and when the peer closed it meanwhile', async () => {
    const sockets = new Set<unknown>()
    await has(digest, (socket, request) => {
      sockets.add(socket)
      good(socket, request)
      if (sockets.size === 1 && peers[0]?.requests.length === 3) socket.end()
    })
    const url = `http://${own}:${port}${path}`
    expect((await fetch(url, { method: 'HEAD' })).status).toBe(200)
    for (let i = 0; i < 4; i++) expect((await pull(own)).body.equals(content)).toBe(true)
    expect(sockets.size).toBe(2)
  })

  it('takes the address of a peer that answers', async () => {
    await has(digest, good)
    const [peer] = router.providers.get(digest) ?? []
    // Nothing listens at the first; the second is tried beside it.
    router.providers.set(digest, [{ id: 'two', addresses: [group.address(98), ...(peer?.addresses ?? [])] }])
    const { body } = await pull(own)
    expect(body.equals(content)).toBe(true)
  })

  it('asks a further peer when the first takes longer than peers do', async () => {
    await has(digest, () => undefined, good)
    const startedMs = awakeMs()
    const { body } = await pull(own)
    expect(body.equals(content)).toBe(true)
    // Below the 2 s after which a peer that does not answer is given up.
    expect(awakeMs() - startedMs).toBeLessThan(1_500)
  })

  it('prefers an idle holder to a busy one, and the least busy when all are', async () => {
    const busy =
      (load: number): PeerScript =>
      (socket, request) => {
        const limit = request.headers['x-spegel-ts-load-max']
        if (limit === undefined) good(socket, request)
        else socket.write(answer(503, { 'x-spegel-ts-load': load }))
      }
    await has(digest, busy(3), busy(1), busy(2))
    expect((await pull(own)).body.equals(content)).toBe(true)
    expect(peers.map(({ requests }) => requests.length)).toEqual([1, 2, 1])
    await has(digest, good)
    expect((await pull(own)).body.equals(content)).toBe(true)
    expect(peers[3]?.requests).toHaveLength(1)
    expect(await failureReasons(metrics)).toEqual({})
  })

  it('asks who failed lately after all others', async () => {
    const content2 = Buffer.from('another blob')
    const digest2 = digestOf(content2)
    const serves: PeerScript = (socket, request) =>
      void socket.write(request.path.includes(digest2) ? honest(request, content2, digest2) : answer(500, {}))
    await has(digest, serves, (socket, request) =>
      request.path.includes(digest2) ? serves(socket, request) : good(socket, request),
    )
    router.providers.set(digest2, router.providers.get(digest) ?? [])
    await pull(own)
    const second = await fetch(`http://${own}:${port}/v2/app/blobs/${digest2}?ns=reg.test`)
    expect(await second.text()).toBe('another blob')
    // The first one is found first, but has failed.
    expect(peers.map(({ requests }) => requests.filter((request) => request.path.includes(digest2)).length)).toEqual([
      0, 1,
    ])
  })

  it('leaves a peer that stalls, and one that drips', async () => {
    const drips: PeerScript = (socket, request) => {
      socket.write(honest(request, content, digest, 100))
      const timer = setInterval(() => socket.write(content.subarray(100, 101)), 20)
      socket.on('close', () => clearInterval(timer))
    }
    await has(digest, (socket, request) => void socket.write(honest(request, content, digest, 1_000)), good)
    expect((await pull(own)).body.equals(content)).toBe(true)
    router.providers.delete(digest)
    await has(digest, drips, good)
    const { body } = await pull(own)
    // What dripped was wrong on purpose: only who sent the rest matters here.
    expect(body.length).toBe(content.length)
    expect(await failureReasons(metrics)).toEqual({ stall: 2 })
  })

  it('waits longer for a blob that is still arriving at its peer', async () => {
    const arrives: PeerScript = (socket) => {
      const headers = { 'content-length': content.length, 'docker-content-digest': digest }
      socket.write(answer(200, { ...headers, 'x-spegel-ts-arriving': 'true' }, content.subarray(0, 1_000)))
      // Twice the stall timeout.
      const timer = setTimeout(() => socket.write(content.subarray(1_000)), 2_000)
      socket.on('close', () => clearTimeout(timer))
    }
    await has(digest, arrives)
    expect((await pull(own)).body.equals(content)).toBe(true)
    expect(await failureReasons(metrics)).toEqual({})
  })

  it('is not impatient with a peer when its own client is slow', async () => {
    const large = randomBytes(24 * 1024 * 1024)
    const name = digestOf(large)
    await has(name, (socket, request) => void socket.write(honest(request, large, name)))
    const socket = connect({ host: own, port })
    socket.write(`GET /v2/app/blobs/${name}?ns=reg.test HTTP/1.1\r\nhost: x\r\n\r\n`)
    await once(socket, 'readable')
    // Three times the stall timeout without reading.
    await new Promise((resolve) => setTimeout(resolve, 3_000))
    let receivedBytes = 0
    for await (const chunk of socket) {
      receivedBytes += (chunk as Buffer).length
      if (receivedBytes > large.length) break
    }
    expect(await failureReasons(metrics)).toEqual({})
    expect(peers[0]?.requests).toHaveLength(1)
  })

  const spoiled = Buffer.from(content)
  spoiled[1_000] = (spoiled[1_000] ?? 0) ^ 1
  const wrongBytes: [string, PeerScript][] = [
    ['a holder', (socket, request) => void socket.write(honest(request, spoiled, digest))],
    [
      'a peer that states that the blob is still arriving there',
      (socket) => {
        const headers = { 'content-length': spoiled.length, 'docker-content-digest': digest }
        socket.write(answer(200, { ...headers, 'x-spegel-ts-arriving': 'true' }, spoiled))
      },
    ],
    [
      'a peer that breaks off before the last byte',
      (socket, request) => void socket.end(honest(request, spoiled, digest, spoiled.length - 1)),
    ],
  ]
  const asContainerd = 'user-agent: containerd/2.3.4\r\n'

  it.each(wrongBytes)('fails one pull at most by wrong bytes of %s, whoever has the blob', async (_name, script) => {
    await has(digest, script)
    expect((await pull(own, asContainerd)).head).toMatch(/^HTTP\/1\.1 200/)
    await has(digest, script, script, good)
    const requests = () => peers.reduce((sum, peer) => sum + peer.requests.length, 0)
    const before = requests()
    for (let attempt = 0; attempt < 10; attempt++) {
      expect((await pull(own, asContainerd)).head).toMatch(/^HTTP\/1\.1 404/)
    }
    expect(requests()).toBe(before)
    expect(await missReasons(metrics)).toMatchObject({ 'wrong-bytes': 10 })
  })

  it('goes on at the next peer when one cannot be reached', async () => {
    await has(digest, good)
    router.providers.get(digest)?.unshift({ id: 'gone', addresses: [group.address(99)] })
    const { body } = await pull(own)
    expect(body.equals(content)).toBe(true)
  })

  it('answers 404 when all peers fail, before any header', async () => {
    await has(digest, beforeHeaders[0]?.[1] ?? good)
    const { head } = await pull(own)
    expect(head).toMatch(/^HTTP\/1\.1 404/)
    expect(await missReasons(metrics)).toEqual({ 'providers-failed': 1 })
  })

  it('answers 404 within its budget when a peer never answers', async () => {
    await has(digest, () => undefined)
    const startedMs = awakeMs()
    const { head } = await pull(own)
    expect(head).toMatch(/^HTTP\/1\.1 404/)
    expect(awakeMs() - startedMs).toBeLessThan(8_000)
    expect(await missReasons(metrics)).toEqual({ timeout: 1 })
    // A second time it is known as one that failed, and gets less patience.
    const againMs = awakeMs()
    expect((await pull(own)).head).toMatch(/^HTTP\/1\.1 404/)
    expect(awakeMs() - againMs).toBeLessThan(3_500)
  })

  it('continues a broken body at another peer, at the exact byte, in the same response', async () => {
    await has(digest, breaksAfter(100_000), breaksAfter(50_000), breaksAfter(1), good)
    const { body, ended, head } = await pull(own)
    expect(head).toMatch(/^HTTP\/1\.1 200/)
    expect(createHash('sha256').update(body).digest('hex')).toBe(digest.slice(7))
    expect(ended).toBe('complete')
    const ranges = peers.flatMap(({ requests }) => requests.map(({ headers }) => headers['range']))
    for (const range of ranges.filter((value) => value !== undefined)) expect(range).toMatch(/^bytes=\d+-699999$/)
  })

  it('continues within the range that was asked for', async () => {
    await has(digest, breaksAfter(1_000), breaksAfter(2_000), good)
    const { body, head } = await pull(own, 'range: bytes=5000-400000\r\n')
    expect(head).toMatch(/content-range: bytes 5000-400000\/700000/i)
    expect(body.equals(content.subarray(5_000, 400_001))).toBe(true)
  })

  it('asks a peer again that broke off but had given bytes, when nobody else is left', async () => {
    await has(digest, breaksAfter(200_000))
    const { body, ended } = await pull(own)
    expect(body.equals(content)).toBe(true)
    expect(ended).toBe('complete')
    expect(peers[0]?.requests.map(({ headers }) => headers['range'])).toEqual([
      undefined,
      'bytes=200000-699999',
      'bytes=400000-699999',
      'bytes=600000-699999',
    ])
  })

  it('ends by FIN, never by a reset, when no peer is left, with the true length announced', async () => {
    let asked = 0
    await has(digest, (socket, request) => {
      asked += 1
      socket.end(asked === 1 ? honest(request, content, digest, 300_000) : answer(404, {}))
    })
    const { body, ended, head } = await pull(own)
    expect(head).toMatch(/content-length: 700000/i)
    expect(ended).toBe('fin')
    expect(body.equals(content.subarray(0, 300_000))).toBe(true)
  })

  it('answers 404 to containerd that comes back for what no peer could finish, and so goes on to upstream', async () => {
    await has(digest, (socket, request) => void socket.write(honest(request, content, digest, 1_000)))
    expect((await pull(own)).ended).toBe('fin')
    const { head } = await pull(own, 'range: bytes=1000-\r\n')
    expect(head).toMatch(/^HTTP\/1\.1 404/)
    expect(peers[0]?.requests).toHaveLength(1)
    expect(await missReasons(metrics)).toEqual({ 'given-up': 1 })
    // A new pull may find the peer in better health.
    expect((await pull(own)).head).toMatch(/^HTTP\/1\.1 200/)
  })

  it('leaves a peer that breaks off after a few bytes each time', async () => {
    await has(digest, breaksAfter(1_000))
    const { body, ended } = await pull(own)
    expect(ended).toBe('fin')
    expect(body.equals(content.subarray(0, 2_000))).toBe(true)
  })

  it('does not hold it against anybody that its client resets the connection', async () => {
    await has(digest, good)
    for (let count = 0; count < 20; count++) {
      const socket = connect(port, own)
      socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`)
      await once(socket, 'data')
      socket.resetAndDestroy()
    }
    const { body } = await pull(own)
    expect(body.equals(content)).toBe(true)
    expect(await failureReasons(metrics)).toEqual({})
  })

  it('does not believe a peer that resumes elsewhere, or says that the blob has another size', async () => {
    const shifted: PeerScript = (socket) =>
      socket.write(answer(206, { 'content-range': 'bytes 0-599999/700000' }, content.subarray(0, 600_000)))
    const resized: PeerScript = (socket, request) => {
      const first = Number(/bytes=(\d+)/.exec(request.headers['range'] ?? '')?.[1] ?? 0)
      const body = content.subarray(first)
      socket.write(answer(206, { 'content-range': `bytes ${first}-699999/800000` }, body))
    }
    await has(digest, breaksAfter(100_000), shifted, resized, good)
    const { body } = await pull(own)
    expect(body.equals(content)).toBe(true)
  })

  it('goes on at the next peer when one refuses the rest as out of range', async () => {
    const refuses: PeerScript = (socket) => void socket.write(answer(416, { 'content-range': 'bytes */50' }))
    await has(digest, breaksAfter(100_000), refuses, good)
    const { body, ended } = await pull(own)
    expect(body.equals(content)).toBe(true)
    expect(ended).toBe('complete')
  })

  it('takes the next manifest when one does not have its digest', async () => {
    const manifest = Buffer.from(
      JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [] }),
    )
    const name = digestOf(manifest)
    const wrong: PeerScript = (socket) =>
      socket.write(answer(200, { 'docker-content-digest': name }, Buffer.from('{"schemaVersion":2}')))
    const right: PeerScript = (socket, request) => socket.write(honest(request, manifest, name))
    await has(name, wrong, wrong, right)
    const response = await fetch(`http://${own}:${port}/v2/app/manifests/${name}?ns=reg.test`)
    expect(response.status).toBe(200)
    expect(digestOf(Buffer.from(await response.arrayBuffer()))).toBe(name)
    expect(await failureReasons(metrics)).toMatchObject({ digest: expect.any(Number) as number })
  })

  describe('asked for the head of a manifest', () => {
    const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [] }
    const manifest = Buffer.from(JSON.stringify(index))
    const garbage = Buffer.from('{"schemaVersion":2}')
    const head = () => fetch(`http://${own}:${port}/v2/app/manifests/v1?ns=reg.test`, { method: 'HEAD' })

    it('believes nothing but the manifest itself', async () => {
      const lying = { 'content-type': 'text/plain', 'content-length': manifest.length }
      await has(
        'reg.test/app:v1',
        (socket) => socket.write(answer(200, {}, garbage)),
        (socket) => socket.write(answer(200, { 'docker-content-digest': digestOf(manifest) }, garbage)),
        (socket, { method }) => socket.write(answer(200, lying, method === 'HEAD' ? Buffer.alloc(0) : manifest)),
      )
      const { status, headers } = await head()
      expect(status).toBe(200)
      expect(Object.fromEntries(headers)).toMatchObject({
        'content-type': index.mediaType,
        'content-length': String(manifest.length),
        'docker-content-digest': digestOf(manifest),
      })
      expect(await failureReasons(metrics)).toEqual({ digest: 2 })
    })
  })

  it('refuses a manifest that is far too large', async () => {
    const name = digestOf(Buffer.from('large'))
    await has(name, (socket) => socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 900000000\r\n\r\n`))
    const response = await fetch(`http://${own}:${port}/v2/app/manifests/${name}?ns=reg.test`)
    expect(response.status).toBe(404)
  })

  it('answers 503 above its limit of requests, and takes more when others have ended', async () => {
    await has(digest, () => undefined)
    const waiting = Array.from({ length: streamsMax }, () => connect(port, own))
    for (const socket of waiting) socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`)
    await eventually(async () => expect((await pull(own)).head).toMatch(/^HTTP\/1\.1 503/))
    for (const socket of waiting) socket.destroy()
    router.providers.delete(digest)
    await eventually(async () => expect((await pull(own)).head).toMatch(/^HTTP\/1\.1 404/))
  })

  it('leaves the peer when the client leaves', async () => {
    const closed = Promise.withResolvers<void>()
    await has(digest, (socket, request) => {
      socket.on('close', () => closed.resolve())
      socket.write(honest(request, content, digest, 400_000))
    })
    const socket = connect(port, own)
    socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`)
    await once(socket, 'data')
    socket.destroy()
    await closed.promise
  })

  it('ends running bodies by FIN when the daemon has to stop', async () => {
    await has(digest, (socket, request) => void socket.write(honest(request, content, digest, 400_000)))
    const pulled = pull(own)
    await new Promise((resolve) => setTimeout(resolve, 200))
    await server.close(50)
    expect((await pulled).ended).toBe('fin')
  })
})

function endless(socket: { write: (text: string) => boolean; destroyed: boolean }): void {
  let sent = 0
  socket.write('HTTP/1.1 200 OK\r\n')
  while (sent++ < 2_000) socket.write(`x-${sent}: ${'y'.repeat(100)}\r\n`)
}

async function missReasons(metrics: Metrics): Promise<Record<string, number>> {
  const { values } = await metrics.mirrorMisses.get()
  return counted(values)
}

async function failureReasons(metrics: Metrics): Promise<Record<string, number>> {
  const { values } = await metrics.peerFailures.get()
  return counted(values)
}

function counted(values: readonly { labels: { reason?: string | number }; value: number }[]): Record<string, number> {
  return Object.fromEntries(
    values.filter(({ value }) => value > 0).map(({ labels, value }) => [labels.reason, value]),
  )
}
