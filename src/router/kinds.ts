/** Which connected nodes are of which kind: only ours hand their records to a node that joins. */
import type { Libp2p } from '@libp2p/interface'

/** Begins the agent version that nodes of ours tell. */
export const ownAgent = 'spegel-ts/'

export class NodeKinds {
  readonly #others = new Set<string>()

  constructor(libp2p: Libp2p) {
    libp2p.addEventListener('peer:identify', ({ detail: { peerId, agentVersion } }) => {
      if (agentVersion?.startsWith(ownAgent) === true) this.#others.delete(peerId.toString())
      else this.#others.add(peerId.toString())
    })
    // No more of them than connections.
    libp2p.addEventListener('peer:disconnect', ({ detail }) => this.#others.delete(detail.toString()))
  }

  /** True when there is a node of another kind. */
  get mixed(): boolean {
    return this.#others.size > 0
  }
}
