/**
 * A small world around one flight: nodes that are told what to do by its decisions, and do it instantly or never. Checks
 * after each event what must always hold. Stands for Coordinator and FlightSource where all sequences are to be tried.
 */
import { Flight, type ImageRole } from '../../src/flights/flight.ts'
import { flightFailedSourceMs, flightLeasesMax, flightSlotsMax } from '../../src/limits.ts'

const verbs = [
  'ask',
  'progress',
  'complete',
  'fail',
  'beginAnew',
  'leave',
  'loseSource',
  'stall',
  'crowd',
  'die',
  'forget',
] as const
export type Event =
  | { verb: (typeof verbs)[number]; node: number }
  | { verb: 'pass' | 'passToNext' | 'askLeaders'; node: -1 }

interface Node {
  /** What it really has; the flight may believe more or less. */
  haveBytes: number
  phase: 'idle' | 'waiting' | 'leading' | 'following' | 'complete' | 'dead'
  source: number | undefined
  /** Counts its transfers: a stream belongs to one. */
  transfer: number
  /** That it is fed from. */
  sourceTransfer: number
  lostUntilMs: Map<number, number>
}

/** What a node is in the image, if leases are answered by 404. */
export type Roles = (node: number) => ImageRole | undefined

export class FlightModel {
  readonly flight: Flight
  readonly nodes: Node[]
  leases = 0
  #nowMs = 1_000
  readonly #sizeBytes: number
  readonly #roles: Roles

