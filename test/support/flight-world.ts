/**
 * Nodes with the real Mirror, ServeLocal and Flights, in simulated time. Stand-ins: the network (late, lost, doubled
 * messages, dead and unplugged nodes), the upstream registry (slow, cut, refusing, late), and containerd, by the rules
 * that were measured on real ones: after a short body it asks the mirror again, after a 404 or a redirect it goes
 * upstream, and three bodies without a byte are survived.
 */
import { EventEmitter } from 'node:events'
import type { FastifyReply } from 'fastify'
import { Flights } from '../../src/flights/flights.ts'
import type { FlightNode } from '../../src/flights/protocol.ts'
import { arrivingStallMs } from '../../src/limits.ts'
import { createLogger } from '../../src/logger.ts'
import { createMetrics } from '../../src/metrics.ts'
import type { ContentRequest } from '../../src/oci/content-request.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import type { ByteRange } from '../../src/oci/range.ts'
import type { PeerClient } from '../../src/peers/client.ts'
import {
  PeerFailure,
  type PeerQuestion,
  type PeerResponse,
  type RangeRefused,
  checkAnswer,
  questionHeaders,
} from '../../src/peers/protocol.ts'
import { Exchange } from '../../src/registry/exchange.ts'
import { Mirror } from '../../src/registry/mirror.ts'
import { nameFilter } from '../../src/oci/filter.ts'
import { NameCheck } from '../../src/registry/name-check.ts'
import { ServeLocal } from '../../src/registry/serve-local.ts'
import type { Peer, Router } from '../../src/router/router.ts'
import { type Content, ContentNotFound, type ContentStore, type WriteChunk } from '../../src/store/store.ts'
import { type Transfer, type TransferEvent, TransferFailed, type Transfers } from '../../src/store/transfers.ts'
import { ManualClock } from './manual-clock.ts'
import type { Random } from './random.ts'

const MiB = 2 ** 20
export const blobBytesMax = 24 * MiB
/** What is right is told by the place in this memory: nothing has to be compared. */
const truth = new Uint8Array(blobBytesMax)
export const digest = digestOf(Buffer.from('the blob'))
const request: ContentRequest = {
  kind: 'blob',
  registry: 'example.org',
  repository: 'library/blob',
  tag: undefined,
  digest,
  key: digest,
}
/** When nothing moves, and a look at an upstream that may refuse. */
const headersMsMax = 2_250
/** As --mirror-stall-timeout. */
const stallTimeoutMs = 10_000
const metrics = createMetrics()
const logger = createLogger('ERROR')

export interface Faults {
  /** Of a message, each way. */
  lost: number
  late: number
  doubled: number
}

export interface Upstream {
  firstByteMs: number
  bytesPerMs: number
  refusesUntilMs: number
  /** Of each body: that it ends early, somewhere. */
  cut: number
}

export class FlightWorld {
  readonly clock = new ManualClock()
  readonly random: Random
  readonly sizeBytes: number
  readonly nodes = new Map<string, SimulatedNode>()
  readonly upstream: Upstream = { firstByteMs: 20, bytesPerMs: 10_000, refusesUntilMs: 0, cut: 0 }
  faults: Faults = { lost: 0, late: 0, doubled: 0 }
  /** Not by redirect. */
  leasesBy404 = false
  /** Of the DHT: whether complete blobs are found there. */
  knowsHolders = false
  /** Whom a node believes to be the coordinators, in order. */
  coordinatorsOf: (id: string) => readonly string[]
  upstreamFetches = 0
  messages = 0
  /** What happened, for who looks for the reason. */
  readonly log: string[] = []
  /** Violations of what must always hold. */
  readonly wrongs: string[] = []
  /** Downloads that are fed from others: who from whom. */
  readonly feeding = new Map<Download, Download>()

