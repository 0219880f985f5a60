/**
 * Measures mirrors against each other: round by round, in each round every image with every mirror, in random order.
 * The result is written when all mirrors had their turn with an image; the same call on the same folder goes on where it was broken off.
 */
import { isDeepStrictEqual } from 'node:util'
import { UserError } from '../../lib/errors.ts'
import { makeDirectory } from '../../lib/make-directory.ts'
import type { ImageSet, ImageSource, MirrorSpec, Target } from '../target.ts'
import { readResult, writeResult } from '../result/result-file.ts'
import { type Result, type Round, schemaName } from '../result/schema.ts'
import { noiseOf } from './noise.ts'
import { type Turn, turnsOf } from './plan.ts'
import type { Progress } from './progress.ts'

export interface MeasureInit {
  folder: string
  target: Target
  mirrors: readonly MirrorSpec[]
  images: readonly ImageSet[]
  /** Rounds that count; one more warms up. */
  rounds: number
  /** How often rounds of one image may be repeated because of noise. */
  repeatsMax: number
  facts: Pick<Result, 'name' | 'tool' | 'machine'> & { set: Omit<Result['set'], 'nodes' | 'target'> }
  /** Wall clock. */
  now: () => Date
  progress: Progress
  signal: AbortSignal
}

/** Returns the complete result. Rejects when it is broken off; what was measured is in the folder. */
export async function measure(init: MeasureInit): Promise<Result> {
  const { folder, target, progress, signal } = init
  await makeDirectory(folder)
  const before = await readResult(folder)
  if (before !== undefined) refuseOther(before, init)
  if (before?.complete === true) {
    throw new UserError(`${folder} holds this measurement already, complete: see benchmark analyze --path ${folder}`)
  }
  const now = () => init.now().toISOString()
  try {
    const { links, nodes } = await target.open(signal)
    if (before !== undefined && before.set.nodes.length !== nodes.length) {
      refuse(folder, [`there were ${before.set.nodes.length} nodes, are ${nodes.length}`])
    }
    const result: Result = before ?? {
      schema: schemaName,
      ...init.facts,
      started: now(),
      updated: now(),
      complete: false,
      set: { ...init.facts.set, target: target.kind, nodes },
      ...(links === undefined ? {} : { links }),
      ...describeParties(init),
      rounds: [],
    }
    const save = () => writeResult(folder, Object.assign(result, { updated: now() }))
    await save()
    progress.start(result.rounds, init)
    for (let round = 0; round <= init.rounds; round++) {
      for (const images of init.images) {
        await measureRound(init, result, turnsOf(round, images, init.mirrors, init.facts.set.seed), save, now)
        signal.throwIfAborted()
      }
    }
    result.complete = true
    await save()
    return result
  } finally {
    progress.end()
    await target.close()
  }
}

/** All mirrors with one image; again when one of them was disturbed, as long as repeats are left. */
async function measureRound(
  { target, signal, progress, repeatsMax }: MeasureInit,
  result: Result,
  turns: readonly Turn[],
  save: () => Promise<void>,
  now: () => string,
): Promise<void> {
  const [first] = turns
  if (first === undefined) return
  const { round: number, images } = first
  const sameImage = () => result.rounds.filter(({ image }) => image === images.name)
  const done = sameImage().filter((round) => round.number === number)
  if (done.some(({ counts }) => counts || number === 0)) return
  for (let attempt = 1 + Math.max(0, ...done.map((round) => round.attempt)); ; attempt++) {
    const measured: Round[] = []
    for (const turn of turns) {
      signal.throwIfAborted()
      const started = now()
      const { phases, missed } = await measureTurn(
        target,
        turn,
        `${result.set.seed}/${number}/${attempt}/${turn.mirror.name}`,
        signal,
      )
      measured.push({
        number,
        attempt,
        image: images.name,
        mirror: turn.mirror.name,
        position: turn.position,
        started,
        counts: false,
        noise: [...noiseOf(phases), ...missed],
        phases,
      })
      progress.turnDone(turn, phases, measured.at(-1)?.noise ?? [])
    }
    result.rounds.push(...measured)
    const isNoisy = measured.some(({ noise }) => noise.length > 0)
    const repeats = new Set(
      sameImage()
        .filter((round) => round.attempt > 1)
        .map((round) => `${round.number} ${round.attempt}`),
    ).size
    const again = number > 0 && isNoisy && repeats < repeatsMax
    if (number > 0 && !again) for (const round of measured) round.counts = true
    await save()
    if (!again) return
    progress.repeat(
      turns.length,
      `${images.name}: round ${number} is repeated: ${measured.flatMap(({ noise }) => noise)[0] ?? ''}`,
    )
  }
}

async function measureTurn(
  target: Target,
  { mirror, images, round }: Turn,
  salt: string,
  signal: AbortSignal,
): Promise<{ phases: Round['phases']; missed: string[] }> {
  await target.prepare(images, salt)
  try {
    const create = await target.measure({ mirror, images, phase: 'create', round }, signal)
    if (images.update.length === 0) return { phases: { create: create.phase }, missed: create.missed }
    const update = await target.measure({ mirror, images, phase: 'update', round }, signal)
    return { phases: { create: create.phase, update: update.phase }, missed: [...create.missed, ...update.missed] }
  } finally {
    if (!signal.aborted) await target.clear()
  }
}

/** A folder holds one measurement: figures of different set-ups must not mix. */
function refuseOther(before: Result, init: MeasureInit): void {
  const { facts, rounds, folder } = init
  // As in the file, where nothing is undefined; the order of keys says nothing.
  const written = (value: unknown) => JSON.parse(JSON.stringify(value)) as unknown
  const differs = (what: string, was: unknown, is: unknown) =>
    isDeepStrictEqual(written(was), written(is))
      ? []
      : [`${what}: was ${JSON.stringify(was)}, is ${JSON.stringify(is)}`]
  const { nodes: _nodes, target: _target, leftOut: _leftOut, ...set } = before.set
  const { leftOut: _leftOutNow, ...setNow } = facts.set
  const { mirrors, images } = describeParties(init)
  const problems = [
    ...differs('mirrors', before.mirrors, mirrors),
    ...differs('images', before.images, images),
    ...differs('rounds', before.set.rounds, rounds),
    ...differs('options', set, setNow),
    ...differs('version', versionOf(before), versionOf(facts)),
  ]
  if (problems.length > 0) refuse(folder, problems)
}

function refuse(folder: string, problems: readonly string[]): never {
  throw new UserError(`${folder} holds another measurement (${problems.join('; ')}): choose an empty --result-dir`)
}

function versionOf({ tool: { version, commit } }: Pick<Result, 'tool'>) {
  return { version, commit }
}

function describeParties({ mirrors, images }: MeasureInit): Pick<Result, 'mirrors' | 'images'> {
  return {
    mirrors: mirrors.map(({ name, command }) => ({ name, ...(command === undefined ? {} : { command }) })),
    images: images.map(({ name, create, update }) => ({
      name,
      create: create.map(describeSource),
      update: update.map(describeSource),
    })),
  }
}

function describeSource(source: ImageSource): Result['images'][number]['create'][number] {
  if (source.kind !== 'generated') return { reference: source.reference, bytes: 0, layers: [] }
  const { reference, sizeBytes, layers } = source
  return { reference, bytes: sizeBytes, layers: Array.from({ length: layers }, () => Math.floor(sizeBytes / layers)) }
}
