/**
 * Finds processes that share one identity, as nodes cloned from one disk image do. Two of them cannot connect to each other
 * (libp2p takes that for a connection to itself), so a third node that is connected to both notices it.
 *
 * Each process draws a boot id when it starts. Where two connections lead to one peer id, both ends are asked for their boot
 * id at the same time; only ends that answer count, so neither a restart nor a connection that is left over from before is
 * a clone. Each of two different processes then receives a report with proof: the statement of the other one, signed with the
 * key that both have, over a nonce that the receiver has just drawn, so it cannot be forged without the key.
 *
 * Messages on a stream of our own protocol, each with its length before it:
 * - `1, nonce` is answered with a statement: boot id and signature of the domain, the nonce and the boot id;
 * - `2` announces a report and is answered with a nonce; a statement over it by the other process follows, and then the
 *   receiver's judgement: `2` for a clone, `0` for a process that shares its data directory.
 */
import { randomBytes } from 'node:crypto'
import type { Connection, Libp2p, PeerId, PrivateKey, PublicKey, Stream } from '@libp2p/interface'
import { inBackground, surface } from '../lib/background.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { errorMessage } from '../lib/errors.ts'
import { awakeTimeout } from '../lib/patience.ts'
import {
  addressBookEntriesMax,
  cloneCheckDelayMs,
  cloneConnectionsMax,
  cloneRecheckMs,
  identityRequestTimeoutMs,
  identityStreamsPerPeerMax,
} from '../limits.ts'
import type { Logger } from '../logger.ts'
import { isRunningIn, markRunning } from './identity.ts'
import { ownAgent } from './kinds.ts'
import { LengthPrefixedDecoder, lengthPrefixed } from './length-prefixed.ts'

export const identityProtocol = '/spegel-ts/identity/1.0.0'
const signedDomain = Buffer.from('spegel-ts identity 1.0.0\0')
const requestType = { state: 1, report: 2 } as const
const judgement = { noClone: 0, clone: 2 } as const
const nonceBytes = 32
const bootIdBytes = 16
const signatureBytes = 64
const messageBytesMax = 256

export interface CloneWatchComponents {
  libp2p: Libp2p
  privateKey: PrivateKey
  clock: Clock
  logger: Logger
  /** Where the identity is kept. A process that shares the directory is no clone: an update starts one before the other ends. */
  dataDir?: string | undefined
  /** It is proven that another running process has this node's identity. */
  onClone: () => void
}

interface Statement {
  bootId: Buffer
  /** As it was sent. */
  bytes: Buffer
}

export class CloneWatch {
  readonly #components: CloneWatchComponents
  readonly #bootId = randomBytes(bootIdBytes)
  readonly #stop = new AbortController()
  /** Checks that are due, by peer id. No more than there are peers with connections. */
  readonly #due = new Map<string, () => void>()
  /** Peer ids of clones that were logged. */
  readonly #logged = new BoundedMap<string, true>(addressBookEntriesMax)

  constructor(components: CloneWatchComponents) {
    this.#components = components
  }

