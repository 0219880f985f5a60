/** `spegel-ts benchmark …` in a Kubernetes cluster. Loaded when it runs: the client library is large. */
import { KubernetesClient } from '../benchmark/kubernetes/client.ts'
import { findLeftovers, takeDown } from '../benchmark/kubernetes/down.ts'
import { readKubeconfig } from '../benchmark/kubernetes/kubeconfig.ts'
import { KubernetesTarget, readNodes, waveSizeOf } from '../benchmark/kubernetes/kubernetes-target.ts'
import { type InstalledMirror, findMirror } from '../benchmark/kubernetes/mirror.ts'
import { imageSet, registryImageSet, registrySuiteImageSets, suiteImageSets } from '../benchmark/measure/images.ts'
import { Progress } from '../benchmark/measure/progress.ts'
import type { ImageSet, MirrorSpec } from '../benchmark/target.ts'
import { parsePushTarget } from '../images/push-target.ts'
import { systemClock } from '../lib/clock.ts'
import { UserError } from '../lib/errors.ts'
import type { KubernetesDownOptions, MeasureOptions, SuiteOptions } from './benchmark-options.ts'
import { measureRounds } from './benchmark-rounds.ts'
import type { Surroundings } from './command.ts'
import { UsageError } from './option.ts'
import { versionInfo } from './version.ts'

const imageRepository = 'ghcr.io/spegel-ts/spegel-ts'
const defaultNamespace = 'spegel-ts-benchmark'

type RunOptions = Omit<SuiteOptions, 'large' | 'repository'>

export async function measureInCluster(options: MeasureOptions, surroundings: Surroundings): Promise<void> {
  const [create, update, ...more] = options.images
  if (options.scene !== undefined) throw new UsageError('benchmark measure: a --scene needs --target local')
  if (create === undefined || update === undefined || more.length > 0) {
    throw new UsageError(
      'benchmark measure: --images wants two images of a registry: what pods have first, and its update',
    )
  }
  const images = options.push === undefined ? registryImageSet(create, update) : imageSet(create, update)
  await runInCluster([images], options, surroundings)
}

export async function suiteInCluster(options: SuiteOptions, surroundings: Surroundings): Promise<void> {
  const { push, repository, large } = options
  const images = push === undefined ? registrySuiteImageSets(repository, large) : suiteImageSets(large)
  await runInCluster(images, options, surroundings)
}

async function runInCluster(
  images: readonly ImageSet[],
  options: RunOptions,
  surroundings: Surroundings,
): Promise<void> {
  refuseLocalOptions(options)
  const { push } = options
  if (push !== undefined) {
    // Before anything is made.
    parsePushTarget(`${push}:tag`)
    const sources = images.flatMap(({ create, update }) => [...create, ...update])
    if (sources.some(({ kind }) => kind === 'layout')) {
      throw new UsageError(
        '--push makes images anew: give names such as v1-10MB-4; benchmark generate pushes layouts',
      )
    }
  }
  const { writeError, isTerminal, env } = surroundings
  const { kubeconfig: files, context, namespace, containerdSock } = options
  const config = readKubeconfig({ files, context, home: env['HOME'] })
  const client = new KubernetesClient(config)
  const { gitVersion } = await client.ask<{ gitVersion: string }>({ path: '/version' })
  const progress = new Progress(writeError, isTerminal, systemClock)
  const say = (line: string) => progress.say(line)
  const installed = await findMirror(client, options.mirrorDaemonset)
  const mirrors = mirrorsInCluster(options.mirror, options.noneRounds, installed)
  const { nodes, leftOut } = await readNodes(client, installed)
  const cluster = config.getCurrentCluster()
  say(`${cluster?.name} (${cluster?.server}, Kubernetes ${gitVersion}): ${nodes.length} nodes`)
  for (const { name, why } of leftOut) say(`warning: ${name} is left out: ${why}`)
  say(installed === undefined ? 'no mirror is installed' : `mirror: ${installed.namespace}/${installed.daemonSet}`)
  const agentImage = options.agentImage ?? (installed?.isOurs === true ? installed.image : imageOfThisVersion())
  const target = new KubernetesTarget({
    client,
    namespace,
    installed,
    mirrors,
    push: push === undefined ? undefined : { repository: push, env },
    agentImage,
    containerdSock,
    nodes,
    say,
  })
  await measureRounds(
    {
      target,
      mirrors,
      images,
      progress,
      name: options.name ?? cluster?.name ?? 'kubernetes',
      options,
      set: {
        waveSize: waveSizeOf(nodes.length),
        stagger: 0,
        expectFailures: 0,
        kubernetes: gitVersion,
        ...(leftOut.length === 0 ? {} : { leftOut }),
      },
    },
    surroundings,
  )
}

export function imageOfThisVersion(): string {
  return `${imageRepository}:${versionInfo().version}`
}

/** Throws a UsageError: a cluster has one mirror, which can be switched off if we know how. */
export function mirrorsInCluster(
  texts: readonly string[],
  noneRounds: number,
  installed: InstalledMirror | undefined,
): MirrorSpec[] {
  const usual = installed === undefined ? ['none'] : ['none', installed.name]
  const names = texts.length === 0 ? usual : texts
  const wrong = names.find((name) => !/^[\w.-]+$/.test(name))
  if (wrong !== undefined) {
    throw new UsageError(`--mirror: "${wrong}": in a cluster write none, or a name for what is installed`)
  }
  const [first, other] = names.filter((name) => name !== 'none')
  if (other !== undefined || names.length > new Set(names).size) {
    throw new UsageError(
      `--mirror: a cluster has one mirror at a time: measure ${first ?? 'it'}, install the other, measure again, and compare the two results`,
    )
  }
  if (first !== undefined && installed === undefined && names.includes('none')) {
    throw new UsageError(
      `--mirror: there is no mirror whose hosts.toml we could switch off: measure "none" before ${first} is installed, then ${first} alone`,
    )
  }
  const described = installed === undefined ? 'as it is installed' : [installed.image, ...installed.args].join(' ')
  return names.map((name) =>
    name === 'none'
      ? { name, command: undefined, ...(noneRounds === 0 ? {} : { rounds: noneRounds }) }
      : { name, command: described },
  )
}

/** What would be silently ignored. */
function refuseLocalOptions(options: RunOptions): void {
  const given = {
    '--stagger': options.stagger > 0,
    '--upstream-rate': options.upstreamRate !== undefined,
    '--node-rate': options.nodeRate !== undefined,
    '--containerd': options.containerd.length > 0,
    '--containerd-config': options.containerdConfig !== undefined,
    '--registry': options.registry !== undefined,
    '--work-dir': options.workDir !== undefined,
  }
  const flags = Object.entries(given).flatMap(([flag, isGiven]) => (isGiven ? [flag] : []))
  if (flags.length > 0) throw new UsageError(`${flags.join(', ')}: only for --target local; a cluster is as it is`)
}

export async function takeClusterDown(options: KubernetesDownOptions, { write, env }: Surroundings): Promise<void> {
  const { kubeconfig: files, context, namespace } = options
  const client = new KubernetesClient(readKubeconfig({ files, context, home: env['HOME'] }))
  const namespaces = namespace === undefined ? await findLeftovers(client, defaultNamespace) : [namespace]
  let found = 0
  const problems: string[] = []
  for (const one of namespaces) {
    try {
      for (const line of await takeDown(client, one)) {
        found += 1
        write(`${line}\n`)
      }
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      problems.push(error.message)
    }
  }
  if (problems.length > 0) throw new UserError(problems.join('; '))
  if (found === 0) write('nothing was left\n')
}
