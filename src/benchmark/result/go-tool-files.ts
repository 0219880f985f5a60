/** A result of this tool as files of the Go tool: one suite for each mirror, with a sample for every pull of a good round. */
import { join } from 'node:path'
import { writeFileAtomic } from '../../lib/atomic-file.ts'
import { UserError } from '../../lib/errors.ts'
import { makeDirectory } from '../../lib/make-directory.ts'
import { readResult } from './result-file.ts'
import type { Phase, Result } from './schema.ts'

interface GoSample {
  start: string
  stop: string
  duration: number
}

interface GoMeasurement {
  image: string
  samples: GoSample[]
}

export interface GoSuite {
  kubernetesVersion: string
  name: string
  timestamp: string
  benchmarks: Record<string, { create: GoMeasurement; update: GoMeasurement }>
  nodes: { name: string; instanceType: string; memory: number; cpu: number }[]
}

/** Returns the paths of the files. Throws a UserError. */
export async function exportGoSuites(path: string, outputFolder: string): Promise<string[]> {
  const result = await readResult(path)
  if (result === undefined)
    throw new UserError(`--path: ${path} has no result.json: name the folder of a measurement`)
  const suites = goSuites(result)
  if (suites.length === 0) throw new UserError(`${path}: no round with both phases that counts: measure again`)
  await makeDirectory(outputFolder)
  const files: string[] = []
  for (const suite of suites) {
    // As the Go tool names them.
    const file = join(outputFolder, `${suite.name.toLowerCase().replaceAll('.', '').replaceAll(' ', '-')}.json`)
    await writeFileAtomic(file, `${JSON.stringify(suite)}\n`, 0o644)
    files.push(file)
  }
  return files
}

export function goSuites({ mirrors, images, rounds, set, started }: Result): GoSuite[] {
  const suites = mirrors.map(({ name }): GoSuite => {
    const benchmarks: GoSuite['benchmarks'] = {}
    for (const image of images) {
      const counting = rounds.filter((round) => round.counts && round.mirror === name && round.image === image.name)
      const good = counting.filter(({ noise }) => noise.length === 0)
      const used = (good.length > 0 ? good : counting).map(({ phases }) => phases)
      const create = measurement(used.map((phases) => phases.create))
      const update = measurement(used.map((phases) => phases.update))
      if (create !== undefined && update !== undefined) benchmarks[image.name] = { create, update }
    }
    return {
      kubernetesVersion: set.kubernetes ?? '',
      name,
      timestamp: started,
      benchmarks,
      nodes: set.nodes.map((node) => ({
        name: node.name,
        instanceType: node.instanceType ?? '',
        memory: quantity(node.memory),
        cpu: quantity(node.cpu),
      })),
    }
  })
  return suites.filter(({ benchmarks }) => Object.keys(benchmarks).length > 0)
}

/** The Go tool knows no failed pulls. */
function measurement(phases: readonly (Phase | undefined)[]): GoMeasurement | undefined {
  const pulls = phases.flatMap((phase) =>
    (phase?.pulls ?? [])
      .filter(({ error }) => error === undefined)
      .map((pull) => ({ ...pull, startMs: Date.parse(phase?.started ?? '') + pull.started / 1e6 })),
  )
  const [first] = pulls
  if (first === undefined) return undefined
  return {
    image: first.image,
    samples: pulls.map(({ startMs, duration }) => ({
      start: new Date(startMs).toISOString(),
      stop: new Date(startMs + duration / 1e6).toISOString(),
      duration,
    })),
  }
}

const factors: Readonly<Record<string, number>> = {
  '': 1,
  m: 1e-3,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
}

/** Of Kubernetes, such as `3920m` or `32863240Ki`; 0: not known. */
function quantity(text: string | undefined): number {
  const [, number = '0', unit = ''] = /^(\d+(?:\.\d+)?)(m|[KMGT]i)?$/.exec(text ?? '') ?? []
  return Math.floor(Number(number) * (factors[unit] ?? 1))
}
