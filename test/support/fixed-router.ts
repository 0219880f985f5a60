/** DOUBLE of the router, for tests of what happens once peers are found: it knows who has what. */
import type { Peer, Router } from '../../src/router/router.ts'

export class FixedRouter implements Router {
  readonly providers = new Map<string, Peer[]>()

  async *lookup(key: string): AsyncGenerator<Peer> {
    await Promise.resolve()
    yield* this.providers.get(key) ?? []
  }

  flightNodes(): Promise<[]> {
    return Promise.resolve([])
  }

  isPeerAt(): Promise<boolean> {
    return Promise.resolve(true)
  }

  advertise(): void {}

  withdraw(): void {}

  problem(): undefined {
    return undefined
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
