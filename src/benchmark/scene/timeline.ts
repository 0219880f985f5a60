/** Plays what happens beside the pulls of a phase: what upstream does, and what breaks. */
import type { Clock } from '../../lib/clock.ts'
import { errorMessage } from '../../lib/errors.ts'
import type { Random } from '../../lib/random.ts'
import type { Arrival } from './arrivals.ts'
import { Fault, type FaultyNode } from './faults.ts'
import type { FaultEntry, Scene, ScenePhaseName, UpstreamEntry } from './scene.ts'
import type { Moment } from './units.ts'

/** A step of containerd's is 1 MiB: 8 ms at 1 Gbit. */
const ingestPollMs = 20

export interface UpstreamControl {
  /** Resolves when the behaviour is in force, with how to end it. */
  begin(entry: UpstreamEntry): Promise<() => Promise<void>>
}

export interface TimelineInit {
  scene: Scene
  phase: ScenePhaseName
  plan: readonly Arrival[]
  /** The first layer of each of the scene's images, in their order. */
  firstLayers: readonly { digest: string; size: number }[]
  /** In order of their numbers. */
  nodes: readonly FaultyNode[]
  /** Needed by scenes in which upstream misbehaves. */
  upstream?: UpstreamControl | undefined
  clock: Clock
  random: Random
}

interface SceneEvent {
  /** Whole nanoseconds since the timeline began. */
  at: number
  what: string
}

interface SceneRecord {
  events: SceneEvent[]
  /** What was to happen, and did not before the end; with the reason. */
  missed: string[]
}

export interface Timeline {
  /**
   * Ends what still goes on and mends everything; only then it resolves, or rejects when something could not be
   * mended. Later calls get the same.
   */
  stop(): Promise<SceneRecord>
}

/** Resolves when all that is to be so from the begin is so: then the first pull may be called. */
export async function startTimeline(init: TimelineInit): Promise<Timeline> {
  const play = new Play(init)
  await play.begin()
  return play
}

class Play implements Timeline {
  readonly #init: TimelineInit
  readonly #over = new AbortController()
  readonly #events: SceneEvent[] = []
  readonly #missed: string[] = []
  readonly #errors: unknown[] = []
  readonly #acts: Promise<void>[] = []
  /** Not yet: what is so from the begin happened at 0. */
  #startMs = Infinity
  #stopped: Promise<SceneRecord> | undefined

  constructor(init: TimelineInit) {
    this.#init = init
  }

