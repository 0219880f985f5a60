import { noise } from '@chainsafe/libp2p-noise'
import type { Libp2p, Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { YamuxStream } from '@libp2p/yamux/stream'
import { createLibp2p } from 'libp2p'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sendWindowUpdatesRarely } from '../../../src/router/window-updates.ts'

const protocol = '/test/1.0.0'
const windowBytes = 256 * 1024

describe('window updates', () => {
  const nodes: Libp2p[] = []
  /** Frames that carry no data, of both nodes. */
  let updates = 0

  beforeEach(async () => {
    sendWindowUpdatesRarely()
    updates = 0
    for (let i = 0; i < 2; i++) {
      const node = await createLibp2p({
        addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
        transports: [tcp()],
        streamMuxers: [yamux()],
        connectionEncrypters: [noise()],
      })
      nodes.push(node)
    }
  })
  afterEach(async () => {
    for (const node of nodes.splice(0)) await node.stop()
  })

  function counted(stream: Stream): Stream {
    const inner = stream as unknown as { sendFrame(header: { type: number }, body?: unknown): boolean }
    const send = inner.sendFrame
    inner.sendFrame = (header, body) => {
      if (body === undefined) updates += 1
      return send(header, body)
    }
    expect(stream).toBeInstanceOf(YamuxStream)
    return stream
  }

  /** Asks on one stream, again and again; the other node sends back what it got. */
  async function exchange(questions: number, questionBytes: number): Promise<number> {
    const [asking, answering] = nodes as [Libp2p, Libp2p]
    await answering.handle(protocol, (stream) => {
      counted(stream)
      stream.addEventListener('message', ({ data }) => void stream.send(data))
    })
    const stream = counted(await asking.dialProtocol(answering.getMultiaddrs(), protocol))
    let answeredBytes = 0
    for (let i = 0; i < questions; i++) {
      const wantedBytes = answeredBytes + questionBytes
      const answered = new Promise<void>((resolve) => {
        const onMessage = ({ data }: { data: { byteLength: number } }) => {
          answeredBytes += data.byteLength
          if (answeredBytes < wantedBytes) return
          stream.removeEventListener('message', onMessage as never)
          resolve()
        }
        stream.addEventListener('message', onMessage)
      })
      if (!stream.send(new Uint8Array(questionBytes))) await stream.onDrain()
      await answered
    }
    return answeredBytes
  }

  it('are not sent for small questions', async () => {
    expect(await exchange(100, 1_000)).toBe(100_000)
    // Opening the stream and agreeing on its protocol.
    expect(updates).toBeLessThanOrEqual(3)
  })

  it('come before the window is used up', async () => {
    const bytes = 8 * windowBytes
    expect(await exchange(bytes / 1024 / 16, 16 * 1024)).toBe(bytes)
    expect(updates).toBeGreaterThanOrEqual(2)
  })

  it('let through what is larger than a window', async () => {
    expect(await exchange(2, 3 * windowBytes)).toBe(6 * windowBytes)
  })
})
