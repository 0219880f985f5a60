/**
 * The router of a daemon, which replaces its identity when another running node has the same one. Only the swarm notices:
 * transfers go on, and lookups find no peer while the router restarts.
 */
import { inBackground } from '../lib/background.ts'
import { pause } from '../lib/clock.ts'
import { UserError, errorMessage } from '../lib/errors.ts'
import { cloneWarningMs, identityReplaceDelayMs, identityReplaceIntervalMs, routerRestartMs } from '../limits.ts'
import { identityReplacedAgoMs, replaceIdentity } from './identity.ts'
import { KadRouter, type KadRouterComponents, type KadRouterConfig } from './kad-router.ts'
import type { LookupDepth, Peer, Router } from './router.ts'

export class RenewableRouter implements Router {
  readonly #config: KadRouterConfig
  readonly #components: KadRouterComponents
  readonly #stop = new AbortController()
  #current: KadRouter
  #announcesFlights = false
  /** By the clock. */
  #replacedMs: number | undefined
  /** A replacement that is due or runs. */
  #replacing: Promise<void> | undefined
  /** Why the router does not run. */
  #problem: string | undefined
  /** Why the identity is kept although another node has it. */
  #warning: { text: string; untilMs: number } | undefined

  private constructor(config: KadRouterConfig, components: KadRouterComponents, first: KadRouter) {
    this.#config = config
    this.#components = components
    this.#current = first
  }

  static async start(config: KadRouterConfig, components: KadRouterComponents): Promise<RenewableRouter> {
    const replacedAgoMs = config.dataDir === undefined ? undefined : await identityReplacedAgoMs(config.dataDir)
    // A report may come before there is a router to replace: another one follows.
    const started: { router?: RenewableRouter } = {}
    const withClones = { ...components, onClone: () => started.router?.onClone() }
    const router = new RenewableRouter(config, withClones, await KadRouter.start(config, withClones))
    started.router = router
    if (replacedAgoMs !== undefined) router.#replacedMs = components.clock.nowMs() - replacedAgoMs
    return router
  }

  /** Changes when the identity is replaced. */
  get id(): string {
    return this.#current.id
  }

  get addresses(): readonly string[] {
    return this.#current.addresses
  }

  get ips(): readonly string[] {
    return this.#current.ips
  }

  stats(): ReturnType<KadRouter['stats']> {
    return this.#current.stats()
  }

  async announceFlights(): Promise<void> {
    this.#announcesFlights = true
    await this.#current.announceFlights()
  }

  lookup(key: string, signal: AbortSignal, depth?: LookupDepth): AsyncIterable<Peer> {
    return this.#current.lookup(key, signal, depth)
  }

  isOurs(peerId: string): boolean {
    return this.#current.isOurs(peerId)
  }

  flightNodes(key: string, count: number): Promise<Peer[]> {
    return this.#current.flightNodes(key, count)
  }

  isPeerAt(id: string, ip: string): Promise<boolean> {
    return this.#current.isPeerAt(id, ip)
  }

  advertise(keys: readonly string[]): void {
    this.#current.advertise(keys)
  }

  withdraw(keys: readonly string[]): void {
    this.#current.withdraw(keys)
  }

  problem(): string | undefined {
    return this.#problem ?? this.#current.problem()
  }

  /** For operators: what is wrong while the node serves. Not a reason to be unready, which would stop a rollout. */
  warnings(): string[] {
    const { clock } = this.#components
    return this.#warning !== undefined && this.#warning.untilMs > clock.nowMs() ? [this.#warning.text] : []
  }

  /** The daemon begins to stop: it keeps its identity, and the process that follows is no clone of it. */
  retire(): void {
    this.#stop.abort()
    this.#current.retire()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#replacing
    await this.#current.close()
  }

  /** It is proven that another running process has this node's identity. */
  onClone(): void {
    const { metrics, clock } = this.#components
    metrics.identityClones.inc()
    if (this.#replacing !== undefined || this.#stop.signal.aborted) return
    const sinceMs = this.#replacedMs === undefined ? Infinity : clock.nowMs() - this.#replacedMs
    if (sinceMs < identityReplaceIntervalMs) {
      this.#keepIdentity(`it was replaced ${Math.round(sinceMs / 60_000)} minutes ago, and is at most once per hour`)
      return
    }
    this.#replacing = inBackground('identity', () => this.#replace()).finally(() => (this.#replacing = undefined))
  }

  #keepIdentity(reason: string): void {
    const { clock, logger } = this.#components
    const text = `router: another running node has the identity ${this.id}, which is kept: ${reason}`
    if (!this.warnings().includes(text)) {
      logger.error({ id: this.id, reason }, 'another running node has the same identity')
    }
    this.#warning = { text, untilMs: clock.nowMs() + cloneWarningMs }
  }

  async #replace(): Promise<void> {
    const { clock, logger } = this.#components
    const { dataDir } = this.#config
    await pause(clock, identityReplaceDelayMs, this.#stop.signal)
    if (this.#stop.signal.aborted) return
    try {
      if (dataDir !== undefined) await replaceIdentity(dataDir)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      this.#keepIdentity(error.message)
      return
    }
    this.#replacedMs = clock.nowMs()
    const old = this.#current
    // Only one of them can listen.
    await old.close()
    const started = await this.#startAgain()
    if (started === undefined) return
    this.#current = started
    if (this.#stop.signal.aborted) started.retire()
    if (this.#announcesFlights) await started.announceFlights()
    // Keys added and removed during the restart went to the old router.
    started.advertise(old.advertisedKeys)
    this.#problem = undefined
    this.#warning = undefined
    logger.warn(
      { oldId: old.id, newId: started.id },
      'identity replaced: another running node had the same one, copied with its data directory',
    )
  }

  /** Undefined: the daemon stops. */
  async #startAgain(): Promise<KadRouter | undefined> {
    const { clock, logger } = this.#components
    while (!this.#stop.signal.aborted) {
      try {
        return await KadRouter.start(this.#config, this.#components)
      } catch (error) {
        const text = `router: cannot start with its new identity: ${errorMessage(error)}`
        if (this.#problem !== text) logger.error({ error: errorMessage(error) }, 'router restart failed')
        this.#problem = text
        await pause(clock, routerRestartMs, this.#stop.signal)
      }
    }
    return undefined
  }
}
