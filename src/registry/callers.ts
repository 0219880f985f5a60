/**
 * Which requests come from this node's containerd. Its User-Agent alone proves nothing: any client can send it, and could then
 * take the node's lease of a flight or end its downloads. The address counts. Only while no containerd has connected from an
 * address of this node, as on a network that hides it, the User-Agent is trusted from everywhere, and one log line reports it.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Logger } from '../logger.ts'
import { mirroredHeader } from '../peers/protocol.ts'

export interface Caller {
  /** Another mirror: answer from the store only. */
  isPeer: boolean
  isContainerd: boolean
}

export class Callers {
  readonly #isOwnNode: (remoteAddress: string | undefined) => boolean
  readonly #logger: Logger
  #hasSeenOwnContainerd = false
  #isLogged = false

  constructor(isOwnNode: (remoteAddress: string | undefined) => boolean, logger: Logger) {
    this.#isOwnNode = isOwnNode
    this.#logger = logger
  }

  judge({ headers, ip }: { headers: IncomingHttpHeaders; ip: string }): Caller {
    const isPeer = headers[mirroredHeader] === 'true'
    if (isPeer || !(headers['user-agent'] ?? '').startsWith('containerd/')) return { isPeer, isContainerd: false }
    if (this.#isOwnNode(ip)) this.#hasSeenOwnContainerd = true
    else if (this.#hasSeenOwnContainerd) return { isPeer, isContainerd: false }
    else this.#logOnce(ip)
    return { isPeer, isContainerd: true }
  }

  #logOnce(ip: string): void {
    if (this.#isLogged) return
    this.#isLogged = true
    this.#logger.warn(
      { address: ip },
      'a containerd connects from an address that is not known as this node: if it is this node, name it by --node-ip',
    )
  }
}