  constructor(nodeCount: number, sizeBytes: number, roles: Roles = () => undefined) {
    this.#roles = roles
    this.flight = new Flight(this.#nowMs)
    this.#sizeBytes = sizeBytes
    this.nodes = Array.from({ length: nodeCount }, () => ({
      haveBytes: 0,
      phase: 'idle',
      source: undefined,
      transfer: 0,
      sourceTransfer: 0,
      lostUntilMs: new Map(),
    }))
  }

  /** What may happen now. */
  possible(): Event[] {
    const events: Event[] = [
      { verb: 'pass', node: -1 },
      { verb: 'passToNext', node: -1 },
    ]
    if (this.flight.quietLeaders(this.#nowMs).length > 0) events.push({ verb: 'askLeaders', node: -1 })
    for (const [node, { phase, haveBytes }] of this.nodes.entries()) {
      const add = (verb: (typeof verbs)[number]) => events.push({ verb, node })
      if (phase === 'dead') continue
      add('die')
      if (phase === 'complete') {
        add('forget')
        continue
      }
      add('ask')
      if (phase === 'idle') continue
      add('leave')
      if (phase === 'waiting') continue
      add('fail')
      add('beginAnew')
      if (phase === 'following') for (const verb of ['loseSource', 'stall'] as const) add(verb)
      if (this.#fellowsOf(node).length > 1) add('crowd')
      const limitBytes = this.#mayHaveBytes(node)
      if (limitBytes > haveBytes) add('progress')
      if (limitBytes === this.#sizeBytes) add('complete')
    }
    return events
  }

  play(event: Event): void {
    if (event.verb === 'pass') this.#nowMs += 3_000
    else if (event.verb === 'passToNext') this.#nowMs = this.flight.nextMs(this.#nowMs) ?? this.#nowMs + 60_000
    else if (event.verb === 'askLeaders') this.#askLeaders()
    else this.#act(event.verb, event.node)
    this.decide()
  }

  /** Whether they are there. */
  #askLeaders(): void {
    for (const id of this.flight.quietLeaders(this.#nowMs)) {
      if (this.nodes[Number(id)]?.phase === 'dead') this.flight.vanished(id, this.#nowMs)
      else this.flight.heard(id, this.#nowMs)
    }
  }

  #act(verb: (typeof verbs)[number], index: number): void {
    const { flight, nodes } = this
    const node = nodes[index]
    if (node === undefined) return
    const [id, nowMs, size] = [String(index), this.#nowMs, this.#sizeBytes]
    if (verb === 'ask') {
      this.#ask(index)
    } else if (verb === 'progress') {
      node.haveBytes = Math.min(this.#mayHaveBytes(index), node.haveBytes + Math.ceil(size / 3))
      flight.progress(id, node.haveBytes, size, 0.25, nowMs)
    } else if (verb === 'complete') {
      Object.assign(node, { phase: 'complete', haveBytes: size, source: undefined })
      flight.complete(id, size, nowMs)
    } else if (verb === 'fail' || verb === 'leave') {
      Object.assign(node, { phase: 'idle', haveBytes: 0, source: undefined, transfer: node.transfer + 1 })
      // The flight forgets the node with all it said.
      node.lostUntilMs.clear()
      if (verb === 'fail') flight.failed(id, nowMs)
      else flight.leave(id, nowMs)
    } else if (verb === 'beginAnew') {
      node.haveBytes = 0
      node.transfer += 1
      this.#ask(index)
    } else if (verb === 'loseSource') {
      this.#loseSource(index)
    } else if (verb === 'stall') {
      const relief = flight.stalled(id, String(node.source), node.haveBytes, nowMs)
      if (relief?.kind === 'move') this.#follow(index, relief.source)
    } else if (verb === 'crowd') {
      for (const [fellow, { haveBytes }] of this.#fellowsOf(index)) {
        flight.progress(String(fellow), haveBytes, size, 1, nowMs)
      }
      const relief = flight.crowded(id, String(node.source), node.haveBytes, nowMs)
      if (relief?.kind === 'move') this.#follow(index, relief.source)
    } else {
      // 'die' and 'forget': nobody is told.
      const phase = verb === 'die' ? 'dead' : 'idle'
      // Its connection breaks, or its question's time is over.
      if (verb === 'die') flight.pause(id)
      Object.assign(node, { phase, haveBytes: 0, source: undefined, transfer: node.transfer + 1 })
    }
  }

  /** Whom its source feeds, itself included. */
  #fellowsOf(index: number): [number, Node][] {
    const source = this.nodes[index]?.source
    return [...this.nodes.entries()].filter((entry) => source !== undefined && entry[1].source === source)
  }

  /** As far as it can get now. */
  #mayHaveBytes(index: number): number {
    const node = this.nodes[index]
    if (node?.phase === 'leading') return this.#sizeBytes
    const from = node?.source === undefined ? undefined : this.nodes[node.source]
    return from === undefined || from.transfer !== node?.sourceTransfer ? 0 : from.haveBytes
  }

  #ask(index: number): void {
    const node = this.nodes[index]
    if (node === undefined) return
    Object.assign(node, { phase: 'waiting', source: undefined })
    this.flight.join(String(index), node.haveBytes, this.#sizeBytes, this.#nowMs, this.#roles(index))
  }

  #loseSource(index: number): void {
    const node = this.nodes[index]
    if (node?.source === undefined) return
    // Of who is gone nothing is kept: if it comes back, it is with another transfer.
    if (this.flight.describe(String(node.source)) !== undefined)
      node.lostUntilMs.set(node.source, this.#nowMs + flightFailedSourceMs)
    this.flight.sourceFailed(String(index), String(node.source), this.#nowMs)
    this.#ask(index)
  }

  #follow(index: number, sourceId: string): void {
    const node = this.nodes[index]
    const [me, source] = [this.flight.describe(String(index)), this.flight.describe(sourceId)]
    if (node === undefined || me === undefined || source === undefined) throw new Error('a decision about nobody')
    if (source.haveBytes <= me.haveBytes) {
      throw new Error(`${index}, which has ${me.haveBytes}, from ${sourceId}, which has ${source.haveBytes}`)
    }
    if ((node.lostUntilMs.get(Number(sourceId)) ?? 0) > this.#nowMs) {
      throw new Error(`${index} gets ${sourceId}, which just failed`)
    }
    const from = this.nodes[Number(sourceId)]
    // Who really has no more answers 404.
    const sourceTransfer = from !== undefined && from.haveBytes > node.haveBytes ? from.transfer : -1
    Object.assign(node, { phase: 'following', source: Number(sourceId), sourceTransfer })
  }

  decide(): number {
    const ledBefore = this.nodes.map((_node, index) => this.flight.describe(String(index))?.leads === true)
    const decisions = this.flight.decide(this.#nowMs)
    const isNew = decisions.some(({ kind, to }) => kind === 'lease' && ledBefore[Number(to)] === false)
    for (const decision of decisions) {
      const node = this.nodes[Number(decision.to)]
      if (node?.phase === 'dead') continue
      if (decision.kind === 'lease' && isNew) this.#checkPreferred(Number(decision.to))
      if (decision.kind === 'source') {
        this.#follow(Number(decision.to), decision.source)
      } else if (node !== undefined) {
        Object.assign(node, { phase: 'leading', source: undefined })
        this.leases += 1
      }
    }
    this.#check()
    return decisions.length
  }

  /** Who leads the image is not passed over for one that is as far and yields to it. */
  #checkPreferred(to: number): void {
    const isPassedOver = ({ phase, haveBytes }: Node, index: number) =>
      phase === 'waiting' && haveBytes === this.nodes[to]?.haveBytes && this.#roles(index)?.kind === 'leads'
    if (this.#roles(to)?.kind === 'yields' && this.nodes.some(isPassedOver)) throw new Error(`${to} was preferred`)
  }

  #check(): void {
    const { flight, nodes } = this
    const known = nodes.map((_node, index) => flight.describe(String(index)))
    for (const start of nodes.keys()) {
      let [at, steps] = [String(start), 0]
      for (let next = known[start]?.source; next !== undefined; next = known[Number(at)]?.source) {
        at = next
        if (++steps > nodes.length) throw new Error(`a cycle from ${start}`)
      }
    }
    const leaders = known.filter((member) => member?.leads === true).length
    if (leaders > flightLeasesMax) throw new Error(`${leaders} leases`)
    if (flight.memberCount > nodes.length || flight.waiterCount > nodes.length) throw new Error('more than there are')
    for (const index of nodes.keys()) {
      const followers = known.filter((member) => member?.source === String(index)).length
      // Those of which nothing is heard count no more.
      if (followers > flightSlotsMax && nodes.length <= flightSlotsMax) throw new Error(`${followers} followers`)
    }
  }

  /** What `nextMs` says is true: nothing is decided earlier, and where it names no moment, nothing ever. */
  checkNext(): void {
    for (let turn = 0; turn < 20; turn++) {
      const nextMs = this.flight.nextMs(this.#nowMs)
      this.#nowMs = nextMs === undefined ? this.#nowMs + 3_600_000 : nextMs - 1
      if (this.flight.decide(this.#nowMs).length > 0)
        throw new Error(`decided ${nextMs === undefined ? 'at last' : 'early'}`)
      if (nextMs === undefined) return
      this.#nowMs = nextMs
      if (this.decide() > 0) return
    }
    throw new Error('moments without end')
  }

  /** From now on nothing breaks: all that live and asked get the blob. How long it took. */
  finish(limitMs: number): number {
    const startMs = this.#nowMs
    const wants = this.nodes.filter(({ phase }) => phase !== 'dead' && phase !== 'idle')
    while (wants.some(({ phase }) => phase !== 'complete')) {
      if (this.#nowMs - startMs > limitMs) throw new Error(`not done in ${limitMs} ms: ${JSON.stringify(this.nodes)}`)
      this.#nowMs += 1_000
      for (const [index, node] of this.nodes.entries()) this.#goOn(index, node)
    }
    return this.#nowMs - startMs
  }

  #goOn(index: number, { phase, haveBytes, source, sourceTransfer }: Node): void {
    const from = source === undefined ? undefined : this.nodes[source]
    if (phase === 'waiting') {
      this.play({ verb: 'ask', node: index })
    } else if (phase === 'leading') {
      this.play({ verb: haveBytes < this.#sizeBytes ? 'progress' : 'complete', node: index })
    } else if (phase === 'following' && from !== undefined) {
      const isBroken = from.transfer !== sourceTransfer || !['leading', 'following', 'complete'].includes(from.phase)
      if (this.#mayHaveBytes(index) > haveBytes) this.play({ verb: 'progress', node: index })
      else if (haveBytes === this.#sizeBytes) this.play({ verb: 'complete', node: index })
      else if (isBroken) this.play({ verb: 'loseSource', node: index })
    }
  }
}
