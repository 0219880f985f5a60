/** Limits concurrent requests for content: this node has a reserve, every other address a share. */
import { canonicalIp } from '../lib/address.ts'
import { streamsMax, streamsPerAddressMax, streamsReserved } from '../limits.ts'

export class BodyShares {
  readonly #isOwnNode: (remoteAddress: string | undefined) => boolean
  /** Requests of other addresses. */
  readonly #running = new Map<string, number>()
  #total = 0

  constructor(isOwnNode: (remoteAddress: string | undefined) => boolean) {
    this.#isOwnNode = isOwnNode
  }

  get total(): number {
    return this.#total
  }

  /** Returns the function that ends the request's share; undefined: there is none left for this client. */
  take(remoteAddress: string | undefined): (() => void) | undefined {
    if (this.#isOwnNode(remoteAddress)) {
      if (this.#total >= streamsMax) return undefined
      this.#total += 1
      return () => {
        this.#total -= 1
      }
    }
    const address = canonicalIp(remoteAddress ?? '')
    const running = this.#running.get(address) ?? 0
    if (this.#total >= streamsMax - streamsReserved || running >= streamsPerAddressMax) return undefined
    this.#total += 1
    this.#running.set(address, running + 1)
    return () => {
      this.#total -= 1
      const left = (this.#running.get(address) ?? 1) - 1
      if (left === 0) this.#running.delete(address)
      else this.#running.set(address, left)
    }
  }
}
