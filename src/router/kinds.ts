/** Which nodes are of which kind: only ours hand their records to a node that joins, and some of them speak flights. */
import type { Libp2p } from '@libp2p/interface'
import { BoundedMap } from '../lib/bounded-map.ts'
import { addressBookEntriesMax } from '../limits.ts'

/** Begins the agent version that nodes of ours tell. */
export const ownAgent = 'spegel-ts/'

/** What nodes that take part in flights tell of themselves. */
export const flightsProtocol = '/spegel-ts/flights/1.0.0'

export class NodeKinds {
  readonly #others = new Set<string>()
  /** Also those that are not connected at the moment. */
  readonly #ownNodes = new BoundedMap<string, true>(addressBookEntriesMax)
  /** Also those that are not connected at the moment. */
  readonly #flightNodes = new BoundedMap<string, true>(addressBookEntriesMax)

  constructor(libp2p: Libp2p) {
    libp2p.addEventListener('peer:identify', ({ detail: { peerId, agentVersion, protocols } }) => {
      if (protocols.includes(flightsProtocol)) this.#flightNodes.set(peerId.toString(), true)
      else this.#flightNodes.delete(peerId.toString())
      if (agentVersion?.startsWith(ownAgent) === true) {
        this.#others.delete(peerId.toString())
        this.#ownNodes.set(peerId.toString(), true)
      } else {
        this.#others.add(peerId.toString())
        this.#ownNodes.delete(peerId.toString())
      }
    })
    // No more of them than connections.
    libp2p.addEventListener('peer:disconnect', ({ detail }) => this.#others.delete(detail.toString()))
  }

  speaksFlights(id: string): boolean {
    return this.#flightNodes.get(id) === true
  }

  /** True when the node identified itself as one of ours. */
  isOurs(id: string): boolean {
    return this.#ownNodes.get(id) === true
  }

  /** True when there is a node of another kind. */
  get mixed(): boolean {
    return this.#others.size > 0
  }
}
