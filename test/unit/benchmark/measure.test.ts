import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { imageSet } from '../../../src/benchmark/measure/images.ts'
import { type MeasureInit, measure } from '../../../src/benchmark/measure/measure.ts'
import { turnsOf } from '../../../src/benchmark/measure/plan.ts'
import { Progress } from '../../../src/benchmark/measure/progress.ts'
import type { Phase } from '../../../src/benchmark/result/schema.ts'
import type { ImageSet, Measured, MirrorSpec, PhaseOrder, Target } from '../../../src/benchmark/target.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const mirrors: MirrorSpec[] = ['none', 'ours', 'theirs'].map((name) => ({ name, command: name }))
const images = [imageSet('v1-10MB-1', 'v2-10MB-1'), imageSet('v1-10MB-4', 'v2-10MB-4')]

/** Stands for nodes: says in which order it was asked, and how noisy the machine was. */
class ScriptedTarget implements Target {
  readonly kind = 'simulated'
  readonly log: string[] = []
  readonly salts: string[] = []
  stealPercent: (asked: number) => number = () => 0
  missed: (asked: number) => string[] = () => []
  onAsked: (asked: number) => void = () => undefined
  #asked = 0

  open() {
    this.log.push('open')
    return Promise.resolve({ links: undefined, nodes: [{ name: 'n1', runtime: 'none' }] })
  }

  prepare(_images: ImageSet, salt: string): Promise<void> {
    this.salts.push(salt)
    return Promise.resolve()
  }

