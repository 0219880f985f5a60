/** The commands `spegel-ts benchmark …`. What they need is loaded when they run: the daemon does without it. */
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Scene } from '../benchmark/scene/scene.ts'
import type { ImageSet, MirrorSpec } from '../benchmark/target.ts'
import { systemClock } from '../lib/clock.ts'
import { type CommandSpec, type Surroundings, command, measurementGrace } from './command.ts'
import { networkCommands } from './benchmark-network.ts'
import { UsageError } from './option.ts'
import {
  type AnalyzeOptions,
  type ExportOptions,
  type GenerateOptions,
  type KubernetesClearOptions,
  type KubernetesDownOptions,
  type KubernetesRightsOptions,
  type LocalDownOptions,
  type MeasureOptions,
  type SuiteOptions,
  analyzeOptions,
  exportOptions,
  generateOptions,
  kubernetesClearOptions,
  kubernetesDownOptions,
  kubernetesRightsOptions,
  localDownOptions,
  measureOptions,
  suiteOptions,
} from './benchmark-options.ts'

export const benchmarkCommands: readonly CommandSpec[] = [
  command('benchmark generate', 'Make images to measure with.', generateOptions, runGenerate),
  command(
    'benchmark measure',
    'Measure image pulls with and without mirrors.',
    measureOptions,
    runMeasure,
    measurementGrace,
  ),
  command(
    'benchmark suite',
    'Measure the images of the published benchmark.',
    suiteOptions,
    runSuite,
    measurementGrace,
  ),
  command('benchmark analyze', 'Compare results: tables, plots, one report.', analyzeOptions, runAnalyze),
  command('benchmark export', 'Write a result as files of the Go tool.', exportOptions, runExport),
  command('benchmark local down', 'Remove what a killed measurement left.', localDownOptions, runLocalDown),
  ...networkCommands,
  command(
    'benchmark kubernetes rights',
    'Print what a measurement must be allowed in a cluster, for kubectl apply.',
    kubernetesRightsOptions,
    runKubernetesRights,
  ),
  command(
    'benchmark kubernetes down',
    'Remove what a killed measurement left in a cluster, and restore its nodes.',
    kubernetesDownOptions,
    runKubernetesDown,
    measurementGrace,
  ),
  command(
    'benchmark kubernetes clear',
    "What a measurement's agent does on its node: remove images, then answer /readyz until stopped.",
    kubernetesClearOptions,
    runKubernetesClear,
  ),
]

async function runGenerate(options: GenerateOptions, surroundings: Surroundings): Promise<void> {
  const { generate } = await import('./benchmark-generate.ts')
  await generate(options, surroundings)
}

async function runMeasure(options: MeasureOptions, surroundings: Surroundings): Promise<void> {
  if (targetOf(options) === 'kubernetes') {
    const { measureInCluster } = await import('./benchmark-kubernetes.ts')
    await measureInCluster(options, surroundings)
    return
  }
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

/** A kubeconfig that only lies in its usual place does not count: nobody's cluster shall be measured by accident. */
function targetOf({ target, kubeconfig }: MeasureOptions | SuiteOptions): 'local' | 'kubernetes' {
  return target ?? (kubeconfig === undefined ? 'local' : 'kubernetes')
}

/** A name alone is one of those that come with the program. */
function scenePath(text: string): string {
  if (text.includes('/') || text.endsWith('.json')) return text
  return fileURLToPath(new URL(`../../benchmark/scenarios/${text}.json`, import.meta.url))
}

async function runSuite(options: SuiteOptions, surroundings: Surroundings): Promise<void> {
  if (targetOf(options) === 'kubernetes') {
    const { suiteInCluster } = await import('./benchmark-kubernetes.ts')
    await suiteInCluster(options, surroundings)
    return
  }
  const { suiteImageSets } = await import('../benchmark/measure/images.ts')
  await runRounds(suiteImageSets(options.large), { ...options, scene: undefined }, surroundings)
}

async function runRounds(
  images: readonly ImageSet[],
  options: Omit<MeasureOptions, 'images' | 'scene'> & { scene: { name: string; scene: Scene } | undefined },
  surroundings: Surroundings,
): Promise<void> {
  const [
    { measureRounds },
    { Progress },
    { LocalTarget },
    { findPrograms },
    { describeMachine },
    { defaultScene },
    { firstWave },
    { memoryWarning, roundBytes },
    { defaultWorkFolder },
  ] = await Promise.all([
    import('./benchmark-rounds.ts'),
    import('../benchmark/measure/progress.ts'),
    import('../benchmark/local/local-target.ts'),
    import('../benchmark/local/programs.ts'),
    import('../testbed/machine.ts'),
    import('../benchmark/scene/scene.ts'),
    import('../benchmark/scene/arrivals.ts'),
    import('../benchmark/measure/noise.ts'),
    import('../benchmark/local/down.ts'),
  ])
  const { writeError, isTerminal, env, commandLine } = surroundings
  const progress = new Progress(writeError, isTerminal, systemClock)
  const mirrors = await parseMirrors(options, commandLine[0] ?? '')
  const programs = findPrograms({ containerds: options.containerd, registry: options.registry }, env['PATH'] ?? '')
  const machine = describeMachine()
  const { nodes, stagger: staggerMs, seed, upstreamRate, nodeRate } = options
  // Without a file its image stands for those that are measured.
  const scene = options.scene?.scene ?? defaultScene({ sizeBytes: 1, layers: 1 }, staggerMs)
  const waveSize = firstWave(scene, nodes)
  const workFolder = options.workDir ?? defaultWorkFolder(roundBytes(images, nodes))
  const warning = memoryWarning(images, nodes, machine.memoryGiB)
  if (warning !== undefined) progress.say(`warning: ${warning}`)
  progress.say(`nodes keep their files in ${workFolder}`)
  progress.say(`seed ${seed}`)
  const target = new LocalTarget({
    programs,
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
  const set = {
    waveSize,
    stagger: staggerMs * 1e6,
    ...(upstreamRate === undefined ? {} : { upstreamRate }),
    ...(nodeRate === undefined ? {} : { nodeRate }),
    ...(options.scene === undefined ? {} : { scene: options.scene.name }),
    storage: workFolder,
    expectFailures: scene.expectFailures,
  }
  const name = options.name ?? 'local'
  await measureRounds({ target, mirrors, images, progress, name, options, set, machine }, surroundings)
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

async function runExport({ path, outputDir }: ExportOptions, { write }: Surroundings): Promise<void> {
  const { exportGoSuites } = await import('../benchmark/result/go-tool-files.ts')
  for (const file of await exportGoSuites(path, outputDir)) write(`${file}\n`)
}

async function runKubernetesRights(
  { namespace, mirrorNamespace }: KubernetesRightsOptions,
  { write }: Surroundings,
): Promise<void> {
  const { rights } = await import('../benchmark/kubernetes/rights.ts')
  // JSON is YAML.
  const items = rights(namespace, mirrorNamespace)
  write(`${JSON.stringify({ apiVersion: 'v1', kind: 'List', items }, undefined, 2)}\n`)
}

async function runKubernetesDown(options: KubernetesDownOptions, surroundings: Surroundings): Promise<void> {
  const { takeClusterDown } = await import('./benchmark-kubernetes.ts')
  await takeClusterDown(options, surroundings)
}

async function runKubernetesClear(
  { containerdSock, addr, images }: KubernetesClearOptions,
  { stop }: Surroundings,
): Promise<void> {
  const { clearNode } = await import('../benchmark/kubernetes/clear.ts')
  await clearNode({ socketPath: containerdSock, images, addr, signal: stop })
}
