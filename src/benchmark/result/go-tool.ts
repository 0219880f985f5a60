/**
 * Result files of Spegel's benchmark tool, written in Go: a suite (`benchmarks` by name, and the nodes), or one
 * measurement (`create` and `update` only). Durations are nanoseconds. It measures one mirror, once, and does not say
 * which node a sample is of.
 */
import { basename } from 'node:path'
import { z } from 'zod'
import { UserError } from '../../lib/errors.ts'
import { firstIssue } from '../checked-json.ts'
import type { Phase, PhaseName } from './schema.ts'

const sizeAndLayers = /\d+(?:MB|GB)-\d+/

const instant = z.iso.datetime({ offset: true })

const sample = z.object({ start: instant, stop: instant, duration: z.int().min(0) })
const measurement = z.object({ image: z.string(), samples: z.array(sample).min(1) })
const benchmark = z.object({ create: measurement, update: measurement })

const suiteSchema = z.object({
  kubernetesVersion: z.string().optional(),
  name: z.string().optional(),
  timestamp: z.string().optional(),
  benchmarks: z.record(z.string(), benchmark).refine((byName) => Object.keys(byName).length > 0, 'is empty'),
  nodes: z
    .array(
      z.object({
        name: z.string(),
        instanceType: z.string(),
        memory: z.union([z.string(), z.number()]),
        cpu: z.union([z.string(), z.number()]),
      }),
    )
    .nullish(),
})

export interface GoRun {
  name: string
  path: string
  kubernetesVersion: string | undefined
  timestamp: string | undefined
  nodes: readonly { name: string; instanceType: string; memory: string | number; cpu: string | number }[]
  benchmarks: readonly { image: string; phases: Record<PhaseName, Phase> }[]
}

export function isGoResult(document: unknown): boolean {
  return (
    typeof document === 'object' &&
    document !== null &&
    ('benchmarks' in document || 'create' in document || 'update' in document)
  )
}

/** Throws a UserError that names the file and the first thing that is wrong in it. */
export function parseGoResult(document: unknown, path: string): GoRun {
  const isSuite = typeof document === 'object' && document !== null && 'benchmarks' in document
  const fileName = basename(path, '.json')
  const parsed = suiteSchema.safeParse(isSuite ? document : { name: fileName, benchmarks: { [fileName]: document } })
  if (!parsed.success) {
    throw new UserError(
      `${path}: a result of the Go tool, but ${firstIssue(parsed.error)}; measure again, or leave the file out`,
    )
  }
  const { name, kubernetesVersion, timestamp, benchmarks, nodes } = parsed.data
  return {
    name: name === undefined || name === '' ? fileName : name,
    path,
    kubernetesVersion,
    timestamp,
    nodes: nodes ?? [],
    benchmarks: Object.entries(benchmarks).map(([key, { create, update }]) => ({
      // The file of a single measurement names the image by its reference only.
      image: isSuite ? key : (sizeAndLayers.exec(create.image)?.[0] ?? create.image),
      phases: { create: toPhase(create), update: toPhase(update) },
    })),
  }
}

function toPhase({ image, samples }: z.infer<typeof measurement>): Phase {
  const firstStartMs = Math.min(...samples.map(({ start }) => Date.parse(start)))
  const pulls = samples.map(({ start, duration }, index) => ({
    node: `sample ${index + 1}`,
    wave: 1,
    image,
    started: Math.round((Date.parse(start) - firstStartMs) * 1e6),
    duration,
    blobs: [],
  }))
  return {
    started: new Date(firstStartMs).toISOString(),
    duration: Math.max(...pulls.map((pull) => pull.started + pull.duration)),
    pulls,
    imageBytes: 0,
    upstream: {},
  }
}