  /**
   * Leases by 404 from now on, and one of the nodes leads another blob of the image, with which the others are fed: that
   * is what is told. Bytes of it do not exist.
   */
  async leadImageBy404(leader: string): Promise<void> {
    this.leasesBy404 = true
    const other = digestOf(Buffer.from('another blob'))
    const asked = [this.nodes.get(leader)?.askForOther(other) ?? Promise.resolve()]
    await this.runUntil(() => false, 100)
    for (const node of this.nodes.values()) {
      const ip = this.nodes.get(leader)?.self.addresses[0] ?? ''
      const path = `/spegel-ts/flights/v1/${other}/complete?node=${leader}&at=${ip}&have=1&size=1`
      await node.flights.answer(path, ip, new AbortController().signal)
      if (node.id !== leader) asked.push(node.askForOther(other))
    }
    await this.runUntil(() => false, 400)
    await Promise.all(asked)
  }

  constructor(random: Random, sizeBytes: number, ids: readonly string[]) {
    this.random = random
    this.sizeBytes = sizeBytes
    this.coordinatorsOf = () => ids.slice(0, 3)
    for (const id of ids) this.start(id)
  }

  /** Also anew: what it had in memory is gone. */
  start(id: string): SimulatedNode {
    this.nodes.get(id)?.kill()
    const node = new SimulatedNode(this, id)
    this.nodes.set(id, node)
    return node
  }

  /** True when the moment came, false when it was not true until then. */
  async runUntil(isTrue: () => boolean, limitMs: number): Promise<boolean> {
    const untilMs = this.clock.nowMs() + limitMs
    for (;;) {
      // Everything that follows from what happened without a wait.
      await new Promise((resolve) => setImmediate(resolve))
      if (isTrue()) return true
      if (this.clock.nowMs() >= untilMs) return false
      this.clock.advanceToNext(untilMs)
    }
  }

  chance(probability: number): boolean {
    return this.random.next() < probability
  }

  delayMs(): number {
    return 0.2 + this.random.next() * 2 + (this.chance(this.faults.late) ? this.random.next() * 4_000 : 0)
  }

  note(what: string): void {
    this.log.push(`${Math.round(this.clock.nowMs())} ms: ${what}`)
  }

  wrong(what: string): void {
    this.note(what)
    this.wrongs.push(what)
  }

  noteFeeding(follower: Download, source: Download): void {
    this.feeding.set(follower, source)
    let at: Download | undefined = source
    for (let steps = 0; at !== undefined; steps++) {
      if (at === follower || steps > 1_000) {
        const feeding = [...this.feeding].map(([to, from]) => `${describe(to)} from ${describe(from)}`)
        this.wrong(`a cycle of feeding at ${follower.node.id}: ${feeding.join(', ')}`)
        return
      }
      at = this.feeding.get(at)
    }
  }

  close(): void {
    for (const node of this.nodes.values()) node.kill()
  }
}

function describe({ node, haveBytes, state }: Download): string {
  return `${node.id} (${haveBytes}, ${state})`
}

/** A running download of containerd. */
export class Download implements Transfer {
  readonly digest = digest
  readonly size: number
  readonly node: SimulatedNode
  readonly startedMs: number
  haveBytes = 0
  state: Transfer['state'] = 'running'
  /** Handed to containerd, which has written up to `haveBytes`. */
  #ahead = { first: 0, end: 0 }
  #changed = Promise.withResolvers<void>()

  constructor(node: SimulatedNode, size: number) {
    this.node = node
    this.size = size
    this.startedMs = node.world.clock.nowMs()
  }

  change(haveBytes: number, state: Transfer['state']): void {
    if (this.state !== 'running') return
    this.haveBytes = haveBytes
    this.state = state
    this.#wake()
  }

  hasPast(position: number): boolean {
    return this.#readableUntil(position) > position
  }

  get readableBytes(): number {
    return this.#readableUntil(this.haveBytes) || this.haveBytes
  }

  loseAhead(): void {
    this.#ahead = { first: 0, end: 0 }
    this.#wake()
  }

  noteAhead(position: number, chunk: Uint8Array): void {
    if (this.state !== 'running') return
    if (chunk.byteOffset !== position) this.node.world.wrong('wrong bytes ahead of the file')
    if (position !== this.#ahead.end) this.#ahead = { first: position, end: position }
    this.#ahead.end += chunk.byteLength
    this.#wake()
  }

  #readableUntil(position: number): number {
    if (this.haveBytes > position) return this.haveBytes
    const { first, end } = this.#ahead
    return this.state === 'running' && position >= first ? end : 0
  }