  measure({ mirror, images: { name }, phase }: PhaseOrder): Promise<Measured> {
    this.#asked += 1
    this.onAsked(this.#asked)
    this.log.push(`${name} ${mirror.name} ${phase}`)
    const done: Phase = {
      started: new Date(0).toISOString(),
      duration: 1,
      pulls: [],
      imageBytes: 1,
      upstream: {},
      cpu: { busyPercent: 0, stealPercent: this.stealPercent(this.#asked) },
    }
    return Promise.resolve({ phase: done, missed: this.missed(this.#asked) })
  }

  clear(): Promise<void> {
    return Promise.resolve()
  }

  close(): Promise<void> {
    this.log.push('close')
    return Promise.resolve()
  }
}

describe('measuring', () => {
  let folder: string
  let target: ScriptedTarget
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'spegel-ts-measure-'))
    target = new ScriptedTarget()
  })
  afterEach(() => rm(folder, { recursive: true }))

  const init = (more: Partial<MeasureInit> = {}): MeasureInit => ({
    folder,
    target,
    mirrors,
    images,
    rounds: 2,
    repeatsMax: 2,
    facts: {
      name: 'test',
      tool: { version: '0', commit: '0', node: '0', command: [] },
      machine: { cpu: '', cores: 1, memoryBytes: 1, kernel: '', load: 0 },
      // In another order than the file's.
      set: { seed: 'a', rounds: 2, waveSize: 1, stagger: 0, expectFailures: 0, kubernetes: 'v1.35.4' },
    },
    now: () => new Date(0),
    progress: new Progress(() => undefined, false, new ManualClock()),
    signal: new AbortController().signal,
    ...more,
  })

  it('asks every mirror with every image in every round, in the order of the seed', async () => {
    await measure(init())
    const expected = [0, 1, 2].flatMap((round) =>
      images.flatMap((image) =>
        turnsOf(round, image, mirrors, 'a').flatMap(({ mirror }) =>
          ['create', 'update'].map((phase) => `${image.name} ${mirror.name} ${phase}`),
        ),
      ),
    )
    expect(target.log).toEqual(['open', ...expected, 'close'])
  })

  it('leaves a mirror out when it had its rounds, and says how many turns there are', () => {
    const some = mirrors.map((mirror) => (mirror.name === 'none' ? { ...mirror, rounds: 1 } : mirror))
    const names = [0, 1, 2].map((round) =>
      turnsOf(round, images[0] as ImageSet, some, 'a').map(({ mirror }) => mirror.name),
    )
    expect(names.map((round) => round.toSorted())).toEqual([
      ['ours', 'theirs'],
      ['none', 'ours', 'theirs'],
      ['ours', 'theirs'],
    ])
    const written: string[] = []
    const progress = new Progress((text) => written.push(text), false, new ManualClock())
    progress.start([], { images: images.slice(0, 1), mirrors: some, rounds: 2 })
    const [first] = turnsOf(0, images[0] as ImageSet, some, 'a')
    if (first !== undefined) progress.turnDone(first, {}, [])
    expect(written.at(-1)).toContain('1 of 7 turns')
  })

  it('gives every turn other content', async () => {
    await measure(init())
    expect(new Set(target.salts.map((salt, index) => `${salt} ${index % 2}`)).size).toBeGreaterThanOrEqual(9)
    const ofOneImage = target.salts.filter((_, index) => Math.floor(index / mirrors.length) % images.length === 0)
    expect(new Set(ofOneImage).size).toBe(ofOneImage.length)
  })

  it('counts all rounds but the first', async () => {
    const { rounds, complete } = await measure(init())
    expect(complete).toBe(true)
    expect(rounds.filter(({ counts }) => counts).map(({ number }) => number)).toEqual([
      ...Array.from({ length: 6 }, () => 1),
      ...Array.from({ length: 6 }, () => 2),
    ])
  })

  it('repeats a disturbed round with all mirrors, within bounds', async () => {
    target.stealPercent = (asked) => (asked === 14 ? 9 : 0)
    const { rounds } = await measure(init({ images: images.slice(0, 1), rounds: 3 }))
    const disturbed = rounds.filter(({ noise }) => noise.length > 0)
    expect(disturbed).toHaveLength(1)
    expect(disturbed[0]).toMatchObject({ number: 2, attempt: 1, counts: false })
    expect(rounds.filter(({ number, attempt }) => number === 2 && attempt === 2)).toHaveLength(3)
    expect(rounds.filter(({ counts }) => counts)).toHaveLength(9)
  })

  it('keeps disturbed rounds when no repeats are left, and says so', async () => {
    target.stealPercent = () => 9
    const { rounds } = await measure(init({ images: images.slice(0, 1) }))
    const counted = rounds.filter(({ counts }) => counts)
    expect(counted).toHaveLength(6)
    expect(counted.every(({ noise }) => noise.length === 2)).toBe(true)
    expect(new Set(rounds.map(({ number, attempt }) => `${number}.${attempt}`)).size).toBe(1 + 2 + 2)
  })

  it('goes on where it was broken off', async () => {
    const stop = new AbortController()
    // In the middle of the second image's first round.
    target.onAsked = (asked) => void (asked === 21 && stop.abort(new Error('Ctrl-C')))
    await expect(measure(init({ signal: stop.signal }))).rejects.toThrow('Ctrl-C')
    expect(target.log.at(-1)).toBe('close')
    const before = JSON.parse(await readFile(join(folder, 'result.json'), 'utf8')) as { rounds: unknown[] }
    expect(before.rounds).toHaveLength(9)
    const other = new ScriptedTarget()
    const { rounds, complete } = await measure(init({ target: other }))
    expect(complete).toBe(true)
    expect(rounds).toHaveLength(18)
    expect(other.log).toHaveLength(2 + 9 * 2)
    expect(rounds.slice(0, 9)).toEqual(before.rounds)
  })

  it('does not go on with another number of nodes', async () => {
    const stop = new AbortController()
    target.onAsked = (asked) => void (asked === 21 && stop.abort(new Error('Ctrl-C')))
    await expect(measure(init({ signal: stop.signal }))).rejects.toThrow('Ctrl-C')
    const more = new ScriptedTarget()
    more.open = () =>
      Promise.resolve({ links: undefined, nodes: ['n1', 'n2'].map((name) => ({ name, runtime: 'none' })) })
    await expect(measure(init({ target: more }))).rejects.toThrow('there were 1 nodes, are 2')
    expect(more.log).toEqual(['close'])
  })

  it('does not mix measurements', async () => {
    await measure(init())
    await expect(measure(init())).rejects.toThrow('complete')
    await expect(measure(init({ mirrors: mirrors.slice(1) }))).rejects.toThrow(
      'holds another measurement (mirrors: was [{"name":"none"',
    )
    const again = mirrors.map((mirror) => ({ ...mirror, command: 'another' }))
    await expect(measure(init({ mirrors: again }))).rejects.toThrow('holds another measurement (mirrors: ')
    const { facts } = init()
    const newer = { ...facts, tool: { ...facts.tool, commit: '1' } }
    await expect(measure(init({ facts: newer }))).rejects.toThrow('version: was {"version":"0","commit":"0"}')
    await writeFile(join(folder, 'result.json'), '{"schema":"other"}')
    await expect(measure(init())).rejects.toThrow(`${join(folder, 'result.json')}: schema: `)
  })

  it('closes the target also when it could not be opened', async () => {
    target.open = () => Promise.reject(new Error('no containerd'))
    await expect(measure(init())).rejects.toThrow('no containerd')
    expect(target.log).toEqual(['close'])
  })
})

describe('progress', () => {
  it('tells the time that is left, in a line of its own where nobody watches', () => {
    const clock = new ManualClock()
    const written: string[] = []
    const progress = new Progress((text) => written.push(text), false, clock)
    progress.start([], { images: images.slice(0, 1), mirrors: mirrors.slice(0, 2), rounds: 2 })
    const [first, second] = turnsOf(0, images[0] as ImageSet, mirrors.slice(0, 2), 'a')
    clock.advance(10_000)
    if (first !== undefined) progress.turnDone(first, {}, [])
    clock.advance(20_000)
    if (second !== undefined) progress.turnDone(second, {}, [])
    expect(written.at(-1)).toBe('  2 of 6 turns, about 1m left\n')
    expect(written.join('')).not.toContain('\r')
  })
})
