import { describe, expect, it } from 'vitest'
import { arrivals } from '../../../src/benchmark/scene/arrivals.ts'
import type { FaultyNode } from '../../../src/benchmark/scene/faults.ts'
import { Pace } from '../../../src/benchmark/scene/pace.ts'
import { type Scene, type UpstreamEntry, parseScene } from '../../../src/benchmark/scene/scene.ts'
import { startTimeline } from '../../../src/benchmark/scene/timeline.ts'
import { seededRandom } from '../../../src/lib/random.ts'
import { ManualClock } from '../../support/manual-clock.ts'

/** Three nodes without processes, whose cables tell what is done to them, and an upstream that only notes. */
class Bed {
  readonly clock = new ManualClock()
  readonly log: string[] = []
  readonly bytes = new Map<number, number>()
  /** Of which node plugging in fails. */
  stuck: number | undefined

  node(number: number): FaultyNode {
    return {
      name: `n${number}`,
      mirrorPid: () => undefined,
      containerdPid: () => undefined,
      startMirror: () => Promise.resolve(),
      startContainerd: () => Promise.resolve(),
      limitUplink: (bytesPerSecond) => {
        this.log.push(`${number} ${bytesPerSecond ?? 'full'} B/s`)
        return Promise.resolve()
      },
      setCable: (plugged) => {
        if (plugged && this.stuck === number) return Promise.reject(new Error('stuck'))
        this.log.push(`${number} ${plugged ? 'in' : 'out'}`)
        return Promise.resolve()
      },
      ingestBytes: (digest) => Promise.resolve(digest === 'sha256:1' ? (this.bytes.get(number) ?? 0) : 0),
    }
  }

  async start(scene: Scene, phase: 'create' | 'update' = 'create', seed = 1) {
    const random = seededRandom(seed)
    const upstream = {
      begin: (entry: UpstreamEntry) => {
        this.log.push(`begin ${entry.behaviour}`)
        return Promise.resolve(() => Promise.resolve(void this.log.push(`end ${entry.behaviour}`)))
      },
    }
    const plan = arrivals(phase, scene.phases[phase] ?? { prepare: [] }, { nodes: 3, images: 1 }, random)
    const nodes = [1, 2, 3].map((number) => this.node(number))
    const firstLayers = [{ digest: 'sha256:1', size: 1_000 }]
    return startTimeline({ scene, phase, plan, firstLayers, nodes, upstream, clock: this.clock, random })
  }

