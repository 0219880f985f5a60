import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { arrivals } from '../../../src/benchmark/scene/arrivals.ts'
import {
  checkNodes,
  defaultScene,
  loadScene,
  loadScenes,
  parseScene,
  withImages,
} from '../../../src/benchmark/scene/scene.ts'
import { sceneReference } from '../../../src/benchmark/scene/scene-reference.ts'
import { UserError } from '../../../src/lib/errors.ts'

const folder = join(import.meta.dirname, '../../../benchmark/scenarios')
const scenes = await loadScenes(folder)

/** A good scene, with this in place of its own. */
function sceneWith(changes: Record<string, unknown>): string {
  return JSON.stringify({
    description: 'x',
    images: [{ size: '10MB', layers: 4 }],
    phases: { create: {} },
    ...changes,
  })
}

describe('scenes of the folder', () => {
  it.each([...scenes])('%s is valid for 8 nodes, and says in a paragraph what it is', (_name, scene) => {
    expect(() => checkNodes(scene, 8)).not.toThrow()
    expect(scene.description.length).toBeGreaterThan(100)
    expect(scene.description).not.toContain('\n')
  })

  it.each([...scenes])('%s: somebody pulls in each phase', (_name, { phases, images }) => {
    for (const name of ['create', 'update'] as const) {
      const phase = phases[name]
      if (phase === undefined) continue
      const setUp = { nodes: 8, images: images.length }
      expect(
        arrivals(name, phase, setUp, () => 0.5),
        name,
      ).not.toEqual([])
    }
  })

  it('together show every behaviour and every fault', () => {
    const all = [...scenes.values()]
    expect(new Set(all.flatMap(({ upstream }) => upstream.map(({ behaviour }) => behaviour)))).toEqual(
      new Set(['delay', 'rate', 'refuse', 'cut', 'wrongBytes', 'firstByteLate', 'rateLimit']),
    )
    expect(new Set(all.flatMap(({ faults }) => faults.map(({ action, what }) => `${action} ${what}`)))).toEqual(
      new Set([
        'kill mirror',
        'freeze mirror',
        'unplug node',
        'kill node',
        'restart containerd',
        'kill containerd',
        'slow node',
      ]),
    )
  })

  it('are described in README.md, with the format (npm run docs)', () => {
    expect(readFileSync(join(folder, 'README.md'), 'utf8')).toBe(sceneReference(scenes))
  })
})