  async start(): Promise<void> {
    const { libp2p, dataDir } = this.#components
    if (dataDir !== undefined) await markRunning(dataDir, this.#bootId.toString('hex'))
    const limits = { maxInboundStreams: identityStreamsPerPeerMax, maxOutboundStreams: identityStreamsPerPeerMax }
    await libp2p.handle(identityProtocol, (stream) => void this.#serve(stream), limits)
    // Each connection is identified by itself. Nodes of Spegel do not know the protocol.
    libp2p.addEventListener('peer:identify', ({ detail: { peerId, agentVersion } }) => {
      if (agentVersion?.startsWith(ownAgent) === true) this.#checkIn(cloneCheckDelayMs, peerId)
    })
  }

  /** Also makes no more statements: the process ends, and the next one may have started already. */
  close(): void {
    this.#stop.abort()
    for (const cancel of this.#due.values()) cancel()
    this.#due.clear()
  }

  // --- Between others ---

  #checkIn(delayMs: number, peerId: PeerId): void {
    const id = peerId.toString()
    if (this.#stop.signal.aborted || this.#due.has(id) || this.#connections(peerId).length < 2) return
    const cancel = this.#components.clock.after(delayMs, () => {
      this.#due.delete(id)
      void inBackground('identity', () => this.#check(peerId), { signal: this.#stop.signal })
    })
    this.#due.set(id, cancel)
  }

  #connections(peerId: PeerId): Connection[] {
    const connections = this.#components.libp2p.getConnections(peerId)
    return connections.filter(({ status }) => status === 'open').slice(-cloneConnectionsMax)
  }

  async #check(peerId: PeerId): Promise<void> {
    const nonce = randomBytes(nonceBytes)
    const answers = await Promise.allSettled(
      this.#connections(peerId).map(async (connection) => ({
        connection,
        bootId: (await this.#askForStatement(connection, nonce)).bootId.toString('hex'),
      })),
    )
    const alive = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []))
    const processes = [...new Map(alive.map((answer) => [answer.bootId, answer.connection])).values()]
    const [first, second] = processes
    if (first !== undefined && second !== undefined) {
      const judgements = await Promise.all(
        processes.map((connection) => this.#report(connection, connection === first ? second : first)),
      )
      const peer = peerId.toString()
      if (judgements.includes(true)) this.#log(peer, processes)
      else this.#components.logger.debug({ peer }, 'two processes share an identity and are no clones')
    }
    // One of them may not have answered this time, or may not replace its identity yet.
    if (processes.length > 1 || alive.length < answers.length) this.#checkIn(cloneRecheckMs, peerId)
  }

  #log(peer: string, processes: readonly Connection[]): void {
    if (this.#logged.get(peer) === undefined) {
      const addresses = processes.map(({ remoteAddr }) => remoteAddr.toString())
      this.#components.logger.warn(
        { peer, addresses },
        'two running nodes have the same identity: they were cloned with their data directory; reported to both',
      )
    }
    this.#logged.set(peer, true)
  }

  async #askForStatement(connection: Connection, nonce: Uint8Array): Promise<Statement> {
    const { publicKey } = connection.remotePeer
    if (publicKey === undefined) throw new Error('the key of the peer is not known')
    return this.#open(connection, async (conversation) => {
      conversation.send(Buffer.concat([Buffer.of(requestType.state), nonce]))
      return readStatement(await conversation.receive(), nonce, publicKey)
    })
  }

  /** Reports to the process behind one connection the process behind the other. Returns whether it judges that a clone. */
  async #report(connection: Connection, other: Connection): Promise<boolean> {
    try {
      return await this.#open(connection, async (conversation) => {
        conversation.send(Buffer.of(requestType.report))
        const nonce = await conversation.receive()
        const { bytes } = await this.#askForStatement(other, nonce)
        conversation.send(bytes)
        const [answer] = await conversation.receive()
        return answer === judgement.clone
      })
    } catch (error) {
      surface('identity', error)
      const peer = connection.remoteAddr.toString()
      this.#components.logger.debug({ peer, error: errorMessage(error) }, 'report of a clone failed')
      return false
    }
  }

  async #open<Result>(
    connection: Connection,
    talk: (conversation: Conversation) => Promise<Result>,
  ): Promise<Result> {
    using patience = awakeTimeout(this.#components.clock, identityRequestTimeoutMs)
    const signal = AbortSignal.any([this.#stop.signal, patience.signal])
    const stream = await connection.newStream(identityProtocol, { signal })
    return await converse(stream, signal, talk)
  }

  // --- This node ---

  async #serve(stream: Stream): Promise<void> {
    using patience = awakeTimeout(this.#components.clock, identityRequestTimeoutMs)
    const signal = AbortSignal.any([this.#stop.signal, patience.signal])
    try {
      await converse(stream, signal, async (conversation) => {
        const request = await conversation.receive()
        if (request[0] === requestType.state && request.length === 1 + nonceBytes) {
          conversation.send(await this.#makeStatement(request.subarray(1)))
        } else if (request[0] === requestType.report && request.length === 1) {
          await this.#takeReport(conversation)
        } else {
          throw new Error(`a request of type ${request[0]} with ${request.length} bytes`)
        }
      })
    } catch (error) {
      surface('identity', error)
      this.#components.logger.debug({ error: errorMessage(error) }, 'identity request failed')
    }
  }

  async #makeStatement(nonce: Uint8Array): Promise<Buffer> {
    const signature = await this.#components.privateKey.sign(Buffer.concat([signedDomain, nonce, this.#bootId]))
    return Buffer.concat([this.#bootId, signature])
  }

  /** The nonce is new, so the process that signs it is running, and was not just the one before this. */
  async #takeReport(conversation: Conversation): Promise<void> {
    const nonce = randomBytes(nonceBytes)
    conversation.send(nonce)
    const { bootId } = await readStatement(await conversation.receive(), nonce, this.#components.privateKey.publicKey)
    const { dataDir, onClone } = this.#components
    const sharesDirectory = dataDir !== undefined && (await isRunningIn(dataDir, bootId.toString('hex')))
    const isClone = !bootId.equals(this.#bootId) && !sharesDirectory
    if (isClone) onClone()
    conversation.send(Buffer.of(isClone ? judgement.clone : judgement.noClone))
  }
}

/** Throws when it is not signed with the key. */
async function readStatement(bytes: Buffer, nonce: Uint8Array, publicKey: PublicKey): Promise<Statement> {
  if (bytes.length !== bootIdBytes + signatureBytes) throw new Error(`a statement of ${bytes.length} bytes`)
  const bootId = bytes.subarray(0, bootIdBytes)
  const signed = Buffer.concat([signedDomain, nonce, bootId])
  if (!(await publicKey.verify(signed, bytes.subarray(bootIdBytes))))
    throw new Error('a statement with a wrong signature')
  return { bootId, bytes }
}

interface Conversation {
  send(message: Uint8Array): void
  receive(): Promise<Buffer>
}

/** A few short messages over a stream, which is closed at the end. */
async function converse<Result>(
  stream: Stream,
  signal: AbortSignal,
  talk: (conversation: Conversation) => Promise<Result>,
): Promise<Result> {
  const decoder = new LengthPrefixedDecoder(messageBytesMax)
  const received: Buffer[] = []
  let failure: Error | undefined
  let changed = Promise.withResolvers<void>()
  const fail = (error: Error) => {
    failure ??= error
    changed.resolve()
  }
  stream.addEventListener('message', ({ data }) => {
    try {
      for (const message of decoder.decode(data.subarray())) received.push(Buffer.from(message))
      if (received.length > 2) throw new Error('more messages than the protocol has')
    } catch (error) {
      fail(error as Error)
    }
    changed.resolve()
  })
  stream.addEventListener('remoteCloseWrite', () => fail(new Error('the peer closed the stream')))
  stream.addEventListener('close', () => fail(new Error('the stream was closed')))
  const onAbort = () => fail(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()
  try {
    const result = await talk({
      send: (message) => void stream.send(lengthPrefixed(message)),
      async receive() {
        for (;;) {
          const message = received.shift()
          if (message !== undefined) return message
          if (failure !== undefined) throw failure
          changed = Promise.withResolvers()
          await changed.promise
        }
      },
    })
    await stream.close({ signal })
    return result
  } catch (error) {
    stream.abort(error as Error)
    throw error
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
