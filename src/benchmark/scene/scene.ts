/**
 * A scripted scene: which nodes pull which images when, what the upstream registry does meanwhile, and what breaks.
 * Files of `benchmark/scenarios/`; the README there is generated from the descriptions below.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { readRegularFile } from '../../lib/read-file.ts'
import { parseCheckedJson } from '../checked-json.ts'
import { count, durationMs, moment, nodeSet, rateBytesPerSecond, sizeBytes } from './units.ts'

// --- Images ---

const image = z.strictObject({
  size: sizeBytes.describe('of all layers together'),
  layers: z.int().min(1).max(127),
  share: z.int().min(1).optional().describe('so many of the layers are those of the first image'),
})

// --- Phases ---

const images = z.array(z.int().min(1)).min(1).optional().describe('numbers of images, from 1; all unless given')

const arrival = z
  .union(
    [
      z.literal('together'),
      z.strictObject({
        stagger: durationMs.describe('the last node begins so long after the first'),
        spacing: z.enum(['even', 'random']).default('even'),
      }),
      z.strictObject({ waves: count.describe('so many at once; a wave begins when the one before has ended') }),
    ],
    { error: '"together", {"stagger": "10s"} or {"waves": "20%"} is wanted' },
  )
  .describe('when nodes begin to pull; create: together, update: waves of 20 %, unless given')

const phase = z.strictObject({
  arrival: arrival.optional(),
  pulls: z
    .array(z.strictObject({ nodes: nodeSet, images }))
    .min(1)
    .optional()
    .describe('who pulls what; every node every image unless given'),
  prepare: z
    .array(z.strictObject({ nodes: nodeSet, images }))
    .default([])
    .describe('who has what before the phase begins, and does not pull it in the phase'),
})

// --- Upstream ---

const timing = {
  phase: z.enum(['create', 'update']).optional().describe('both unless given'),
  at: moment
    .prefault('0s')
    .describe('since the first pull call of the phase, or when so much of the first layer has arrived'),
  for: durationMs.optional().describe('to the end of the phase unless given'),
}

const upstream = z.discriminatedUnion(
  'behaviour',
  [
    z
      .strictObject({
        behaviour: z.literal('delay'),
        ...timing,
        time: durationMs.describe('how long each answer waits'),
      })
      .describe('waits before each answer'),
    z
      .strictObject({
        behaviour: z.literal('rate'),
        ...timing,
        total: rateBytesPerSecond.optional().describe('of all connections together'),
        perConnection: rateBytesPerSecond.optional(),
      })
      .refine(({ total, perConnection }) => total !== undefined || perConnection !== undefined, {
        error: 'total or perConnection is wanted',
      })
      .describe('sends bodies no faster'),
    z
      .strictObject({
        behaviour: z.literal('refuse'),
        ...timing,
        by: z.enum(['connection', 'status']).default('connection').describe('status: 503'),
      })
      .describe('refuses connections, or answers 503; bodies that are under way go on'),
    z
      .strictObject({
        behaviour: z.literal('cut'),
        ...timing,
        by: z.enum(['FIN', 'RST']).default('FIN'),
      })
      .describe('ends all connections, those in the middle of a body too, and refuses new ones for the time'),
    z
      .strictObject({
        behaviour: z.literal('wrongBytes'),
        ...timing,
        times: z.int().min(1).optional().describe('so many answers at most; all unless given'),
        minSize: sizeBytes.optional().describe('in blobs of at least this size only, so no config; all unless given'),
      })
      .describe('the byte in the middle of a blob is another'),
    z
      .strictObject({
        behaviour: z.literal('firstByteLate'),
        ...timing,
        time: durationMs.describe('from the headers to the first byte'),
      })
      .describe('sends the headers of a blob at once and its first byte late'),
    z
      .strictObject({
        behaviour: z.literal('rateLimit'),
        ...timing,
        requests: z.int().min(0).describe('GETs of manifests and blobs; HEADs are free'),
        window: durationMs.refine((ms) => ms > 0, { error: 'longer than 0 is wanted' }),
        per: z.enum(['client', 'all']).default('client').describe('client: each IP address has its own count'),
      })
      .describe('answers 429 with Retry-After to more GETs than these in a window'),
  ],
  { error: 'delay, rate, refuse, cut, wrongBytes, firstByteLate or rateLimit is wanted' },
)

// --- Faults ---

const fault = z
  .strictObject({
    phase: timing.phase,
    action: z
      .enum(['kill', 'freeze', 'unplug', 'restart', 'slow'])
      .describe(
        'kill: SIGKILL; freeze: SIGSTOP; unplug: packets are lost; restart: ended by SIGTERM, then started; slow: the node sends no faster than `rate`',
      ),
    what: z.enum(['mirror', 'containerd', 'node']).describe('node: both, and its cable is out meanwhile'),
    node: z
      .union([z.int().min(1), z.literal('random'), z.literal('firstWithBytes')], {
        error: 'the number of a node, "random" or "firstWithBytes" is wanted',
      })
      .describe('random: of those that pull; firstWithBytes: whose first layer arrives first'),
    at: timing.at.describe(
      'since the first pull call, or when the node has so much of its first layer; if it does not pull, when any has',
    ),
    for: timing.for.describe(
      'until it is thawed, plugged in, started again; restart: at once, others: at the end of the phase, unless given',
    ),
    rate: rateBytesPerSecond.optional().describe('slow: what the node can send'),
  })
  .refine(({ action, what }) => what === 'node' || (action !== 'unplug' && action !== 'slow'), {
    path: ['what'],
    error: 'only a node can be unplugged or slow',
  })
  .refine(({ action, rate }) => (action === 'slow') === (rate !== undefined), {
    path: ['rate'],
    error: 'a rate belongs to slow, and to nothing else',
  })

const sceneSchema = z
  .strictObject({
    description: z.string().min(1),
    images: z.array(image).min(1),
    phases: z.strictObject({ create: phase, update: phase.optional() }),
    upstream: z.array(upstream).default([]),
    faults: z.array(fault).default([]),
    expectFailures: z.int().min(0).default(0).describe('failed pulls per phase at most'),
  })
  .superRefine((scene, context) => {
    const problem = (path: (string | number)[], message: string) =>
      context.addIssue({ code: 'custom', path, message })
    const [first] = scene.images
    for (const [index, { share = 0, layers }] of scene.images.entries()) {
      const shareMax = index === 0 ? 0 : Math.min(layers, first?.layers ?? 0)
      if (share > shareMax) problem(['images', index, 'share'], `at most ${shareMax} layers can be shared`)
    }
    for (const [name, { pulls = [], prepare }] of phasesOf(scene.phases)) {
      const numbers = [...pulls, ...prepare].flatMap((entry) => entry.images ?? [])
      const unknown = numbers.find((number) => number > scene.images.length)
      if (unknown !== undefined) problem(['phases', name], `there is no image ${unknown}`)
    }
    for (const key of ['upstream', 'faults'] as const) {
      const index = scene.phases.update === undefined ? scene[key].findIndex((entry) => entry.phase === 'update') : -1
      if (index >= 0) problem([key, index, 'phase'], 'the scene has no update')
    }
  })

export type Scene = z.infer<typeof sceneSchema>
export type ScenePhase = z.infer<typeof phase>
export type UpstreamEntry = z.infer<typeof upstream>
export type FaultEntry = z.infer<typeof fault>
export type ScenePhaseName = keyof Scene['phases']

/** What a file may hold, as JSON Schema. */
export function sceneJsonSchema(): unknown {
  return z.toJSONSchema(sceneSchema, { io: 'input' })
}

