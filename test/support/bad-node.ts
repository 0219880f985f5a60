/** DOUBLE of a node of the swarm, for what a real one does not send: a libp2p node without kad-dht behind its protocol. */
import { noise } from '@chainsafe/libp2p-noise'
import { identify } from '@libp2p/identify'
import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { LengthPrefixedDecoder } from '../../src/router/length-prefixed.ts'
import { dhtProtocol } from '../../src/router/libp2p-node.ts'

export class BadNode {
  /** Questions that it was asked. */
  asked = 0
  readonly #libp2p: Libp2p
  readonly #connections = new Map<string, Promise<Connection>>()
  #answer: (() => Uint8Array) | undefined

  private constructor(libp2p: Libp2p) {
    this.#libp2p = libp2p
  }

  /**
   * Connects from its own address, as a node of a cluster does. Many identities of one address do not all listen. `userAgent`:
   * the agent version that identify sends; undefined: that of libp2p.
   */
  static async start(
    ip: string,
    { listens = true, userAgent }: { listens?: boolean; userAgent?: string | undefined } = {},
  ): Promise<BadNode> {
    const libp2p = await createLibp2p({
      ...(userAgent === undefined ? {} : { nodeInfo: { userAgent } }),
      addresses: { listen: listens ? [`/ip4/${ip}/tcp/5001`] : [] },
      // libp2p passes on all options of net.connect, though its types name a few.
      transports: [tcp({ dialOpts: { localAddress: ip } as object })],
      streamMuxers: [yamux()],
      connectionEncrypters: [noise()],
      services: { identify: identify(), ping: ping() },
    })
    const node = new BadNode(libp2p)
    await libp2p.handle(dhtProtocol, (stream) => node.#serve(stream), {
      maxInboundStreams: 1_000,
      maxOutboundStreams: 1_000,
    })
    return node
  }

  get id(): Uint8Array {
    return this.#libp2p.peerId.toMultihash().bytes
  }

  /** What it says to every piece of a question; undefined: nothing. */
  answerWith(answer: (() => Uint8Array) | undefined): void {
    this.#answer = answer
  }

  /** Sends these bytes on a stream of its own, and waits until the other side has closed it, or this side has. */
  async tell(ip: string, message: Uint8Array): Promise<void> {
    const stream = await this.#open(ip)
    try {
      for (let at = 0; at < message.length; at += 64 * 1024) {
        if (!stream.send(message.subarray(at, at + 64 * 1024))) await stream.onDrain()
      }
      await stream.close({ signal: AbortSignal.timeout(500) })
    } catch {
      // It was closed to us, which is a good answer to nonsense.
      stream.abort(new Error('enough'))
    }
  }

  /** The answer to one framed question; empty when the stream was closed instead. */
  async ask(ip: string, question: Uint8Array): Promise<Uint8Array> {
    const stream = await this.#open(ip)
    const decoder = new LengthPrefixedDecoder(16 * 1024 * 1024)
    const answer = new Promise<Uint8Array>((resolve) => {
      stream.addEventListener('message', ({ data }) => {
        for (const message of decoder.decode(data.subarray())) resolve(Buffer.from(message))
      })
      stream.addEventListener('close', () => resolve(Buffer.alloc(0)))
    })
    stream.send(question)
    const message = await answer
    stream.abort(new Error('enough'))
    return message
  }

  async close(): Promise<void> {
    await this.#libp2p.stop()
  }

  /** All streams to one daemon share a connection. */
  async #open(ip: string): Promise<Stream> {
    let connection = await this.#connections.get(ip)
    if (connection?.status !== 'open') {
      const dialling = this.#libp2p.dial(multiaddr(`/ip4/${ip}/tcp/5001`))
      this.#connections.set(ip, dialling)
      connection = await dialling
    }
    return connection.newStream(dhtProtocol, { maxOutboundStreams: 1_000 })
  }

  #serve(stream: Stream): void {
    stream.addEventListener('message', () => {
      this.asked += 1
      if (this.#answer === undefined || stream.status !== 'open') return
      try {
        stream.send(this.#answer())
      } catch {
        // Closed meanwhile.
      }
    })
  }
}
