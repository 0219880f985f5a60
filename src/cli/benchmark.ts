/** The commands `spegel-ts benchmark …`. What they need is loaded when they run: the daemon does without it. */
import { totalmem } from 'node:os'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Scene } from '../benchmark/scene/scene.ts'
import { UserError } from '../lib/errors.ts'
import type { ImageSet, MirrorSpec } from '../benchmark/target.ts'
import { systemClock } from '../lib/clock.ts'
import { type CommandSpec, type Surroundings, command } from './command.ts'
import { networkCommands } from './benchmark-network.ts'
import { UsageError } from './option.ts'
import {
  type AnalyzeOptions,
  type GenerateOptions,
  type LocalDownOptions,
  type MeasureOptions,
  type SuiteOptions,
  analyzeOptions,
  generateOptions,
  localDownOptions,
  measureOptions,
  suiteOptions,
} from './benchmark-options.ts'
import { versionInfo } from './version.ts'

export const benchmarkCommands: readonly CommandSpec[] = [
  command('benchmark generate', 'Make images to measure with.', generateOptions, runGenerate),
  command('benchmark measure', 'Measure image pulls with and without mirrors.', measureOptions, runMeasure),
  command('benchmark suite', 'Measure the images of the published benchmark.', suiteOptions, runSuite),
  command('benchmark analyze', 'Compare results: tables, plots, one report.', analyzeOptions, runAnalyze),
  command('benchmark local down', 'Remove what a killed measurement left.', localDownOptions, runLocalDown),
  ...networkCommands,
]

async function runGenerate(options: GenerateOptions, surroundings: Surroundings): Promise<void> {
  const { generate } = await import('./benchmark-generate.ts')
  await generate(options, surroundings)
}

async function runMeasure(options: MeasureOptions, surroundings: Surroundings): Promise<void> {
  const { imageSet, sceneImageSet } = await import('../benchmark/measure/images.ts')
  const [create, update, ...more] = options.images
  if (options.scene !== undefined) {
    if (update !== undefined || options.stagger > 0) {
      throw new UsageError('benchmark measure: a --scene says who pulls what when: one --images and no --stagger')
    }
    const { checkNodes, loadScene, withImages } = await import('../benchmark/scene/scene.ts')
    const { sceneImage } = await import('../benchmark/measure/images.ts')
    const written = await loadScene(scenePath(options.scene))
    const scene = create === undefined ? written : withImages(written, sceneImage(create))
    checkNodes(scene, options.nodes)
    const name = [basename(options.scene, '.json'), ...options.images].join(' ')
    await runRounds([sceneImageSet(name, scene)], { ...options, scene: { name, scene } }, surroundings)
    return
  }
  if (create === undefined || update === undefined || more.length > 0) {
    throw new UsageError('benchmark measure: --images wants two images, such as v1-10MB-1 v2-10MB-1')
  }
  await runRounds([imageSet(create, update)], { ...options, scene: undefined }, surroundings)
}

/** A name alone is one of those that come with the program. */
function scenePath(text: string): string {
  if (text.includes('/') || text.endsWith('.json')) return text
  return fileURLToPath(new URL(`../../benchmark/scenarios/${text}.json`, import.meta.url))
}

async function runSuite(options: SuiteOptions, surroundings: Surroundings): Promise<void> {
  const { suiteImageSets } = await import('../benchmark/measure/images.ts')
  await runRounds(suiteImageSets(options.large), { ...options, scene: undefined }, surroundings)
}