  /** Moves time in small steps, in which everything that is due has its turn. */
  async pass(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 10) {
      this.clock.advance(10)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}

function sceneOf(changes: Record<string, unknown>): Scene {
  const base = { description: 'x', images: [{ size: '1MB', layers: 1 }], phases: { create: {}, update: {} } }
  return parseScene(JSON.stringify({ ...base, ...changes }), 'x.json')
}

const unplug = (changes: Record<string, unknown>) => ({ action: 'unplug', what: 'node', ...changes })

describe('a timeline', () => {
  it('has begun when that is in force which is so from the begin; the rest comes and goes in its time', async () => {
    const bed = new Bed()
    const timeline = await bed.start(
      sceneOf({
        upstream: [
          { behaviour: 'delay', time: '1s' },
          { behaviour: 'cut', at: '2s', for: '3s' },
          { behaviour: 'refuse', at: '1s', phase: 'update' },
        ],
        faults: [unplug({ node: 2 }), unplug({ node: 3, at: '1s', for: '500ms' })],
      }),
    )
    expect(bed.log).toEqual(['begin delay', '2 out'])
    await bed.pass(10_000)
    const during = ['begin delay', '2 out', '3 out', '3 in', 'begin cut', 'end cut']
    expect(bed.log).toEqual(during)
    const { events, missed } = await timeline.stop()
    expect(bed.log).toEqual([...during, 'end delay', '2 in'])
    expect(missed).toEqual([])
    expect(events).toEqual([
      { at: 0, what: 'upstream: delay' },
      { at: 0, what: 'n2 unplugged' },
      { at: 1e9, what: 'n3 unplugged' },
      { at: 1.5e9, what: 'n3 plugged in again' },
      { at: 2e9, what: 'upstream: cut (FIN)' },
      { at: 5e9, what: 'upstream: cut (FIN): over' },
      { at: 10e9, what: 'upstream: delay: over' },
      { at: 10e9, what: 'n2 plugged in again' },
    ])
  })

  it('strikes when the node itself has its part, and one that does not pull when any has', async () => {
    const bed = new Bed()
    const scene = sceneOf({
      phases: { create: { prepare: [{ nodes: [1] }] } },
      faults: [unplug({ node: 1, at: '50%' }), unplug({ node: 3, at: '50%' })],
    })
    const timeline = await bed.start(scene)
    bed.bytes.set(2, 499)
    await bed.pass(100)
    expect(bed.log).toEqual([])
    bed.bytes.set(2, 500)
    await bed.pass(100)
    expect(bed.log).toEqual(['1 out'])
    bed.bytes.set(3, 600)
    await bed.pass(100)
    expect(bed.log).toEqual(['1 out', '3 out'])
    await timeline.stop()
  })

  it('makes a link slow for a time', async () => {
    const bed = new Bed()
    const slow = { action: 'slow', what: 'node', node: 2, at: '1s', for: '2s', rate: '12MB/s' }
    const timeline = await bed.start(sceneOf({ faults: [slow] }))
    await bed.pass(2_000)
    expect(bed.log).toEqual([`2 ${12 * 1024 * 1024} B/s`])
    await bed.pass(2_000)
    expect(bed.log).toEqual([`2 ${12 * 1024 * 1024} B/s`, '2 full B/s'])
    await timeline.stop()
  })

  it('strikes whoever receives first', async () => {
    const bed = new Bed()
    const timeline = await bed.start(sceneOf({ faults: [unplug({ node: 'firstWithBytes', at: '0s' })] }))
    await bed.pass(1_000)
    expect(bed.log).toEqual([])
    bed.bytes.set(3, 1)
    await bed.pass(100)
    expect(bed.log).toEqual(['3 out'])
    await timeline.stop()
    expect(bed.log).toEqual(['3 out', '3 in'])
  })

  it('strikes one of those that pull, by the seed', async () => {
    const struck = new Set<string>()
    for (let seed = 0; seed < 40; seed++) {
      const [bed, again] = [new Bed(), new Bed()]
      const phases = { create: { prepare: [{ nodes: [1] }] } }
      const scene = sceneOf({ phases, faults: [unplug({ node: 'random' })] })
      await (await bed.start(scene, 'create', seed)).stop()
      await (await again.start(scene, 'create', seed)).stop()
      expect(again.log).toEqual(bed.log)
      struck.add(bed.log[0] ?? '')
    }
    expect(struck).toEqual(new Set(['2 out', '3 out']))
  })

  it('says what did not come to pass', async () => {
    const bed = new Bed()
    const faults = [unplug({ node: 2, at: '50%' }), { action: 'kill', what: 'mirror', node: 1 }]
    const timeline = await bed.start(sceneOf({ faults, upstream: [{ behaviour: 'cut', at: '1m' }] }))
    await bed.pass(100)
    const { missed } = await timeline.stop()
    expect(missed.sort()).toEqual([
      'n1: mirror killed: n1: no mirror runs',
      'unplug node (2): the pulls were over before',
      'upstream: cut (FIN): the pulls were over before',
    ])
    expect(bed.log).toEqual([])
  })

  it('mends what it can, and says that not all could be', async () => {
    const bed = new Bed()
    bed.stuck = 1
    const timeline = await bed.start(sceneOf({ faults: [unplug({ node: 1 }), unplug({ node: 2 })] }))
    await expect(timeline.stop()).rejects.toThrow('the scene could not be mended')
    expect(bed.log).toEqual(['1 out', '2 out', '2 in'])
  })
})

describe('a pace', () => {
  it('gives bytes their time, after all that were booked before', () => {
    const pace = new Pace(1_000)
    expect(pace.bytesIn(20)).toBe(20)
    // What a late timer lost is made up for, 50 ms of it.
    expect(pace.book(100, 10_000)).toBe(50)
    expect(pace.book(100, 10_000)).toBe(150)
    expect(pace.book(100, 10_150)).toBe(100)
    expect(pace.book(100, 20_000)).toBe(50)
  })

  it('lets at least one byte go', () => {
    expect(new Pace(1).bytesIn(20)).toBe(1)
  })
})