describe('reading a scene', () => {
  it('understands every spelling', () => {
    const scene = parseScene(
      sceneWith({
        images: [
          { size: '10MB', layers: 4 },
          { size: '2GB', layers: 2, share: 2 },
        ],
        phases: {
          create: {
            arrival: { stagger: '1m30s', spacing: 'random' },
            pulls: [{ nodes: 2, images: [2] }],
            prepare: [{ nodes: '25%' }, { nodes: [1, 4] }],
          },
          update: { arrival: { waves: '20%' } },
        },
        upstream: [
          { behaviour: 'rate', at: '50%', for: '250ms', total: '10MB/s', perConnection: '64KB/s' },
          { behaviour: 'cut', by: 'RST', phase: 'update' },
        ],
        faults: [{ action: 'freeze', what: 'mirror', node: 'random', at: '1.5s' }],
        expectFailures: 3,
      }),
      'x.json',
    )
    expect(scene).toEqual({
      description: 'x',
      images: [
        { size: 10_485_760, layers: 4 },
        { size: 2_147_483_648, layers: 2, share: 2 },
      ],
      phases: {
        create: {
          arrival: { stagger: 90_000, spacing: 'random' },
          pulls: [{ nodes: { first: 2 }, images: [2] }],
          prepare: [{ nodes: { firstPercent: 25 } }, { nodes: [1, 4] }],
        },
        update: { arrival: { waves: { firstPercent: 20 } }, prepare: [] },
      },
      upstream: [
        { behaviour: 'rate', at: { fraction: 0.5 }, for: 250, total: 10_485_760, perConnection: 65_536 },
        { behaviour: 'cut', by: 'RST', at: { ms: 0 }, phase: 'update' },
      ],
      faults: [{ action: 'freeze', what: 'mirror', node: 'random', at: { ms: 1500 } }],
      expectFailures: 3,
    })
  })

  it.each<[string, string, RegExp]>([
    ['no JSON', '{', /not JSON/],
    ['a key that nobody knows', sceneWith({ fault: [] }), /top level: .*"fault"/],
    [
      'a key that nobody knows, further in',
      sceneWith({ phases: { create: { arival: 'together' } } }),
      /create.*"arival"/,
    ],
    ['no images', sceneWith({ images: [] }), /images: /],
    [
      'a size without a number',
      sceneWith({ images: [{ size: 'ten', layers: 1 }] }),
      /images\.0\.size: .*"100MB".*not "ten"/,
    ],
    ['no size at all', sceneWith({ images: [{ size: '0MB', layers: 1 }] }), /images\.0\.size: /],
    ['half a layer', sceneWith({ images: [{ size: '1MB', layers: 1.5 }] }), /images\.0\.layers: /],
    [
      'a first image that shares',
      sceneWith({ images: [{ size: '1MB', layers: 2, share: 1 }] }),
      /images\.0\.share: at most 0/,
    ],
    [
      'more shared layers than there are',
      sceneWith({
        images: [
          { size: '1MB', layers: 2 },
          { size: '1MB', layers: 4, share: 3 },
        ],
      }),
      /images\.1\.share: at most 2/,
    ],
    ['another arrival', sceneWith({ phases: { create: { arrival: 'slowly' } } }), /arrival: "together", \{"stagger"/],
    [
      'a stagger of nothing',
      sceneWith({ phases: { create: { arrival: { stagger: 'ten' } } } }),
      /arrival: "together", \{"stagger"/,
    ],
    [
      'waves of more than all',
      sceneWith({ phases: { create: { arrival: { waves: '120%' } } } }),
      /arrival: .*\{"waves": "20%"\}/,
    ],
    [
      'an image that is not there',
      sceneWith({ phases: { create: { pulls: [{ nodes: 'all', images: [2] }] } } }),
      /create: there is no image 2/,
    ],
    [
      'nodes that cannot be told',
      sceneWith({ phases: { create: { prepare: [{ nodes: 'some' }] } } }),
      /prepare\.0\.nodes: .*not "some"/,
    ],
    ['another behaviour', sceneWith({ upstream: [{ behaviour: 'sulk' }] }), /upstream\.0\.behaviour: delay, rate/],
    ['a behaviour without its measure', sceneWith({ upstream: [{ behaviour: 'delay' }] }), /upstream\.0\.time: /],
    ['a rate without one', sceneWith({ upstream: [{ behaviour: 'rate' }] }), /upstream\.0: total or perConnection/],
    [
      'a rate that is none',
      sceneWith({ upstream: [{ behaviour: 'rate', total: '10MB' }] }),
      /upstream\.0\.total: .*"10MB\/s"/,
    ],
    [
      'a window of nothing',
      sceneWith({ upstream: [{ behaviour: 'rateLimit', requests: 1, window: '0s' }] }),
      /window: longer than 0/,
    ],
    [
      'a time before the begin',
      sceneWith({ upstream: [{ behaviour: 'cut', at: '-3s' }] }),
      /upstream\.0\.at: .*not "-3s"/,
    ],
    [
      'an update that the scene has not',
      sceneWith({ upstream: [{ behaviour: 'cut', phase: 'update' }] }),
      /upstream\.0\.phase: .*no update/,
    ],
    ['another action', sceneWith({ faults: [{ action: 'scare', what: 'node', node: 1 }] }), /faults\.0\.action: /],
    [
      'a mirror with a cable',
      sceneWith({ faults: [{ action: 'unplug', what: 'mirror', node: 1 }] }),
      /faults\.0\.what: only a node/,
    ],
    [
      'a slow mirror',
      sceneWith({ faults: [{ action: 'slow', what: 'mirror', node: 1, rate: '1MB/s' }] }),
      /faults\.0\.what: only a node/,
    ],
    [
      'a slow node without a rate',
      sceneWith({ faults: [{ action: 'slow', what: 'node', node: 1 }] }),
      /faults\.0\.rate: a rate belongs to slow/,
    ],
    [
      'a node without a number',
      sceneWith({ faults: [{ action: 'kill', what: 'node', node: 'first' }] }),
      /faults\.0\.node: .*"random"/,
    ],
  ])('refuses %s, in one line with the file', (_name, text, message) => {
    let thrown: unknown
    try {
      parseScene(text, 'x.json')
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(UserError)
    const said = (thrown as UserError).message
    expect(said).toMatch(message)
    expect(said).toMatch(/^x\.json: [^\n]+$/)
    expect(said.length).toBeLessThan(200)
  })

  it('says which file is not there', async () => {
    await expect(loadScene('/nowhere/x.json')).rejects.toThrow(/^\/nowhere\/x\.json: .*ENOENT/)
  })

  it('is told by the set-up which nodes there are', () => {
    const scene = parseScene(sceneWith({ faults: [{ action: 'kill', what: 'node', node: 5 }] }), 'x.json')
    expect(() => checkNodes(scene, 4)).toThrow('the scene names node 5, and there are 4')
    expect(() => checkNodes(scene, 5)).not.toThrow()
  })

  it('takes other images, if what is shared is in them', () => {
    const scene = parseScene(
      sceneWith({
        images: [
          { size: '1MB', layers: 4 },
          { size: '1MB', layers: 4, share: 3 },
        ],
      }),
      'x.json',
    )
    expect(withImages(scene, { size: 5, layers: 3 }).images).toEqual([
      { size: 5, layers: 3, share: undefined },
      { size: 5, layers: 3, share: 3 },
    ])
    expect(() => withImages(scene, { size: 5, layers: 2 })).toThrow(
      "the scene's images share 3 layers: 2 are too few",
    )
  })

  it('is not needed: together, or staggered, then an update in waves', () => {
    const image = { sizeBytes: 10_000_000, layers: 4 }
    const create = (staggerMs?: number) => {
      const { phases } = defaultScene(image, staggerMs)
      return arrivals('create', phases.create, { nodes: 3, images: 1 }, () => 0).map(({ atMs }) => atMs)
    }
    expect(create()).toEqual([0, 0, 0])
    expect(create(4_000)).toEqual([0, 2_000, 4_000])
    const { update = { prepare: [] } } = defaultScene(image).phases
    const waves = arrivals('update', update, { nodes: 6, images: 1 }, () => 0).map(({ wave }) => wave)
    expect(waves).toEqual([1, 1, 2, 2, 3, 3])
  })
})
