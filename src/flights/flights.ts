/** This node's part in flights: what it asks, what it tells of its own downloads, and what it coordinates for others. */
import { inBackground } from '../lib/background.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { expecting } from '../lib/errors.ts'
import {
  aheadBytes,
  flightImageMs,
  flightImagesMax,
  flightLoadMs,
  flightParticipationsMax,
  flightReportBytesMin,
  flightReportMs,
  flightReportParts,
  flightResumeHoldMs,
  flightTreeBytes,
} from '../limits.ts'
import type { Logger } from '../logger.ts'
import type { Metrics } from '../metrics.ts'
import type { ContentRequest } from '../oci/content-request.ts'
import type { Digest } from '../oci/digest.ts'
import type { PeerClient } from '../peers/client.ts'
import type { Router } from '../router/router.ts'
import type { WriteChunk } from '../store/store.ts'
import type { Transfer, TransferEvent, Transfers } from '../store/transfers.ts'
import { isAlive } from './alive.ts'
import { Coordinator } from './coordinator.ts'
import { Coordinators } from './coordinators.ts'
import type { ImageRole, NodeLoad } from './flight.ts'
import { FlightSource } from './flight-source.ts'
import { type Answer, type FlightNode, type Join, type Message, parseMessage } from './protocol.ts'

export interface FlightsComponents {
  router: Pick<Router, 'flightNodes' | 'isPeerAt'>
  client: Pick<PeerClient, 'open' | 'post'>
  transfers: Transfers
  isStored: (digest: Digest) => boolean
  /** Bodies that are being sent to peers. */
  feeds: () => number
  self: FlightNode
  clock: Clock
  metrics: Metrics
  logger: Logger
}

/** In one blob. */
interface Participation {
  startedMs: number
  role: 'waiting' | 'leading' | 'following'
  reportedBytes: number
  reportedMs: number
  busy: number | undefined
  /** Our containerd fetches it in parts, side by side. */
  inParts: boolean
  /** It was sent upstream already. */
  sentUpstream: boolean
  /** It was just kept from going there. */
  wasHeld: boolean
  /** Of its image, where leases are answered by 404. */
  image: ImagePart | undefined
}

/** In the blobs of one repository, where leases are answered by 404. */
interface ImagePart {
  /** Undefined: it was fed by others only. */
  leadsSinceMs: number | undefined
  /** When it was given bytes or a lease, or had a blob, the last time. */
  usedMs: number
}

export class Flights {
  readonly #components: FlightsComponents
  readonly #own: Coordinator
  readonly #coordinators: Coordinators
  readonly #participations = new BoundedMap<Digest, Participation>(flightParticipationsMax)
  /** By registry and repository. */
  readonly #images = new BoundedMap<string, ImagePart>(flightImagesMax)
  /**
   * Large blobs that our containerd downloads, and when they grew: we may be a source of each, and they share our link. As
   * many as downloads are followed (`ingestsMax`).
   */
  readonly #largeGrewMs = new Map<Digest, number>()
  readonly #unwatch: () => void
  readonly #closed = new AbortController()

