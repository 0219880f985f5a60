/**
 * Finds out which digests were delivered with wrong bytes. Blobs are passed on as they arrive, so only containerd notices, and
 * it does not report it: it fails the pull and discards the blob. Two signs remain: containerd requests the blob again from its
 * first byte (a pull that broke off is resumed at its last byte), or a blob that was delivered whole is not in the store some
 * time later. All peers that sent bytes of it count, whatever their headers say.
 */
import { inBackground } from '../lib/background.ts'
import { BoundedMap } from '../lib/bounded-map.ts'
import type { Clock } from '../lib/clock.ts'
import { expecting } from '../lib/errors.ts'
import {
  deliveriesRememberedMax,
  deliveryCheckMs,
  deliveryCommitMs,
  deliveryRangesMax,
  slowDiskBytesPerSecond,
} from '../limits.ts'
import type { Digest } from '../oci/digest.ts'
import type { ByteRange } from '../oci/range.ts'
import type { Peer } from '../router/router.ts'
import { type ContentStore, isContentNotFound } from '../store/store.ts'

export interface Deliverer {
  peer: Peer
  /** The peer reported that it was still receiving the blob itself. */
  isRelay: boolean
}

interface Delivery {
  sinceMs: number
  size: number
  /** By id. */
  deliverers: Map<string, Deliverer>
  /** What was delivered: disjoint, in order. */
  ranges: ByteRange[]
  /** Requests that are being answered. */
  running: number
  /** When all of it was delivered for the first time. */
  wholeMs: number | undefined
  cancelCheck: (() => void) | undefined
}

export interface DeliveriesComponents {
  clock: Clock
  store: Pick<ContentStore, 'wasStoredSince' | 'open'>
  /** containerd has neither accepted nor given up what it was given, as far as can be seen. */
  isDownloading: (digest: Digest) => boolean
  onWrong: (digest: Digest, deliverers: readonly Deliverer[]) => void
}

export class Deliveries {
  readonly #components: DeliveriesComponents
  readonly #deliveries = new BoundedMap<Digest, Delivery>(deliveriesRememberedMax)

  constructor(components: DeliveriesComponents) {
    this.#components = components
  }

  /** containerd requests the blob, which is not in the store. */
  noteRequest(digest: Digest, firstByte: number): void {
    const delivery = this.#deliveries.get(digest)
    const isAgain = delivery?.ranges[0]?.first === 0
    if (delivery !== undefined && firstByte === 0 && delivery.running === 0 && isAgain) this.#judge(digest, delivery)
  }

  /** An answer begins. Call the returned function at its end with what each peer gave. */
  begin(digest: Digest, size: number): (given: readonly (ByteRange & Deliverer)[]) => void {
    const delivery = this.#deliveries.get(digest) ?? {
      sinceMs: this.#components.clock.nowMs(),
      size,
      deliverers: new Map(),
      ranges: [],
      running: 0,
      wholeMs: undefined,
      cancelCheck: undefined,
    }
    delivery.running += 1
    this.#deliveries.set(digest, delivery)
    return (given) => {
      delivery.running -= 1
      for (const { peer, isRelay, first, last } of given) {
        const isOnlyRelay = isRelay && delivery.deliverers.get(peer.id)?.isRelay !== false
        delivery.deliverers.set(peer.id, { peer, isRelay: isOnlyRelay })
        delivery.ranges = merged([...delivery.ranges, { first, last }])
      }
      delivery.ranges = delivery.ranges.slice(0, deliveryRangesMax)
      if (isWhole(delivery)) this.#checkLater(digest, delivery)
    }
  }

  #checkLater(digest: Digest, delivery: Delivery): void {
    const { clock, isDownloading } = this.#components
    const wholeMs = (delivery.wholeMs ??= clock.nowMs())
    delivery.cancelCheck?.()
    delivery.cancelCheck = clock.after(deliveryCheckMs, () => {
      if (this.#deliveries.get(digest) !== delivery) return
      const isCommitting = clock.nowMs() - wholeMs < commitMs(delivery) && isDownloading(digest)
      if (delivery.running > 0 || isCommitting) this.#checkLater(digest, delivery)
      else void inBackground('delivery_check', () => this.#judgeLate(digest, delivery))
    })
  }

  /** The store may have it without having told: it is asked before anybody is blamed. */
  async #judgeLate(digest: Digest, delivery: Delivery): Promise<void> {
    const content = await this.#components.store.open(digest).catch(expecting(isContentNotFound, undefined))
    await content?.close()
    if (content === undefined) this.#judge(digest, delivery)
    else this.#deliveries.delete(digest)
  }

  #judge(digest: Digest, delivery: Delivery): void {
    delivery.cancelCheck?.()
    this.#deliveries.delete(digest)
    const wasStored = this.#components.store.wasStoredSince(digest, delivery.sinceMs)
    // Without all of the bytes, the wrong ones may have come from elsewhere.
    const deliverers = isWhole(delivery) ? [...delivery.deliverers.values()] : []
    if (!wasStored) this.#components.onWrong(digest, deliverers)
  }
}

/** What containerd did not accept stays a download until its collector comes: a small one is not waited for so long. */
function commitMs({ size }: Delivery): number {
  return Math.min(deliveryCommitMs, deliveryCheckMs + (1000 * size) / slowDiskBytesPerSecond)
}

function isWhole({ ranges, size }: Delivery): boolean {
  const [only, further] = ranges
  return only !== undefined && further === undefined && only.first === 0 && only.last === size - 1
}

function merged(ranges: readonly ByteRange[]): ByteRange[] {
  const result: ByteRange[] = []
  for (const range of [...ranges].sort((a, b) => a.first - b.first)) {
    const before = result.at(-1)
    if (before !== undefined && range.first <= before.last + 1) before.last = Math.max(before.last, range.last)
    else result.push({ ...range })
  }
  return result
}
