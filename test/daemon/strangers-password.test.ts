/** The shared password and its proofs, with real daemons and with peers that are not ours. */
import { randomBytes } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Agent, type IncomingMessage, request as httpRequest } from 'node:http'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parseStaticPeer } from '../../src/bootstrap/static.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { basicAuth } from '../../src/registry/auth.ts'
import { DaemonGroup, type TestDaemon, eventually } from '../support/daemons.ts'
import { type PeerRequest, type PeerScript, answer, honest } from '../support/scripted-peer.ts'
import { Stranger } from '../support/stranger.ts'

const password = 'S3cretPassw0rd'
const auth = basicAuth('mirror', password)
const ownAgent = 'spegel-ts/0.1.0'
const spegelAgent = 'github.com/spegel-org/spegel@v0.4.0'
const nonceHeader = 'x-spegel-ts-nonce'

let group: DaemonGroup
const strangers: Stranger[] = []

beforeEach(() => void (group = new DaemonGroup()))
afterEach(async () => {
  await Promise.all(strangers.splice(0).map((stranger) => stranger.close()))
  await group.close()
})

async function startStranger(number: number, agentVersion: string, script: PeerScript): Promise<Stranger> {
  const stranger = await Stranger.start(group.address(number), agentVersion, script)
  strangers.push(stranger)
  return stranger
}

/** A bootstrap source that names these addresses and no others. */
const naming = (...numbers: number[]) => ({
  bootstrap: {
    kind: 'static' as const,
    peers: numbers.map((number) => parseStaticPeer(`${group.address(number)}:5001`, '')),
  },
})

/** As containerd requests it, with the password of hosts.toml. */
const pull = (daemon: TestDaemon, path: string, { header } = auth) =>
  fetch(`${daemon.url}/v2/app/${path}?ns=reg.test`, { headers: { authorization: header } })

const leftOut = ({ lines }: TestDaemon) =>
  lines.filter(({ level, msg }) => level === 'WARN' && String(msg).includes('basic auth'))

function expectNoSecret(requests: readonly PeerRequest[]): void {
  const seen = JSON.stringify(requests)
  expect(seen).not.toContain(password)
  expect(seen).not.toContain(auth.header.slice('Basic '.length))
  expect(seen.toLowerCase()).not.toContain('basic ')
}

/** A node of Go Spegel that holds this content: it knows basic auth and nothing else. */
const goSpegel =
  (content: Buffer): PeerScript =>
  (socket, request) => {
    const accepted = request.headers['authorization'] === auth.header
    if (accepted) socket.write(honest(request, content, digestOf(content)))
    else socket.write(answer(401, { 'content-type': 'text/plain' }, Buffer.from('invalid basic authentication')))
  }

describe('a stranger that announces content', () => {
  it.each([
    ['of our kind', ownAgent, 401],
    ['of our kind at a bootstrap address', ownAgent, 401],
    ['of another kind', spegelAgent, 401],
    ['that requests no password', spegelAgent, 404],
  ])('%s never receives the password', async (name, agentVersion, status) => {
    const stranger = await startStranger(9, agentVersion, (socket) => void socket.write(answer(status, {})))
    const victim = await group.start({ auth, ...naming(1, ...(name.includes('bootstrap') ? [9] : [])) })
    const [blob, image] = [digestOf(randomBytes(100)), 'reg.test/app:v1']
    for (const key of [blob, image]) await stranger.announce(victim.ip, key)
    // Identified by then.
    await eventually(async () => expect(await metricsOf(victim)).toMatch(/^spegel_dht_peers 1$/m))
    for (const path of [`blobs/${blob}`, 'manifests/v1']) expect((await pull(victim, path)).status).toBe(404)
    expect(stranger.requests.length).toBeGreaterThan(0)
    // A peer that refuses forever is not requested forever.
    expect(stranger.requests.length).toBeLessThan(10)
    expectNoSecret(stranger.requests)
  })

  it('receives a proof that no other node accepts', async () => {
    const holder = await group.start({ auth })
    const { layers } = await group.image(holder)
    const digest = layers[0]?.digest ?? ''
    const connection = new Agent({ keepAlive: true, maxSockets: 1 })
    /** With the victim's own header fields, and with another Host. */
    const replay = (request: PeerRequest, headers: Record<string, string> = {}) =>
      new Promise<IncomingMessage>((resolve, reject) => {
        const options = { ...hostOf(holder), agent: connection, method: request.method, path: request.path }
        const sent = httpRequest({ ...options, headers: { ...request.headers, ...headers } }, (response) => {
          response.resume().once('end', () => resolve(response))
        })
        sent.once('error', reject).end()
      })
    const statuses: (number | undefined)[] = []
    let relayed = Promise.resolve()
    const stranger = await startStranger(9, ownAgent, (socket, request) => {
      relayed = relayed.then(async () => {
        const response = await replay(request)
        statuses.push(response.statusCode)
        if (request.headers['authorization'] === undefined) {
          socket.write(answer(401, { [nonceHeader]: String(response.headers[nonceHeader]) }))
          return
        }
        statuses.push((await replay(request, { host: `${holder.ip}:5000` })).statusCode)
        socket.write(answer(404, {}))
      })
    })
    // The victim finds the stranger only: the holder is not in its swarm.
    const victim = await group.start({ auth, ...naming(2) })
    await stranger.announce(victim.ip, digest)
    expect((await pull(victim, `blobs/${digest}`)).status).toBe(404)
    await relayed
    connection.destroy()
    expect(stranger.requests.some(({ headers }) => headers['authorization']?.startsWith('Spegel-TS '))).toBe(true)
    expect(statuses.length).toBeGreaterThan(2)
    expect(statuses).toEqual(statuses.map(() => 401))
    expectNoSecret(stranger.requests)
  })
})