  constructor(components: FlightsComponents) {
    const { router, client, self, clock, transfers, isStored, metrics, logger } = components
    this.#components = components
    this.#own = new Coordinator({
      clock,
      self,
      isStored,
      isAlive: (node, digest) =>
        isAlive({ client, clock }, node, digest, this.#closed.signal).catch(
          expecting((error) => error === this.#closed.signal.reason, true),
        ),
      onLease: (digest, node, further) => {
        metrics.flightLeases.inc({ kind: further ? 'further' : 'first' })
        logger.debug({ key: digest, node, further }, 'lease')
      },
    })
    this.#coordinators = new Coordinators({ router, client, own: this.#own, self, clock })
    this.#unwatch = transfers.watch((event) => this.#onTransfer(event))
  }

  /** From now on others are told how far our download of it is. */
  takePart(digest: Digest, role: Participation['role']): void {
    if (this.#participations.get(digest) !== undefined) return
    this.#participations.set(digest, {
      startedMs: this.#components.clock.nowMs(),
      role,
      reportedBytes: 0,
      reportedMs: 0,
      busy: undefined,
      inParts: false,
      sentUpstream: false,
      wasHeld: false,
      image: undefined,
    })
  }

  /** Writes to our containerd, from `first` on; whoever is fed from here need not wait until that has written it to disk. */
  passOn(digest: Digest, first: number, write: WriteChunk): WriteChunk {
    const { transfers } = this.#components
    let position = first
    let transfer: Transfer | undefined
    return async (chunk) => {
      await write(chunk)
      if (transfer?.state !== 'running') transfer = transfers.find(digest)
      // Not before: nobody may have more of it than we say that we have, or two nodes could feed each other.
      transfer?.noteAhead(position, chunk)
      position += chunk.byteLength
    }
  }

  /** containerd has left before it had all. */
  noteClientGone(digest: Digest): void {
    this.#components.transfers.find(digest)?.loseAhead()
  }

  /** For a request of our own containerd. `by404`: so a lease will be answered. `holder`: one that is busy. */
  follow(
    request: ContentRequest,
    digest: Digest,
    by404: boolean,
    isWrong: (peer: FlightNode) => boolean,
    holder: Join['holder'],
  ): FlightSource {
    const { client, clock, logger, metrics, self, transfers } = this.#components
    const imageKey = `${request.registry}/${request.repository}`
    this.takePart(digest, 'waiting')
    return new FlightSource(request, {
      client,
      clock,
      logger,
      isWrong,
      holder,
      join: async (question, signal) => {
        const transfer = transfers.find(digest)
        const image = by404 ? this.#imageRole(imageKey) : undefined
        const join = { node: self, size: transfer?.size, load: this.#load(digest), image, ...question }
        if (question.isSlow && transfer !== undefined) {
          // Our own disk is what keeps it.
          if (question.haveBytes - transfer.haveBytes > aheadBytes) return { kind: 'wait' }
          // What it can give to others is less than what it has got, and more than it told last.
          this.#report(digest, 'progress', transfer.haveBytes, transfer.size)
        }
        const answer = await this.#coordinators.join(digest, join, signal)
        this.#noteAnswer(digest, answer, by404 ? imageKey : undefined)
        return answer
      },
      onBusy: (busy) => this.#onBusy(digest, busy),
      onMoved: (kind) => metrics.flightMoves.inc({ kind }),
      onFailed: (reason) => metrics.peerFailures.inc({ reason }),
    })
  }

  /** By our own containerd. */
  isDownloading(digest: Digest): boolean {
    return this.#components.transfers.isRunning(digest)
  }

  /** Bytes of a blob that our containerd downloads; undefined: it does not say. */
  sizeOf(digest: Digest): number | undefined {
    const transfer = this.#components.transfers.find(digest)
    return transfer?.state === 'running' ? transfer.size : undefined
  }

  /**
   * How long to wait before our containerd is sent upstream, and whether it may wait for an upstream that refuses. It comes
   * back in mid-blob when upstream broke off, and fails its pull when it is refused there: tried with a registry that was
   * away for 2.5 s, waiting saves it. Once: where it goes through a proxy, our own connections may be refused for ever.
   */
  sendUpstream(
    digest: Digest,
    asked: { first: number } | undefined,
    isAfterFailure: boolean,
  ): { holdMs: number; mayWait: boolean } {
    const participation = this.#participations.get(digest)
    if (participation === undefined) return { holdMs: 0, mayWait: false }
    if (asked?.first === 0) participation.inParts = true
    const isMidBlob = asked !== undefined && asked.first > 0 && !participation.inParts
    const { wasHeld } = participation
    const isResume = participation.sentUpstream && isMidBlob && !wasHeld
    participation.sentUpstream = true
    participation.wasHeld = false
    return { holdMs: isResume ? flightResumeHoldMs : 0, mayWait: (isMidBlob || isAfterFailure) && !wasHeld }
  }

  /** It was held back with headers, and asks again. */
  noteHeld(digest: Digest): void {
    const participation = this.#participations.get(digest)
    if (participation !== undefined) participation.wasHeld = true
  }

  /** The client has left, or goes upstream without a lease. */
  leave(digest: Digest): void {
    const participation = this.#participations.get(digest)
    if (participation === undefined || participation.role === 'leading') return
    this.#participations.delete(digest)
    this.#report(digest, 'left', 0, undefined)
  }

  /**
   * Handles a message that another node sent from this IP address. Undefined: the message is malformed, or its node has not proven
   * that it is at this address. Followers are sent only to addresses that the node has proven, so the others are dropped.
   */
  async answer(url: string, senderIp: string, signal: AbortSignal): Promise<Answer | undefined> {
    const message = await this.#proven(parseMessage(url), senderIp)
    if (message === undefined) return undefined
    if (message.kind === 'alive') {
      this.#findOwnDownload(message.digest)
      return this.#takesPart(message.digest) ? { kind: 'wait' } : { kind: 'gone' }
    }
    this.#coordinators.noteHeard(message.kind === 'join' ? message.join.node : message.report.node)
    if (message.kind === 'join') return this.#own.join(message.digest, message.join, signal)
    this.#own.report(message.digest, message.report)
    return { kind: 'wait' }
  }

  /** The message with proven addresses only. Undefined: the sender is not the node that the message names. */
  async #proven(message: Message | undefined, senderIp: string): Promise<Message | undefined> {
    if (message === undefined || message.kind === 'alive') return message
    const claimed = message.kind === 'join' ? message.join.node : message.report.node
    if (!(await this.#components.router.isPeerAt(claimed.id, senderIp))) return undefined
    const node = await this.#provenNode(claimed)
    if (node === undefined) return undefined
    if (message.kind === 'report') return { ...message, report: { ...message.report, node } }
    const { holder } = message.join
    const holderNode = holder === undefined ? undefined : await this.#provenNode(holder.node)
    const proven = holder === undefined || holderNode === undefined ? undefined : { ...holder, node: holderNode }
    return { ...message, join: { ...message.join, node, holder: proven } }
  }

  /** Undefined: none of its addresses is proven. */
  async #provenNode({ id, addresses }: FlightNode): Promise<FlightNode | undefined> {
    const { router } = this.#components
    const areProven = await Promise.all(addresses.map((address) => router.isPeerAt(id, address)))
    const proven = addresses.filter((_address, index) => areProven[index] === true)
    return proven.length === 0 ? undefined : { id, addresses: proven }
  }

  /** For metrics. */
  stats(): { coordinated: number } {
    return { coordinated: this.#own.flightCount }
  }

  close(): void {
    this.#unwatch()
    this.#own.close()
    this.#closed.abort(new Error('flights are closed'))
  }

  #takesPart(digest: Digest): boolean {
    const { transfers, isStored } = this.#components
    // What was complete a moment ago need not be known to the store yet.
    const isComplete = transfers.find(digest)?.state === 'complete'
    return this.#participations.get(digest) !== undefined || isComplete || isStored(digest)
  }

  /** A mirror that was started anew knows nothing of a download that its containerd began before: from now on it tells. */
  #findOwnDownload(digest: Digest): void {
    const transfer = this.#components.transfers.find(digest)
    if (transfer?.state !== 'running' || this.#takesPart(digest)) return
    this.takePart(digest, 'leading')
    this.#report(digest, 'progress', transfer.haveBytes, transfer.size)
  }

  #imageRole(imageKey: string): ImageRole | undefined {
    const nowMs = this.#components.clock.nowMs()
    const part = this.#images.get(imageKey)
    if (part === undefined || nowMs - part.usedMs > flightImageMs) return undefined
    return part.leadsSinceMs === undefined ? { kind: 'yields' } : { kind: 'leads', forMs: nowMs - part.leadsSinceMs }
  }

  #noteImage(imageKey: string, answer: Answer): ImagePart | undefined {
    if (answer.kind !== 'lease' && answer.kind !== 'source') return undefined
    const nowMs = this.#components.clock.nowMs()
    const last = this.#images.get(imageKey)
    const part =
      last === undefined || nowMs - last.usedMs > flightImageMs ? { leadsSinceMs: undefined, usedMs: nowMs } : last
    part.usedMs = nowMs
    if (answer.kind === 'lease') part.leadsSinceMs ??= nowMs
    this.#images.set(imageKey, part)
    return part
  }

  /** `imageKey`: where a lease is answered by 404. */
  #noteAnswer(digest: Digest, answer: Answer | undefined, imageKey: string | undefined): void {
    const participation = this.#participations.get(digest)
    if (participation === undefined || answer === undefined) return
    if (imageKey !== undefined) participation.image = this.#noteImage(imageKey, answer) ?? participation.image
    if (answer.kind === 'lease') participation.role = 'leading'
    else if (answer.kind === 'source') {
      participation.role = 'following'
      // That was measured behind another one.
      participation.busy = undefined
    }
  }

  #load(digest: Digest): NodeLoad {
    const sinceMs = this.#components.clock.nowMs() - flightLoadMs
    // Layers that wait for their turn have begun too.
    const others = [...this.#largeGrewMs].filter(([other, grewMs]) => other !== digest && grewMs >= sinceMs)
    return { blobCount: others.length + 1, feeds: this.#components.feeds() }
  }

  #onTransfer({ digest, kind, haveBytes, size }: TransferEvent): void {
    if (kind === 'complete' || kind === 'failed') this.#largeGrewMs.delete(digest)
    else if (kind === 'grew' && size > flightTreeBytes) this.#largeGrewMs.set(digest, this.#components.clock.nowMs())
    const participation = this.#participations.get(digest)
    if (participation === undefined) return
    if (kind === 'grew') {
      const step = Math.max(flightReportBytesMin, size / flightReportParts)
      const nowMs = this.#components.clock.nowMs()
      const isFirst = participation.reportedBytes === 0
      const isDue = nowMs - participation.reportedMs >= flightReportMs
      if (!isFirst && !isDue && haveBytes - participation.reportedBytes < step) return
      participation.reportedBytes = haveBytes
      participation.reportedMs = nowMs
      this.#report(digest, 'progress', haveBytes, size)
    } else if (kind === 'complete' || kind === 'failed') {
      this.#participations.delete(digest)
      if (participation.image !== undefined) participation.image.usedMs = this.#components.clock.nowMs()
      this.#report(digest, kind, haveBytes, size)
      this.#tell(digest, participation, kind, size)
    }
  }

  #onBusy(digest: Digest, busy: number): void {
    const participation = this.#participations.get(digest)
    const transfer = this.#components.transfers.find(digest)
    if (participation === undefined || transfer === undefined) return
    // Of the small ones nobody measures.
    if (transfer.size <= flightTreeBytes) return
    participation.busy = busy
    this.#report(digest, 'progress', transfer.haveBytes, transfer.size)
  }

  #report(
    digest: Digest,
    kind: 'progress' | 'complete' | 'failed' | 'left',
    haveBytes: number,
    size: number | undefined,
  ): void {
    const { self: node } = this.#components
    const busy = this.#participations.get(digest)?.busy
    const report = { kind, node, haveBytes, size, load: this.#load(digest), busy }
    void inBackground('flight_report', () => this.#coordinators.report(digest, report))
  }

  #tell(digest: Digest, { role, startedMs }: Participation, outcome: 'complete' | 'failed', size: number): void {
    const { logger, clock, metrics } = this.#components
    metrics.flightEnds.inc({ role, outcome })
    logger.info({ key: digest, role, outcome, bytes: size, ms: Math.round(clock.nowMs() - startedMs) }, 'flight')
  }
}
