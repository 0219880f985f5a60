/** `spegel-ts benchmark network run` in a cluster. Loaded when it runs: the client library is large. */
import { KubernetesClient } from '../benchmark/kubernetes/client.ts'
import { readKubeconfig } from '../benchmark/kubernetes/kubeconfig.ts'
import { installedMirrors } from '../benchmark/kubernetes/mirror.ts'
import { measureClusterNetwork } from '../benchmark/kubernetes/network.ts'
import { pathNames } from '../benchmark/kubernetes/network-objects.ts'
import { type NodeObject, chooseNodes, choosePair } from '../benchmark/kubernetes/nodes.ts'
import { totalTimes } from '../benchmark/network/run.ts'
import { formatDuration } from '../lib/duration.ts'
import { UserError } from '../lib/errors.ts'
import { systemRandom } from '../lib/random.ts'
import { imageOfThisVersion } from './benchmark-kubernetes.ts'
import { type RunOptions, announcement, brokenOff, conclude, saveResult } from './benchmark-network.ts'
import type { Surroundings } from './command.ts'

/** Beside the measurements: the agents' timeout, and the end. */
const startMs = 60_000

export async function runInCluster(
  options: RunOptions,
  { writeError, write, env, stop, commandLine }: Surroundings,
): Promise<void> {
  const { kubeconfig: files, context, namespace, resultDir, rounds, duration, connections, agentPort } = options
  if (resultDir === '-') throw new UserError('--result-dir: in a cluster the result goes into a folder')
  const config = readKubeconfig({ files, context, home: env['HOME'] })
  const client = new KubernetesClient(config)
  const { gitVersion } = await client.ask<{ gitVersion: string }>({ path: '/version' })
  const { items } = await client.ask<{ items: NodeObject[] }>({ path: '/api/v1/nodes' })
  const nodes = choosePair(chooseNodes(items), options.nodes)
  const installed = options.agentImage === undefined ? await installedMirrors(client) : []
  const image = options.agentImage ?? installed.find(({ isOurs }) => isOurs)?.image ?? imageOfThisVersion()
  const cluster = config.getCurrentCluster()
  const say = (line: string) => writeError(`${line}\n`)
  say(
    `${cluster?.name} (${cluster?.server}, Kubernetes ${gitVersion}): from ${nodes.here.name} to ${nodes.there.name}`,
  )
  const settings = { durationMs: duration, connections, random: systemRandom }
  const { expectedMs, mostMs } = totalTimes(pathNames.length, { rounds, settings })
  say(announcement(pathNames, rounds, expectedMs))
  const measured = await measureClusterNetwork({
    client,
    plan: { namespace, image, port: agentPort, nodes },
    args: [`--rounds=${rounds}`, `--duration=${formatDuration(duration)}`, `--connections=${connections}`],
    mostMs: startMs + mostMs,
    say,
    signal: stop,
  }).catch((error: unknown) => {
    if (!stop.aborted || error instanceof UserError) throw error
    return undefined
  })
  if (measured === undefined) throw new UserError('broken off before anything was measured')
  const { tool, set, ...rest } = measured
  const result = {
    ...rest,
    name: options.name ?? cluster?.name ?? 'kubernetes',
    tool: { ...tool, command: commandLine.slice(1) },
    set: {
      ...set,
      target: 'kubernetes' as const,
      kubernetes: gitVersion,
      nodes: { here: nodes.here.name, there: nodes.there.name },
    },
  }
  await saveResult(resultDir, result)
  if (!result.complete) throw new UserError(brokenOff(resultDir))
  conclude(result, resultDir, write)
}
