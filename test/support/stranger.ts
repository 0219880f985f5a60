/** DOUBLE of a peer of any kind: a libp2p node with a given agent version, and a scripted server on the registry port. */
import { multiaddr } from '@multiformats/multiaddr'
import { dhtKey } from '../../src/router/content-cid.ts'
import { Message } from '../../src/router/generated/kad-dht.ts'
import { lengthPrefixed } from '../../src/router/length-prefixed.ts'
import { messageType } from '../../src/router/rpc.ts'
import { BadNode } from './bad-node.ts'
import { type PeerRequest, type PeerScript, ScriptedPeer } from './scripted-peer.ts'

export class Stranger {
  readonly ip: string
  readonly #node: BadNode
  readonly #server: ScriptedPeer

  private constructor(ip: string, node: BadNode, server: ScriptedPeer) {
    this.ip = ip
    this.#node = node
    this.#server = server
  }

  static async start(ip: string, agentVersion: string, script: PeerScript): Promise<Stranger> {
    const node = await BadNode.start(ip, { userAgent: agentVersion })
    const empty = { type: messageType.getProviders, key: Buffer.alloc(0), closer: [], providers: [] }
    node.answerWith(() => lengthPrefixed(Message.encode(empty).finish()))
    return new Stranger(ip, node, await ScriptedPeer.start(ip, 5000, script))
  }

  /** HTTP requests so far. */
  get requests(): readonly PeerRequest[] {
    return this.#server.requests
  }

  /** Announces to one daemon that this peer holds a key. */
  async announce(daemonIp: string, key: string): Promise<void> {
    const self = { id: this.#node.id, multiaddrs: [multiaddr(`/ip4/${this.ip}/tcp/5001`).bytes] }
    const message = { type: messageType.addProvider, key: dhtKey(key).multihash, closer: [], providers: [self] }
    await this.#node.tell(daemonIp, lengthPrefixed(Message.encode(message).finish()))
  }

  async close(): Promise<void> {
    await Promise.all([this.#node.close(), this.#server.close()])
  }
}
