import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { peerConnectTimeoutMs, peerDoubtMs } from '../../../src/limits.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import { PeerClient } from '../../../src/peers/client.ts'
import { eventually } from '../../support/daemons.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { type PeerScript, ScriptedPeer, answer, honest } from '../../support/scripted-peer.ts'

const ip = '127.0.91.1'
const otherIp = '127.0.91.2'
const port = 15_791

describe('a connection that lay idle', () => {
  const cleanUps: (() => Promise<void>)[] = []
  afterEach(async () => {
    for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
  })

  /** A client that has an idle connection to a peer which answers nothing more on it. */
  async function setUp(script: PeerScript = () => {}) {
    let isFirst = true
    const peer = await ScriptedPeer.start(ip, port, (socket, request) => {
      if (isFirst) socket.write(answer(200, {}))
      else script(socket, request)
      isFirst = false
    })
    const client = new PeerClient({ registryPort: port, stallTimeoutMs: 10_000, credentials: undefined }, systemClock)
    cleanUps.push(
      () => peer.close(),
      () => client.close(),
    )
    const post = (addresses: readonly string[]) =>
      client.post({ id: 'peer', addresses }, '/', AbortSignal.timeout(10_000))
    await post([ip])
    return { peer, post }
  }

  it('is given up soon when its peer is not there any more', async () => {
    const { peer, post } = await setUp()
    // Nobody says good-bye, as when the power fails.
    peer.stopListening()
    const startMs = systemClock.nowMs()
    await expect(post([ip])).rejects.toMatchObject({ reason: 'connect', retryable: false })
    expect(systemClock.nowMs() - startMs).toBeLessThan(peerDoubtMs + peerConnectTimeoutMs + 500)
  })

  it('is waited for when its peer takes new ones', async () => {
    const { peer, post } = await setUp((socket) => {
      setTimeout(() => socket.write(answer(200, {}, Buffer.from('late'))), 3 * peerDoubtMs)
    })
    expect(await post([ip])).toBe('late')
    expect(peer.requests).toHaveLength(2)
  })

  it('is not used for a peer that is at another address by now', async () => {
    const { peer, post } = await setUp()
    const moved = await ScriptedPeer.start(
      otherIp,
      port,
      (socket) => void socket.write(answer(200, {}, Buffer.from('here'))),
    )
    cleanUps.push(() => moved.close())
    expect(await post([otherIp])).toBe('here')
    expect(peer.requests).toHaveLength(1)
  })
})

describe('a peer with several addresses', () => {
  const cleanUps: (() => Promise<void>)[] = []
  afterEach(async () => {
    for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
  })

  const newClient = () => {
    const config = { registryPort: port, stallTimeoutMs: 10_000, credentials: undefined }
    const client = new PeerClient(config, systemClock)
    cleanUps.push(() => client.close())
    return client
  }

  it('is not connected to first where it was unreachable a moment ago', async () => {
    const client = newClient()
    const signal = AbortSignal.timeout(10_000)
    await expect(client.post({ id: 'peer', addresses: [ip] }, '/', signal)).rejects.toMatchObject({
      reason: 'connect',
    })
    // From now on both answer: the one that is tried first wins.
    const script: PeerScript = (socket) => void socket.end(answer(200, { connection: 'close' }))
    const [old, current] = await Promise.all([
      ScriptedPeer.start(ip, port, script),
      ScriptedPeer.start(otherIp, port, script),
    ])
    cleanUps.push(
      () => old.close(),
      () => current.close(),
    )
    await client.post({ id: 'peer', addresses: [ip, otherIp] }, '/', signal)
    expect(current.requests).toHaveLength(1)
    expect(old.requests).toHaveLength(0)
  })

  it('is asked through the library at the address where it answered', async () => {
    const content = Buffer.from('content')
    const digest = digestOf(content)
    const current = await ScriptedPeer.start(otherIp, port, (socket, request) => {
      socket.write('HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n')
      socket.write(honest(request, content, digest))
    })
    cleanUps.push(() => current.close())
    const request = { kind: 'blob' as const, registry: 'r', repository: 'n', tag: undefined, digest, key: digest }
    const question = { request, method: 'GET' as const, range: undefined, loadMax: undefined }
    const peer = { id: 'peer', addresses: [ip, otherIp] }
    const response = await newClient().open(peer, question, AbortSignal.timeout(10_000), () => {})
    expect(response).toMatchObject({ size: content.length })
    if ('discard' in response) response.discard()
  })
})

describe('a message', () => {
  it('is waited for no longer than its sender says, also when its answer has begun', async () => {
    const over = new AbortController()
    const peer = await ScriptedPeer.start(ip, port, (socket) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n')
      // Nothing tells when the head is read.
      setTimeout(() => over.abort(new Error('over')), 200)
    })
    const client = new PeerClient({ registryPort: port, stallTimeoutMs: 60_000, credentials: undefined }, systemClock)
    const posted = client.post({ id: 'peer', addresses: [ip] }, '/', over.signal)
    await expect(posted).rejects.toThrow('over')
    await client.close()
    await peer.close()
  }, 20_000)
})

describe('a body', () => {
  it('says how long each chunk was waited for', async () => {
    const clock = new ManualClock()
    const blob = Buffer.alloc(256 * 1024, 'blob')
    const digest = digestOf(blob)
    let sendRest = () => {}
    const peer = await ScriptedPeer.start(ip, port, (socket, question) => {
      const whole = honest(question, blob, digest)
      socket.write(whole.subarray(0, whole.length / 2))
      sendRest = () => void socket.write(whole.subarray(whole.length / 2))
    })
    const client = new PeerClient({ registryPort: port, stallTimeoutMs: 10_000, credentials: undefined }, clock)
    try {
      const request = { kind: 'blob' as const, registry: 'r', repository: 'n', tag: undefined, digest, key: digest }
      const opening = client.open(
        { id: 'peer', addresses: [ip] },
        { request, method: 'GET', range: undefined, loadMax: undefined },
        AbortSignal.timeout(10_000),
        () => {},
      )
      clock.advance(0)
      const response = await opening
      if ('refusedSize' in response) throw new Error('refused')
      const waits = new Set<number | undefined>()
      let receivedBytes = 0
      const sending = response.send((chunk) => {
        receivedBytes += chunk.byteLength
        waits.add(response.latestWaitMs?.())
        return Promise.resolve()
      })
      await eventually(() => expect(receivedBytes).toBeGreaterThan(blob.length / 2 - 1_000))
      expect([...waits]).toEqual([0])
      clock.advance(70)
      sendRest()
      await sending
      expect(receivedBytes).toBe(blob.length)
      expect([...waits]).toEqual([0, 70])
    } finally {
      await client.close()
      await peer.close()
    }
  })
})