  #wake(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }

  open(): Promise<Content> {
    if (this.state === 'failed') return Promise.reject(new ContentNotFound('gone'))
    const send = async ({ first, last }: ByteRange, write: WriteChunk, signal: AbortSignal) => {
      for (let at = first; at <= last;) {
        signal.throwIfAborted()
        if (this.state === 'failed') throw new TransferFailed('given up')
        const end = Math.min(this.#readableUntil(at), last + 1, at + MiB)
        if (end > at) {
          await write(truth.subarray(at, end))
          at = end
        } else {
          await settledOrAborted(this.#changed.promise, signal)
        }
      }
    }
    return Promise.resolve({ size: this.size, send, close: () => Promise.resolve() })
  }
}

const asContainerd = { isPeer: false, isContainerd: true }

class Downloads implements Transfers {
  latest: Download | undefined
  readonly #listeners = new Set<(event: TransferEvent) => void>()

  find(): Transfer | undefined {
    return this.latest
  }

  isRunning(): boolean {
    return this.latest?.state === 'running'
  }

  watch(listener: (event: TransferEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  tell(kind: TransferEvent['kind'], { haveBytes, size }: Download): void {
    for (const listener of this.#listeners) listener({ digest, kind, haveBytes, size })
  }
}

export class SimulatedNode {
  readonly world: FlightWorld
  readonly id: string
  readonly self: FlightNode
  readonly flights: Flights
  readonly downloads = new Downloads()
  /** unplugged: nothing reaches it and nothing leaves it, and nobody is told. */
  network: 'up' | 'unplugged' | 'dead' = 'up'
  hasBlob = false
  #hadBlob = false
  /** Pulls that kubelet had to begin anew. */
  failedPulls = 0
  #isPulling = false
  /** Then it cannot be told which stream feeds its download. */
  #asksBeside = false
  messages = 0
  readonly #mirror: Mirror
  readonly #local: ServeLocal
  readonly #stop = new AbortController()
  /** Torn when it dies. */
  readonly #wires = new Set<Wire>()

  constructor(world: FlightWorld, id: string) {
    this.world = world
    this.id = id
    this.self = { id, addresses: [`10.0.0.${id.charCodeAt(0)}`] }
    const { clock } = world
    const client = {
      post: (peer: Peer, path: string, signal: AbortSignal) => this.#post(peer, path, signal),
      open: (peer: Peer, question: PeerQuestion, signal: AbortSignal) => this.#open(peer, question, signal),
      load: () => 0,
      isLeftOut: () => false,
    } as unknown as PeerClient
    const router = {
      // A liar is a node that this world does not know; it has an address, too.
      isPeerAt: (other: string, ip: string) =>
        Promise.resolve(world.nodes.get(other)?.self.addresses.includes(ip) ?? true),
      flightNodes: () =>
        Promise.resolve(world.coordinatorsOf(id).map((other) => world.nodes.get(other)?.self ?? this.self)),
      lookup: () => this.#lookup(),
    } as unknown as Router
    const store = {
      open: () => (this.hasBlob ? this.#openBlob() : Promise.reject(new ContentNotFound('not here'))),
      wasStoredSince: () => this.#hadBlob,
    } as unknown as ContentStore
    const shutdown = this.#stop.signal
    const isStored = () => this.hasBlob
    this.flights = new Flights({
      router,
      client,
      transfers: this.downloads,
      isStored,
      feeds: () => this.#local.feeds,
      self: this.self,
      clock,
      metrics,
      logger,
    })
    this.#mirror = new Mirror(
      {
        client,
        store,
        shutdown,
        router,
        clock,
        metrics,
        logger,
        random: () => world.random.next(),
        flight: {
          flights: this.flights,
          upstreamOrigin: () => Promise.resolve(world.leasesBy404 ? undefined : 'https://example.org'),
          upstreamRefuses: () => Promise.resolve(world.upstream.refusesUntilMs > clock.nowMs()),
        },
      },
      { resolveTimeoutMs: 20 },
    )
    const names = new NameCheck(nameFilter([], []), store)
    this.#local = new ServeLocal({ store, clock, metrics, shutdown, transfers: this.downloads, names })
  }

  kill(): void {
    this.network = 'dead'
    this.#stop.abort(new Error('killed'))
    for (const wire of this.#wires) wire.tear()
    this.downloads.latest?.change(0, 'failed')
    this.flights.close()
  }

  /** Its containerd removes the blob, if it has it; nobody is told but by a 404. Of a running download it removes nothing. */
  collectGarbage(): void {
    if (!this.hasBlob) return
    this.hasBlob = false
    this.downloads.latest = undefined
  }

  /** Bodies that it is sending to others. */
  get feeds(): number {
    return this.#local.feeds
  }

  get isDead(): boolean {
    return this.network === 'dead'
  }

  // --- containerd ---

  /** Until the blob is here, or the node is dead. kubelet tries again. */
  async pull(): Promise<void> {
    if (this.#isPulling) return
    this.#isPulling = true
    while (!this.hasBlob && !this.isDead) {
      const download = new Download(this, this.world.sizeBytes)
      this.downloads.latest = download
      this.downloads.tell('started', download)
      const isDone = await this.#fetch(download)
      if (this.isDead) return
      download.change(isDone ? download.size : 0, isDone ? 'complete' : 'failed')
      if (isDone) this.hasBlob = this.#hadBlob = true
      this.world.feeding.delete(download)
      await this.world.clock.sleep(2)
      this.downloads.tell(isDone ? 'complete' : 'failed', download)
      if (isDone) break
      this.failedPulls += 1
      await this.world.clock.sleep(1_500 + this.world.random.next() * 2_000)
    }
    this.#isPulling = false
  }

  /** In the flight of another blob of the image. */
  async askForOther(other: Digest): Promise<void> {
    const question = { ...request, digest: other, key: other }
    const source = this.flights.follow(question, other, this.world.leasesBy404, () => false, undefined)
    if ((await source.next(undefined, 250, this.#stop.signal)) !== undefined) this.world.wrong('nobody has the other')
  }

  /** A further question for what is missing, beside the first: a parallel fetch, or another image with this blob. */
  async askBeside(): Promise<void> {
    this.#asksBeside = true
    this.world.feeding.clear()
    await this.#ask({ range: `bytes=${this.downloads.latest?.haveBytes ?? 0}-` })
  }

  /** Another node's containerd, sent here by a Service while the mirror there starts anew, asks for all of it. */
  async serveOther(): Promise<void> {
    await this.#ask({})
  }

  async #ask(range: { range?: string }): Promise<void> {
    const wire = this.#wire()
    const headers = { 'user-agent': 'containerd/2.3.4', ...range }
    const served = this.#mirror.serve(
      request,
      new Exchange(this.world.clock, { method: 'GET', headers }, asContainerd),
      wire.reply(),
    )
    await wire.head.then(() => wire.read(() => Promise.resolve())).catch(() => undefined)
    wire.tear()
    await served
  }

  async #fetch(download: Download): Promise<boolean> {
    let strikes = 0
    for (;;) {
      const before = download.haveBytes
      const outcome = await this.#askMirror(download)
      this.world.note(`${this.id}, which had ${before}, has ${download.haveBytes}: ${outcome}`)
      if (outcome === 'end') strikes = download.haveBytes > before ? 1 : strikes + 1
      const isRedirected = outcome === 'redirect'
      if (outcome === 'miss' || isRedirected) {
        let upstream = await this.#askUpstream(download)
        // Refused behind the redirect: the next host is the same upstream.
        if (upstream === 'refused' && isRedirected) upstream = await this.#askUpstream(download)
        if (upstream === 'refused') return false
        if (upstream === 'cut') strikes = download.haveBytes > before ? 1 : strikes + 1
      }
      if (this.isDead || download.state !== 'running') return false
      if (download.haveBytes === download.size) return true
      if (strikes > 3) return false
      await this.world.clock.sleep(1)
    }
  }

  async #askMirror(download: Download): Promise<'redirect' | 'miss' | 'end'> {
    const { world } = this
    const first = download.haveBytes
    // containerd writes whole MiB, and the rest when the body ends.
    let takenBytes = first
    const headers = { 'user-agent': 'containerd/2.3.4', ...(first === 0 ? {} : { range: `bytes=${first}-` }) }
    const wire = this.#wire()
    const [exchange, reply] = [new Exchange(world.clock, { method: 'GET', headers }, asContainerd), wire.reply()]
    void this.#local
      .serve(request, exchange, reply)
      .then((served) => served || this.#mirror.serve(request, exchange, reply))
      .then((served) => served || wire.answer(404, {}))
      .catch((error: unknown) => world.wrong(`the mirror of ${this.id} failed: ${String(error)}`))
    const askedMs = world.clock.nowMs()
    // Headers within 30 s, or containerd leaves.
    const cancel = world.clock.after(30_000, () => wire.tear())
    try {
      const { status, headers: head } = await wire.head
      cancel()
      const headersMs = world.clock.nowMs() - askedMs
      if (headersMs > headersMsMax) world.wrong(`${this.id} got headers after ${Math.round(headersMs)} ms`)
      if (status === 307) return 'redirect'
      if (status !== 200 && status !== 206) return 'miss'
      const expected = download.size - first
      if (Number(head.get('content-length')) !== expected)
        world.wrong(`${head.get('content-length')} of ${expected} bytes`)
      await wire.read(async (chunk) => {
        this.#check(chunk, takenBytes, download)
        takenBytes += chunk.byteLength
        if (takenBytes - download.haveBytes >= MiB) await this.#write(download, takenBytes - download.haveBytes)
      })
    } catch {
      // A reset fails the whole pull; here only our own death or patience tears.
    } finally {
      if (takenBytes > download.haveBytes) await this.#write(download, takenBytes - download.haveBytes)
      cancel()
      world.feeding.delete(download)
      wire.tear()
    }
    return 'end'
  }

  #check(chunk: Uint8Array, position: number, { size }: Download): void {
    const isRight = chunk.buffer === truth.buffer && chunk.byteOffset === position
    if (!isRight) this.world.wrong(`${this.id} was given byte ${chunk.byteOffset} as byte ${position}`)
    if (position + chunk.byteLength > size) this.world.wrong(`${this.id} was given too much`)
  }

  async #askUpstream(download: Download): Promise<'complete' | 'cut' | 'refused'> {
    const { world } = this
    const { upstream, clock } = world
    if (this.network !== 'up' || clock.nowMs() < upstream.refusesUntilMs) {
      await clock.sleep(5)
      return 'refused'
    }
    world.upstreamFetches += 1
    world.note(`${this.id} fetches upstream`)
    const endsAt = world.chance(upstream.cut)
      ? download.haveBytes + Math.floor(world.random.next() * (download.size - download.haveBytes))
      : download.size
    await clock.sleep(upstream.firstByteMs)
    while (download.haveBytes < endsAt) {
      const bytes = Math.min(MiB, endsAt - download.haveBytes)
      await clock.sleep(bytes / upstream.bytesPerMs)
      if (this.isDead) return 'cut'
      if (this.network === 'up') await this.#write(download, bytes)
      else await clock.sleep(100)
    }
    return endsAt === download.size ? 'complete' : 'cut'
  }

  async #write(download: Download, bytes: number): Promise<void> {
    await this.world.clock.sleep(bytes / 400_000)
    if (this.isDead) return
    download.change(download.haveBytes + bytes, 'running')
    this.downloads.tell('grew', download)
  }

  // --- The network ---

  #wire(): Wire {
    const wire = new Wire(this.world, this)
    this.#wires.add(wire)
    wire.onTorn = () => this.#wires.delete(wire)
    return wire
  }

  async *#lookup(): AsyncGenerator<Peer> {
    await this.world.clock.sleep(1)
    if (!this.world.knowsHolders) return
    for (const node of this.world.nodes.values()) if (node !== this && node.hasBlob) yield node.self
  }

  #openBlob(): Promise<Content> {
    const send = async ({ first, last }: ByteRange, write: WriteChunk, signal: AbortSignal) => {
      for (let at = first; at <= last; at += MiB) {
        signal.throwIfAborted()
        await write(truth.subarray(at, Math.min(at + MiB, last + 1)))
      }
    }
    return Promise.resolve({ size: this.world.sizeBytes, send, close: () => Promise.resolve() })
  }

  #reaches(target: SimulatedNode | undefined): target is SimulatedNode {
    return this.network === 'up' && target?.network === 'up'
  }

