/** Whom a node asks, and whom it asks next when nobody answers. */
import { describe, expect, it } from 'vitest'
import { Coordinator } from '../../../src/flights/coordinator.ts'
import { Coordinators } from '../../../src/flights/coordinators.ts'
import { flightCoordinatorDeadMs, flightCoordinatorKnownMs, flightCoordinatorTimeoutMs } from '../../../src/limits.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import { PeerFailure } from '../../../src/peers/protocol.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const digest = digestOf(Buffer.from('blob'))
const nodeOf = (id: string) => ({ id, addresses: ['10.0.0.1'] })
const join = {
  node: nodeOf('self'),
  haveBytes: 0,
  load: { blobCount: 1, feeds: 0 },
  size: 1_000,
  waitMs: 0,
  avoid: undefined,
  gone: undefined,
  keep: undefined,
  isSlow: false,
  image: undefined,
  holder: undefined,
}
const report = {
  kind: 'complete' as const,
  node: nodeOf('self'),
  haveBytes: 0,
  size: 1_000,
  load: { blobCount: 1, feeds: 0 },
  busy: undefined,
}
const wait = '{"kind":"wait"}'

class Script {
  readonly clock = new ManualClock()
  readonly asked: string[] = []
  /** How long each was to wait for a decision. */
  readonly waits: number[] = []
  /** By node; an error, or silence where nothing is said. */
  readonly answers: Record<string, string | Error> = {}
  readonly own = new Coordinator({
    clock: this.clock,
    self: nodeOf('self'),
    isStored: () => false,
    isAlive: () => Promise.resolve(true),
    onLease: () => {},
  })
  readonly coordinators: Coordinators
  ip = '10.0.0.1'

  constructor(ids: readonly string[]) {
    this.coordinators = new Coordinators({
      router: { flightNodes: () => Promise.resolve(ids.map((id) => ({ id, addresses: [this.ip] }))) },
      client: { post: ({ id }, path, signal) => this.#post(id, path, signal) },
      own: this.own,
      self: nodeOf('self'),
      clock: this.clock,
    })
  }

  #post(id: string, path: string, signal: AbortSignal): Promise<string> {
    this.asked.push(id)
    this.waits.push(Number(new URLSearchParams(path.split('?')[1]).get('wait')))
    const answer = this.answers[id]
    if (typeof answer === 'string') return Promise.resolve(answer)
    if (answer !== undefined) return Promise.reject(answer)
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    })
  }

  join(waitMs = 0) {
    return this.coordinators.join(digest, { ...join, waitMs }, new AbortController().signal)
  }
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