describe('nodes with a shared password', () => {
  /** Requests of peers that one daemon received. */
  let received: { socket: Socket; authorization: string | undefined }[]
  let receiver = ''
  const note = (message: unknown) => {
    const { request } = message as { request: IncomingMessage }
    const { socket, headers } = request
    if (socket.localAddress === receiver && headers['x-spegel-mirrored'] === 'true') {
      received.push({ socket, authorization: headers.authorization })
    }
  }
  beforeEach(() => {
    received = []
    subscribe('http.server.request.start', note)
  })
  afterEach(() => void unsubscribe('http.server.request.start', note))

  it('serve each other by proofs, with one refusal for each connection', async () => {
    const first = await group.start({ auth })
    const second = await group.start({ auth })
    receiver = first.ip
    const { manifest, layers } = await group.image(first)
    await eventually(async () => expect((await pull(second, 'manifests/v1')).status).toBe(200))
    for (let round = 0; round < 3; round++) {
      const paths = [`manifests/${manifest.digest}`, ...layers.map(({ digest }) => `blobs/${digest}`)]
      for (const path of paths) {
        const response = await pull(second, path)
        expect(response.status).toBe(200)
        expect(digestOf(Buffer.from(await response.arrayBuffer()))).toBe(path.split('/')[1])
      }
    }
    const proofs = received.filter(({ authorization }) => authorization?.startsWith('Spegel-TS '))
    expect(proofs.length).toBeGreaterThanOrEqual(9)
    expect(new Set(proofs.map(({ authorization }) => authorization)).size).toBe(proofs.length)
    const connections = new Set(received.map(({ socket }) => socket))
    expect(received.length - proofs.length).toBe(connections.size)
    expect(received.some(({ authorization }) => authorization?.startsWith('Basic '))).toBe(false)
  })

  it('get nothing from a node with another password, and the pull goes on', async () => {
    const other = basicAuth('mirror', 'another')
    const first = await group.start({ auth })
    const second = await group.start({ auth: other })
    receiver = first.ip
    const { layers } = await group.image(first)
    const path = `blobs/${layers[0]?.digest}`
    await eventually(async () => {
      expect((await pull(second, path, other)).status).toBe(404)
      expect(received.length).toBeGreaterThan(1)
    })
    const perConnection = Map.groupBy(received, ({ socket }) => socket)
    for (const requests of perConnection.values()) expect(requests.length).toBeLessThanOrEqual(2)
    expect(received.some(({ authorization }) => authorization?.startsWith('Basic '))).toBe(false)
  })
})

describe('a node of Go Spegel', () => {
  it('receives the password at an address that the bootstrap source names', async () => {
    const content = randomBytes(300_000)
    const digest = digestOf(content)
    const spegel = await startStranger(9, spegelAgent, goSpegel(content))
    const daemon = await group.start({ auth, ...naming(1, 9) })
    await spegel.announce(daemon.ip, digest)
    const response = await pull(daemon, `blobs/${digest}`)
    expect(response.status).toBe(200)
    expect(Buffer.from(await response.arrayBuffer()).equals(content)).toBe(true)
    expect(leftOut(daemon)).toEqual([])
  })

  it('is left out at other addresses, with one log line', async () => {
    const daemon = await group.start({ auth })
    const held: string[] = []
    for (const number of [8, 9]) {
      const contents = [randomBytes(1_000), randomBytes(1_000)]
      const spegel = await startStranger(number, spegelAgent, goSpegel(contents[0] ?? Buffer.alloc(0)))
      for (const content of contents) {
        held.push(digestOf(content))
        await spegel.announce(daemon.ip, digestOf(content))
      }
    }
    for (const digest of held) expect((await pull(daemon, `blobs/${digest}`)).status).toBe(404)
    for (const { requests } of strangers) {
      // After its refusal it is no holder for a while.
      expect(new Set(requests.map(({ path }) => path)).size).toBe(1)
      expectNoSecret(requests)
    }
    expect(leftOut(daemon)).toEqual([
      expect.objectContaining({
        peer: group.address(8),
        bootstrap: 'static',
        remedy: expect.stringContaining('bootstrap source') as string,
      }),
    ])
  })
})

async function metricsOf({ metricsUrl }: TestDaemon): Promise<string> {
  return (await fetch(`${metricsUrl}/metrics`)).text()
}

function hostOf({ ip }: TestDaemon): { host: string; port: number } {
  return { host: ip, port: 5000 }
}