/** Throws a UserError that names the file and the first thing that is wrong. */
export async function loadScene(path: string): Promise<Scene> {
  const text = await readRegularFile(path).then(String, (error: unknown) => {
    throw new UserError(`${path}: ${errorMessage(error)}`)
  })
  return parseScene(text, path)
}

/** The same scene with other images: each has this size and so many layers. */
export function withImages(scene: Scene, each: { size: number; layers: number }): Scene {
  const shared = Math.max(0, ...scene.images.map(({ share = 0 }) => share))
  if (shared > each.layers) {
    throw new UserError(`the scene's images share ${shared} layers: ${each.layers} are too few`)
  }
  return { ...scene, images: scene.images.map(({ share }) => ({ ...each, share })) }
}

/** All scenes of a folder, by the names of their files without the ending. */
export async function loadScenes(folder: string): Promise<Map<string, Scene>> {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.json')).sort()
  const scenes = await Promise.all(
    files.map(async (name) => [name.replace('.json', ''), await loadScene(join(folder, name))] as const),
  )
  return new Map(scenes)
}

export function parseScene(text: string, path: string): Scene {
  return parseCheckedJson(text, path, sceneSchema)
}

/** Throws a UserError when the scene names nodes that the set-up does not have. */
export function checkNodes(scene: Scene, nodes: number): void {
  const named = phasesOf(scene.phases)
    .flatMap(([, { pulls = [], prepare }]) => [...pulls, ...prepare].map((entry) => entry.nodes))
    .flatMap((set) => (Array.isArray(set) ? set : typeof set === 'object' && 'first' in set ? [set.first] : []))
  const struck = scene.faults.flatMap(({ node }) => (typeof node === 'number' ? [node] : []))
  const most = Math.max(0, ...named, ...struck)
  if (most > nodes) throw new UserError(`the scene names node ${most}, and there are ${nodes}`)
}

/** Without a file: nodes pull together or staggered, then an update goes through them in waves. */
export function defaultScene(size: { sizeBytes: number; layers: number }, staggerMs = 0): Scene {
  const arrivalOfCreate = staggerMs === 0 ? 'together' : { stagger: staggerMs, spacing: 'even' as const }
  return {
    description: 'all nodes pull one image, then an update of it in waves of 20 %',
    images: [{ size: size.sizeBytes, layers: size.layers }],
    phases: { create: { arrival: arrivalOfCreate, prepare: [] }, update: { prepare: [] } },
    upstream: [],
    faults: [],
    expectFailures: 0,
  }
}

function phasesOf(phases: { create: ScenePhase; update?: ScenePhase | undefined }): [ScenePhaseName, ScenePhase][] {
  const { create, update } = phases
  return [['create', create], ...(update === undefined ? [] : [['update', update] as [ScenePhaseName, ScenePhase]])]
}