  async begin(): Promise<void> {
    const { scene, phase, upstream } = this.#init
    const acts: { at: Moment; run: (begun: () => void) => Promise<void> }[] = []
    for (const entry of scene.upstream.filter((each) => (each.phase ?? phase) === phase)) {
      if (upstream === undefined) throw new Error('the scene needs a scripted upstream')
      acts.push({ at: entry.at, run: (begun) => this.#misbehave(entry, upstream, begun) })
    }
    for (const entry of scene.faults.filter((each) => (each.phase ?? phase) === phase)) {
      // Chosen now: the order of events must not change what the seed gives.
      const candidates = this.#candidates(entry)
      // Who receives first is not known before anybody does.
      const at = entry.node === 'firstWithBytes' && 'ms' in entry.at ? { ms: Math.max(1, entry.at.ms) } : entry.at
      acts.push({ at, run: (begun) => this.#break(entry, at, candidates, begun) })
    }
    const isOpening = ({ at }: { at: Moment }) => 'ms' in at && at.ms === 0
    await Promise.all(
      acts.filter(isOpening).map(({ run }) => {
        const { promise, resolve } = Promise.withResolvers<void>()
        this.#acts.push(run(resolve).finally(resolve))
        return promise
      }),
    )
    this.#startMs = this.#init.clock.nowMs()
    for (const { run } of acts.filter((act) => !isOpening(act))) this.#acts.push(run(() => undefined))
  }

  stop(): Promise<SceneRecord> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<SceneRecord> {
    this.#over.abort()
    await Promise.all(this.#acts)
    if (this.#errors.length > 0) {
      throw new AggregateError(this.#errors, 'the scene could not be mended', { cause: this.#errors[0] })
    }
    return { events: this.#events, missed: this.#missed }
  }

  async #misbehave(entry: UpstreamEntry, upstream: UpstreamControl, begun: () => void): Promise<void> {
    const what = `upstream: ${describe(entry)}`
    if (!(await this.#reached(entry.at, this.#pulling()))) {
      this.#missed.push(`${what}: the pulls were over before`)
      return
    }
    try {
      const end = await upstream.begin(entry)
      this.#note(what)
      begun()
      await this.#passed(entry.for)
      await end()
      this.#note(`${what}: over`)
    } catch (error) {
      this.#errors.push(error)
    }
  }

  async #break(entry: FaultEntry, at: Moment, candidates: readonly number[], begun: () => void): Promise<void> {
    const struck = await this.#reached(at, this.#watched(candidates), entry.node === 'firstWithBytes')
    const number = candidates.length === 1 ? candidates[0] : struck
    const node = this.#init.nodes[(number ?? 0) - 1]
    if (struck === undefined || node === undefined) {
      this.#missed.push(`${entry.action} ${entry.what} (${entry.node}): the pulls were over before`)
      return
    }
    const fault = new Fault(entry, node)
    try {
      await fault.strike()
      this.#note(fault.broken)
      begun()
      await this.#passed(entry.for ?? (entry.action === 'restart' ? 0 : undefined))
    } catch (error) {
      this.#missed.push(`${fault.broken}: ${errorMessage(error)}`)
    }
    await fault.mend().then(
      () => this.#note(fault.mended),
      (error: unknown) => this.#errors.push(error),
    )
  }

  /** Numbers of nodes of which one will be struck. */
  #candidates({ node }: FaultEntry): number[] {
    if (typeof node === 'number') return [node]
    const pulling = this.#pulling()
    if (node === 'firstWithBytes') return pulling
    const chosen = pulling[Math.floor(this.#init.random() * pulling.length)]
    return chosen === undefined ? [] : [chosen]
  }

  #pulling(): number[] {
    return [...new Set(this.#init.plan.map(({ node }) => node))].sort((a, b) => a - b)
  }

  /** A node that does not pull receives nothing itself: any other's bytes tell how far things are. */
  #watched(candidates: readonly number[]): readonly number[] {
    const pulling = this.#pulling()
    return candidates.some((number) => pulling.includes(number)) ? candidates : pulling
  }

  /** The node that has reached it, or for a time any; undefined when the phase is over before. */
  async #reached(at: Moment, nodes: readonly number[], someBytes = false): Promise<number | undefined> {
    if ('ms' in at) {
      if (at.ms > 0 && !(await this.#slept(at.ms - (this.#init.clock.nowMs() - this.#startMs)))) return undefined
      if (!someBytes) return nodes[0] ?? 0
    }
    while (!this.#over.signal.aborted) {
      for (const number of nodes) if (await this.#hasPart(number, 'ms' in at ? 0 : at.fraction)) return number
      if (!(await this.#slept(ingestPollMs))) break
    }
    return undefined
  }

  async #hasPart(number: number, fraction: number): Promise<boolean> {
    const { plan, nodes, firstLayers } = this.#init
    const layers = plan.filter(({ node }) => node === number).map(({ image }) => firstLayers[image - 1])
    for (const layer of layers) {
      const bytes = layer === undefined ? 0 : ((await nodes[number - 1]?.ingestBytes(layer.digest)) ?? 0)
      if (layer !== undefined && bytes > 0 && bytes >= fraction * layer.size) return true
    }
    return false
  }

  /** Until the time is over, or the phase is; undefined: the latter. */
  async #passed(forMs: number | undefined): Promise<void> {
    if (forMs !== undefined) await this.#slept(forMs)
    else if (!this.#over.signal.aborted) {
      await new Promise<void>((resolve) => this.#over.signal.addEventListener('abort', () => resolve()))
    }
  }

  /** False: the phase was over before. */
  #slept(ms: number): Promise<boolean> {
    return this.#init.clock.sleep(Math.max(0, ms), this.#over.signal).then(
      () => true,
      () => false,
    )
  }

  #note(what: string): void {
    const sinceMs = Math.max(0, this.#init.clock.nowMs() - this.#startMs)
    this.#events.push({ at: Math.round(sinceMs * 1e6), what })
  }
}

function describe(entry: UpstreamEntry): string {
  return 'by' in entry ? `${entry.behaviour} (${entry.by})` : entry.behaviour
}