  async #post({ id }: Peer, path: string, signal: AbortSignal): Promise<string> {
    const { world } = this
    const { clock, faults } = world
    this.messages += 1
    world.messages += 1
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const left = new AbortController()
    const onAbort = () => {
      reject(signal.reason as Error)
      clock.after(world.delayMs(), () => left.abort(new Error('the node has left')))
    }
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    const deliver = async () => {
      await clock.sleep(world.delayMs())
      const target = world.nodes.get(id)
      if (target?.isDead !== false && this.network === 'up') {
        reject(new PeerFailure('connect', 'refused'))
        return
      }
      if (!this.#reaches(target) || world.chance(faults.lost)) return
      const answer = await target.flights.answer(path, this.self.addresses[0] ?? '', left.signal)
      await clock.sleep(world.delayMs())
      if (answer === undefined) reject(new PeerFailure('status', '400'))
      else if (this.#reaches(target) && !world.chance(faults.lost)) resolve(JSON.stringify(answer))
      else if (target.isDead) reject(new PeerFailure('body', 'torn'))
    }
    void deliver()
    if (world.chance(faults.doubled)) void deliver()
    try {
      return await promise
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  async #open(peer: Peer, question: PeerQuestion, signal: AbortSignal): Promise<PeerResponse | RangeRefused> {
    const { world } = this
    signal.throwIfAborted()
    await sleepUnlessAborted(world.clock, world.delayMs(), signal)
    const target = world.nodes.get(peer.id)
    if (target?.isDead !== false) throw new PeerFailure('connect', 'refused')
    if (!this.#reaches(target)) await settledOrAborted(Promise.withResolvers<void>().promise, signal)
    const wire = target.#wire()
    wire.reader = this
    const asked = { method: question.method, headers: questionHeaders(question) }
    const exchange = new Exchange(world.clock, asked, { isPeer: true, isContainerd: false })
    void target.#local
      .serve(question.request, exchange, wire.reply())
      .then((served) => served || wire.answer(404, {}))
      .catch((error: unknown) => world.wrong(`${target.id} failed to serve: ${String(error)}`))
    const onAbort = () => wire.tear(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    const { status, headers } = await wire.head.finally(() => signal.removeEventListener('abort', onAbort))
    world.note(`${this.id} asks ${peer.id} for bytes: ${status}`)
    const checked = checkAnswer(status, headers, question)
    if ('refusedSize' in checked) return { ...checked, peer }
    const source = target.hasBlob ? undefined : target.downloads.latest
    const own = this.downloads.latest
    const first = checked.range?.first ?? 0
    if (source !== undefined && !source.hasPast(first))
      world.wrong(`${peer.id} serves from byte ${first}, and has none`)
    if (own !== undefined) world.feeding.delete(own)
    if (source !== undefined && own !== undefined && !this.#asksBeside) world.noteFeeding(own, source)
    return {
      ...checked,
      peer,
      send: (write) => wire.readAll(Number(headers.get('content-length')), checked.isArriving, write),
      discard: () => wire.tear(),
    }
  }
}

/** One answer over HTTP, from who writes it to who reads it. Holds one chunk. */
class Wire {
  readonly head: Promise<{ status: number; headers: Map<string, string> }>
  onTorn: () => void = () => {}
  /** Undefined: on the same node. */
  reader: SimulatedNode | undefined
  readonly #world: FlightWorld
  readonly #writer: SimulatedNode
  readonly #raw = new EventEmitter()
  readonly #head = Promise.withResolvers<{ status: number; headers: Map<string, string> }>()
  #chunk: { bytes: Uint8Array; taken: (error?: Error) => void } | undefined
  #hasEnded = false
  #torn: Error | undefined
  #changed = Promise.withResolvers<void>()

  constructor(world: FlightWorld, writer: SimulatedNode) {
    this.#world = world
    this.#writer = writer
    this.head = this.#head.promise
    this.head.catch(() => undefined)
    this.#raw.setMaxListeners(100)
  }

  answer(status: number, headers: Record<string, string | number>): void {
    const map = new Map(Object.entries(headers).map(([name, value]) => [name, String(value)]))
    this.#afterDelay(() => this.#head.resolve({ status, headers: map }))
  }

  /** As much of fastify's as is used. */
  reply(): FastifyReply {
    const raw = Object.assign(this.#raw, {
      writeHead: (status: number, headers: Record<string, string | number>) => this.answer(status, headers),
      flushHeaders: () => {},
      write: (bytes: Uint8Array, taken: (error?: Error) => void) => {
        if (this.#torn !== undefined) taken(this.#torn)
        else this.#afterDelay(() => this.#change(() => (this.#chunk = { bytes, taken })))
      },
      end: () => this.#end(),
      socket: { end: () => this.#end(), destroy: () => this.tear(), once: () => {} },
    })
    const headers: Record<string, string | number> = {}
    let status = 200
    const reply = {
      raw,
      hijack: () => {},
      code: (code: number) => ((status = code), reply),
      header: (name: string, value: string | number) => ((headers[name] = value), reply),
      type: () => reply,
      send: () => (this.answer(status, headers), this.#end()),
    }
    return reply as unknown as FastifyReply
  }

  tear(reason: Error = new PeerFailure('body', 'the connection broke')): void {
    if (this.#torn !== undefined) return
    this.#torn = reason
    this.#head.reject(reason)
    this.#chunk?.taken(reason)
    this.#change(() => (this.#chunk = undefined))
    this.#raw.emit('close')
    this.onTorn()
  }

  /** Until the writer ends. */
  async read(write: WriteChunk): Promise<void> {
    for (;;) {
      if (this.#torn !== undefined) throw this.#torn
      const chunk = this.#chunk
      if (chunk !== undefined) {
        await write(chunk.bytes)
        this.#chunk = undefined
        chunk.taken()
      } else if (this.#hasEnded) {
        return
      } else {
        await this.#changed.promise
      }
    }
  }

  /** As a peer's connection: all, or a PeerFailure. */
  async readAll(length: number, isArriving: boolean, write: WriteChunk): Promise<void> {
    const { clock } = this.#world
    let bytes = 0
    const stallMs = isArriving ? arrivingStallMs : stallTimeoutMs
    const stalled = () => this.tear(new PeerFailure('stall', 'nothing came'))
    let cancel = clock.after(stallMs, stalled)
    try {
      await this.read(async (chunk) => {
        cancel()
        await write(chunk)
        bytes += chunk.byteLength
        if (bytes < length) cancel = clock.after(stallMs, stalled)
      })
    } finally {
      cancel()
      this.tear()
    }
    if (bytes < length) throw new PeerFailure('body', 'it ended early')
  }

  #end(): void {
    this.#afterDelay(() => this.#change(() => (this.#hasEnded = true)))
  }

  #change(change: () => void): void {
    change()
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }

  /** In order; not while one of the two is unplugged. */
  #afterDelay(act: () => void): void {
    const isUp = this.#writer.network !== 'unplugged' && this.reader?.network !== 'unplugged'
    const isLocal = this.reader === undefined
    this.#world.clock.after(isLocal ? 0.1 : 1, () => {
      if (this.#torn !== undefined) return
      if (isUp || isLocal) act()
      else this.#afterDelay(act)
    })
  }
}

function settledOrAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason as Error)
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    void promise.then(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    })
  })
}

async function sleepUnlessAborted(clock: ManualClock, delayMs: number, signal: AbortSignal): Promise<void> {
  await clock.sleep(delayMs, signal)
  signal.throwIfAborted()
}