async function runRounds(
  images: readonly ImageSet[],
  options: Omit<MeasureOptions, 'images' | 'scene'> & { scene: { name: string; scene: Scene } | undefined },
  { writeError, write, isTerminal, stop, env, commandLine }: Surroundings,
): Promise<void> {
  const [
    { measure },
    { Progress },
    { LocalTarget },
    { findPrograms },
    { describeMachine },
    { defaultScene },
    { firstWave },
    { memoryWarning, roundBytes },
    { defaultWorkFolder },
  ] = await Promise.all([
    import('../benchmark/measure/measure.ts'),
    import('../benchmark/measure/progress.ts'),
    import('../benchmark/local/local-target.ts'),
    import('../benchmark/local/programs.ts'),
    import('../testbed/machine.ts'),
    import('../benchmark/scene/scene.ts'),
    import('../benchmark/scene/arrivals.ts'),
    import('../benchmark/measure/noise.ts'),
    import('../benchmark/local/down.ts'),
  ])
  const progress = new Progress(writeError, isTerminal, systemClock)
  const mirrors = await parseMirrors(options, commandLine[0] ?? '')
  const machine = describeMachine()
  const { nodes, stagger: staggerMs, rounds, seed, upstreamRate, nodeRate } = options
  // Without a file its image stands for those that are measured.
  const scene = options.scene?.scene ?? defaultScene({ sizeBytes: 1, layers: 1 }, staggerMs)
  const waveSize = firstWave(scene, nodes)
  const workFolder = options.workDir ?? defaultWorkFolder(roundBytes(images, nodes))
  const warning = memoryWarning(images, nodes, machine.memoryGiB)
  if (warning !== undefined) progress.say(`warning: ${warning}`)
  progress.say(`nodes keep their files in ${workFolder}`)
  progress.say(`seed ${seed}`)
  const target = new LocalTarget({
    programs: findPrograms({ containerds: options.containerd, registry: options.registry }, env['PATH'] ?? ''),
    nodes,
    upstreamRate,
    nodeRate,
    containerdConfig: options.containerdConfig,
    mirrors,
    scene,
    seed,
    workFolder,
    say: (line) => progress.say(line),
  })
  const { version } = versionInfo()
  const result = await measure({
    folder: options.resultDir,
    target,
    mirrors,
    images,
    rounds,
    repeatsMax: options.repeats,
    facts: {
      name: options.name,
      tool: { version, commit: machine.commit, node: machine.node, command: commandLine.slice(1) },
      machine: {
        cpu: machine.cpu,
        cores: machine.cores,
        memoryBytes: totalmem(),
        kernel: machine.kernel,
        load: machine.load,
      },
      set: {
        seed,
        rounds,
        waveSize,
        stagger: staggerMs * 1e6,
        ...(upstreamRate === undefined ? {} : { upstreamRate }),
        ...(nodeRate === undefined ? {} : { nodeRate }),
        ...(options.scene === undefined ? {} : { scene: options.scene.name }),
        storage: workFolder,
        expectFailures: scene.expectFailures,
      },
    },
    now: () => new Date(),
    progress,
    signal: stop,
  }).catch((error: unknown) => {
    if (!stop.aborted) throw error
    throw new UserError('broken off: the same command goes on')
  })
  write(`${options.resultDir}/result.json: see it with spegel-ts benchmark analyze --path ${options.resultDir}\n`)
  const failures = result.rounds
    .flatMap(({ phases }) => [phases.create, phases.update])
    .map((phase) => phase?.pulls.filter(({ error }) => error !== undefined) ?? [])
  const unexpected = failures.filter(({ length }) => length > scene.expectFailures)
  const [first] = unexpected.flat()
  if (first === undefined) return
  throw new UserError(`${unexpected.flat().length} pulls failed, the first on ${first.node}: ${first.error}`)
}

async function parseMirrors(
  { mirror: texts, noneRounds }: Pick<MeasureOptions, 'mirror' | 'noneRounds'>,
  bundle: string,
): Promise<MirrorSpec[]> {
  const { ownCommand } = await import('../benchmark/local/mirrors.ts')
  const mirrors = (texts.length === 0 ? ['none', 'spegel-ts'] : texts).map((text): MirrorSpec => {
    if (text === 'none') {
      return { name: text, command: undefined, ...(noneRounds === 0 ? {} : { rounds: noneRounds }) }
    }
    if (text === 'spegel-ts') return { name: text, command: ownCommand(bundle) }
    const { name, command: foreign } = /^(?<name>[\w.-]+)=(?<command>.+)$/s.exec(text)?.groups ?? {}
    if (name === undefined || foreign === undefined) {
      throw new UsageError(`--mirror: "${text}" is not none, spegel-ts or NAME=COMMAND`)
    }
    return { name, command: foreign }
  })
  const names = mirrors.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw new UsageError(`--mirror: two are called "${twice}": write NAME=COMMAND`)
  return mirrors
}

async function runAnalyze({ path, outputDir }: AnalyzeOptions, { write }: Surroundings): Promise<void> {
  const { analyze } = await import('../benchmark/analyze/analyze.ts')
  await analyze({ paths: path, outputDir, write })
}

async function runLocalDown(_options: LocalDownOptions, { write }: Surroundings): Promise<void> {
  const { removeLeftoversOfBeds } = await import('../benchmark/local/down.ts')
  const removed = await removeLeftoversOfBeds()
  write(removed.length === 0 ? 'nothing was left\n' : removed.map((line) => `removed ${line}\n`).join(''))
}
