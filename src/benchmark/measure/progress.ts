/** How far a measurement is: one line that renews itself on a terminal, plain lines elsewhere. */
import { formatDuration } from '../../lib/duration.ts'
import type { Clock } from '../../lib/clock.ts'
import type { Phase, Round } from '../result/schema.ts'
import type { ImageSet, MirrorSpec } from '../target.ts'
import type { Turn } from './plan.ts'

interface Plan {
  images: readonly ImageSet[]
  mirrors: readonly MirrorSpec[]
  rounds: number
}

export class Progress {
  readonly #write: (text: string) => void
  readonly #isTerminal: boolean
  readonly #clock: Clock
  #plan: Plan = { images: [], mirrors: [], rounds: 0 }
  #doneTurns = 0
  #repeatedTurns = 0
  #turnStartedMs = 0
  /** By image and mirror: how long a turn takes. */
  readonly #turnMs = new Map<string, number>()

  constructor(write: (text: string) => void, isTerminal: boolean, clock: Clock) {
    this.#write = write
    this.#isTerminal = isTerminal
    this.#clock = clock
  }

  say(line: string): void {
    this.#write(`${this.#isTerminal ? clearLine : ''}${line}\n`)
  }

  start(before: readonly Round[], plan: Plan): void {
    this.#plan = plan
    this.#doneTurns = before.filter(({ counts, number }) => counts || number === 0).length
    this.#turnStartedMs = this.#clock.nowMs()
    if (this.#doneTurns > 0) this.say(`going on after ${this.#doneTurns} of ${this.#turnCount} turns`)
    this.#show()
  }

  turnDone(
    { round, images, mirror }: Turn,
    phases: Readonly<Record<string, Phase | undefined>>,
    noise: readonly string[],
  ): void {
    const nowMs = this.#clock.nowMs()
    this.#turnMs.set(`${images.name} ${mirror.name}`, nowMs - this.#turnStartedMs)
    this.#turnStartedMs = nowMs
    this.#doneTurns += 1
    const described = Object.entries(phases).map(([name, phase]) =>
      phase === undefined ? '' : describe(name, phase),
    )
    const note = noise.length > 0 ? ' (noisy)' : ''
    this.say(`round ${round === 0 ? 'warm-up' : round} ${images.name} ${mirror.name}: ${described.join(', ')}${note}`)
    this.#show()
  }

  repeat(turns: number, reason: string): void {
    this.#repeatedTurns += turns
    this.say(reason)
  }

  end(): void {
    if (this.#isTerminal) this.#write(clearLine)
  }

  /** Repeats are not foreseen. */
  #remainingMs(): number | undefined {
    if (this.#turnMs.size === 0) return undefined
    const known = [...this.#turnMs.values()]
    const meanMs = known.reduce((sum, value) => sum + value, 0) / known.length
    const perRound = this.#plan.images.flatMap(({ name }) =>
      this.#plan.mirrors.map((mirror) => this.#turnMs.get(`${name} ${mirror.name}`) ?? meanMs),
    )
    const meanTurnMs = perRound.reduce((sum, value) => sum + value, 0) / perRound.length
    return meanTurnMs * Math.max(0, this.#turnCount - this.#doneTurns)
  }

  get #turnCount(): number {
    const { rounds, images, mirrors } = this.#plan
    const turnsOfImage = mirrors.reduce((sum, mirror) => sum + Math.min(mirror.rounds ?? Infinity, rounds + 1), 0)
    return turnsOfImage * images.length + this.#repeatedTurns
  }

  #show(): void {
    const remainingMs = this.#remainingMs()
    const rest =
      remainingMs === undefined ? '' : `, about ${formatDuration(Math.ceil(remainingMs / 1000) * 1000)} left`
    const line = `${this.#doneTurns} of ${this.#turnCount} turns${rest}`
    if (this.#isTerminal) this.#write(`${clearLine}${line}`)
    else if (remainingMs !== undefined) this.#write(`  ${line}\n`)
  }
}

const clearLine = '\r\u001B[2K'

function describe(name: string, { pulls, upstream, imageBytes, rollout }: Phase): string {
  const good = pulls.filter(({ error }) => error === undefined)
  const failed = pulls.length - good.length
  const mean = good.reduce((sum, { duration }) => sum + duration, 0) / Math.max(1, good.length) / 1e9
  const sentBytes = upstream.linkBytes ?? upstream.blobBytes
  const copies =
    sentBytes === undefined || imageBytes === 0 ? '' : `, upstream ${(sentBytes / imageBytes).toFixed(2)} ×`
  const wall = rollout === undefined ? '' : `, roll-out ${(rollout / 1e9).toFixed(1)} s`
  return `${name} mean ${mean.toFixed(2)} s${wall}${copies}${failed > 0 ? `, ${failed} FAILED` : ''}`
}