describe('the coordinator of a digest', () => {
  it('is the closest that answers', async () => {
    const script = new Script(['a', 'b'])
    script.answers['a'] = wait
    expect(await script.join()).toEqual({ kind: 'wait' })
    expect(script.asked).toEqual(['a'])
  })

  it('is asked for an answer at once before it is waited for, unless it answered lately', async () => {
    const script = new Script(['a'])
    script.answers['a'] = wait
    await script.join(2_000)
    await script.join(2_000)
    expect(script.waits).toEqual([0, 2_000, 2_000])
    script.clock.advance(flightCoordinatorKnownMs)
    await script.join(2_000)
    expect(script.waits).toEqual([0, 2_000, 2_000, 0, 2_000])
  })

  it('is found to be silent in the same time when it is waited for', async () => {
    const script = new Script(['a', 'b'])
    Object.assign(script.answers, { b: wait })
    const answer = script.join(2_000)
    await settled()
    script.clock.advance(flightCoordinatorTimeoutMs)
    await answer
    expect(script.waits).toEqual([0, 0, 2_000])
  })

  it.each([
    ['is not there', new PeerFailure('connect', 'refused')],
    ['does not know flights', new PeerFailure('not-found', '404')],
    ['says nonsense', 'nonsense'],
  ])('is the next when the closest %s, which is not asked again for a while', async (_why, answer) => {
    const script = new Script(['a', 'b'])
    Object.assign(script.answers, { a: answer, b: wait })
    await script.join()
    await script.join()
    expect(script.asked).toEqual(['a', 'b', 'b'])
    for (const deadMs of [...flightCoordinatorDeadMs, flightCoordinatorDeadMs.at(-1) ?? 0]) {
      script.asked.length = 0
      script.clock.advance(deadMs - 1)
      await script.join()
      script.clock.advance(1)
      await script.join()
      await script.join()
      expect(script.asked, `after ${deadMs} ms`).toEqual(['b', 'a', 'b', 'b'])
    }
  })

  it('counts as alive as soon as it says something itself', async () => {
    const script = new Script(['a', 'b'])
    Object.assign(script.answers, { a: new Error('no'), b: wait })
    await script.join()
    script.coordinators.noteHeard(nodeOf('a'))
    await script.join()
    expect(script.asked).toEqual(['a', 'b', 'a', 'b'])
  })

  it('counts as dead for the shortest time again when it has answered', async () => {
    const script = new Script(['a', 'b'])
    Object.assign(script.answers, { a: new Error('no'), b: wait })
    const [shortestMs = 0, longerMs = 0] = flightCoordinatorDeadMs
    await script.join()
    script.clock.advance(shortestMs)
    await script.join()
    script.clock.advance(longerMs)
    script.answers['a'] = wait
    await script.join()
    script.answers['a'] = new Error('no')
    await script.join()
    script.clock.advance(shortestMs)
    script.asked.length = 0
    await script.join()
    expect(script.asked).toEqual(['a', 'b'])
  })

  it('is the next when the closest is silent', async () => {
    const script = new Script(['a', 'b'])
    script.answers['b'] = wait
    const answer = script.join()
    await settled()
    script.clock.advance(flightCoordinatorTimeoutMs)
    expect(await answer).toEqual({ kind: 'wait' })
    expect(script.asked).toEqual(['a', 'b'])
  })

  it('is the closest again as soon as that one is at another address', async () => {
    const script = new Script(['a', 'b'])
    Object.assign(script.answers, { a: new Error('no'), b: wait })
    await script.join()
    script.ip = '10.0.0.2'
    await script.join()
    expect(script.asked).toEqual(['a', 'b', 'a', 'b'])
  })

  it('is nobody when none of them is there', async () => {
    const script = new Script(['a', 'b'])
    Object.assign(script.answers, { a: new Error('no'), b: new Error('no') })
    expect(await script.join()).toBeUndefined()
    expect(await script.join()).toBeUndefined()
    expect(script.asked).toEqual(['a', 'b'])
  })

  it('may be this node itself', async () => {
    const script = new Script(['a', 'self', 'b'])
    script.answers['a'] = new Error('no')
    expect(await script.join()).toEqual({ kind: 'lease' })
    await script.coordinators.report(digest, report)
    expect(script.asked).toEqual(['a'])
    expect(script.own.nodeCount).toBe(1)
  })

  it('is told by whoever has something to tell, or the next of them', async () => {
    const script = new Script(['a', 'b'])
    Object.assign(script.answers, { a: new Error('no'), b: wait })
    await script.coordinators.report(digest, report)
    expect(script.asked).toEqual(['a', 'b'])
  })

  it('is the only one to be asked by who has a source', async () => {
    const script = new Script(['a', 'b'])
    Object.assign(script.answers, { a: new Error('no'), b: wait })
    const slow = { ...join, keep: 'source', isSlow: true }
    expect(await script.coordinators.join(digest, slow, new AbortController().signal)).toBeUndefined()
    expect(script.asked).toEqual(['a'])
  })

  it('is not thought dead because the asker has left', async () => {
    const script = new Script(['a'])
    const left = new AbortController()
    const answer = script.coordinators.join(digest, join, left.signal)
    await settled()
    left.abort(new Error('left'))
    await expect(answer).rejects.toThrow('left')
    script.answers['a'] = wait
    expect(await script.join()).toEqual({ kind: 'wait' })
  })
})
