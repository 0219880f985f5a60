/**
 * containerd nodes pull without a pause while `configuration` and `cleanup` run in a loop on each of them and are killed
 * at random moments: no pull fails and no file of the user is lost. Three nodes for 5 s; `ROUNDS=500` runs that many
 * commands on eight nodes instead, `SEED` repeats their order, `CONTAINERD=containerdOld` takes the older one.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, watch } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { errorMessage } from '../../src/lib/errors.ts'
import { Cluster, type ClusterInit } from '../../src/testbed/cluster.ts'
import type { ContainerdNode } from '../../src/testbed/containerd-node.ts'
import { HostsJudge, type TreeEntry, type TreeStep } from '../support/hosts-judge.ts'
import { type Random, seededRandom } from '../support/random.ts'

const spegel = fileURLToPath(new URL('../../bin/spegel-ts', import.meta.url))
const containerd = (process.env['CONTAINERD'] ?? 'containerdNew') as ClusterInit['containerd']
const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const rounds = Number(process.env['ROUNDS'] ?? 0)
const durationMs = rounds === 0 ? 5_000 : 3_600_000
const nodes = rounds === 0 ? 3 : 8
const pullTimeoutMs = 60_000
/** A command that did nothing after this long is killed all the same. */
const commandLimitMs = 20_000
/** A cleanup without anything to restore waits for its end. */
const idleLimitMs = 2_000
/** Of configuration's work and of cleanup's, once it has begun. */
const workMs = 10

interface Tally {
  pulls: number
  failedPulls: string[]
  runs: number
  killed: number
  added: number
}

describe('nodes that pull while configuration and cleanup run and are killed', () => {
  let cluster: Cluster
  let judge: HostsJudge
  let reference = ''
  const originals = new Map<ContainerdNode, Map<string, TreeEntry>>()

  beforeAll(async () => {
    process.stderr.write(`hosts-churn: SEED=${seed}\n`)
    const judges = await HostsJudge.startAll()
    await Promise.all(judges.slice(1).map((each) => each.close()))
    judge = judges[0] as HostsJudge
    cluster = await Cluster.create({ nodes, containerd, withoutDaemons: true })
    ;({ reference } = await cluster.publish('small:v1', { sizeBytes: 64 * 1024, layers: 2, seed: 'small' }))
    // One after the other: eight daemons that start at the same time take minutes on two cores.
    for (const node of cluster.nodes) {
      await judge.make(node.folder, userTree(cluster.registry))
      originals.set(node, await judge.snapshot(node.certsFolder))
      await configure(node)
      await node.startDaemon(cluster.peers)
    }
  })
  afterAll(async () => {
    await judge.close()
    await cluster.close()
  })

  const configure = (node: ContainerdNode) => node.configure('_default', ['--prepend-existing'])

  it(
    'fails no pull and loses no file',
    async () => {
      const tally: Tally = { pulls: 0, failedPulls: [], runs: 0, killed: 0, added: 0 }
      const endMs = performance.now() + durationMs
      const isOver = () => (rounds > 0 && tally.runs >= rounds) || performance.now() > endMs
      await Promise.all(
        cluster.nodes.map(async (node, index) => {
          let isChurning = true
          const churn = churnOn(node, seededRandom(seed + index), tally, isOver).finally(() => (isChurning = false))
          await Promise.all([churn, pullOn(node, tally, () => !isChurning)])
        }),
      )
      report(tally)
      expect(tally.failedPulls).toEqual([])
      expect(tally.pulls).toBeGreaterThan(cluster.nodes.length)
      const lost: string[] = []
      for (const node of cluster.nodes) lost.push(...(await lostOn(node)))
      expect(lost).toEqual([])
    },
    durationMs + 300_000,
  )

  async function pullOn(node: ContainerdNode, tally: Tally, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      tally.pulls += 1
      try {
        await node.cri.pull(reference, pullTimeoutMs)
        await node.cri.remove(reference)
      } catch (error) {
        tally.failedPulls.push(`${node.host.name}: ${errorMessage(error)}`)
      }
    }
  }

  async function churnOn(node: ContainerdNode, random: Random, tally: Tally, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      tally.runs += 1
      const isConfiguration = random.next() < 0.6
      const isKilled = random.next() < 0.7
      const wasKilled = await run(
        node,
        isConfiguration ? configuration(random) : ['cleanup', '--addr', '127.0.0.1:0'],
        {
          killAfterMs: isKilled ? random.next() * workMs : undefined,
          isDone: isConfiguration ? undefined : () => !existsSync(join(node.certsFolder, '_backup')),
        },
      )
      if (wasKilled) tally.killed += 1
      if (tally.runs % 50 === 0) report(tally)
      if (random.next() < 0.2) {
        const path = `certs.d/user-${(tally.added += 1)}.example/hosts.toml`
        const step: TreeStep = { op: 'file', path, bytes: base64("server = 'https://added.example'\n"), mode: 0o644 }
        await judge.make(node.folder, [step])
        const original = originals.get(node)
        const made = (await judge.snapshot(node.folder)).get(path)
        if (made !== undefined) original?.set(path.slice('certs.d/'.length), made)
      }
    }
  }

  const configuration = (random: Random) => [
    'configuration',
    '--prepend-existing',
    '--mirror-targets',
    'http://127.0.0.1:5000',
    ...(random.next() < 0.3 ? ['http://127.0.0.1:30021'] : []),
    ...(random.next() < 0.4 ? ['--mirrored-registries', `http://${cluster.registry}`, 'https://docker.io'] : []),
  ]

  /** Files that cleanup did not give back, or gave back otherwise. */
  async function lostOn(node: ContainerdNode): Promise<string[]> {
    // With a backup there is something to do, which ends the wait below.
    await configure(node)
    await run(node, ['cleanup', '--addr', '127.0.0.1:0'], {
      killAfterMs: undefined,
      isDone: () => !existsSync(join(node.certsFolder, '_backup')),
    })
    const found = await judge.snapshot(node.certsFolder)
    const expected = originals.get(node) ?? new Map<string, TreeEntry>()
    const differs = (path: string, entry: TreeEntry) =>
      JSON.stringify(withoutDirectoryTime(entry)) !== JSON.stringify(withoutDirectoryTime(found.get(path)))
    return [
      ...[...expected].filter(([path, entry]) => differs(path, entry)).map(([path]) => `${node.host.name}: ${path}`),
      ...[...found.keys()].filter((path) => isOurs(path)).map((path) => `${node.host.name}: left over ${path}`),
    ]
  }
})

function report(tally: Tally): void {
  const { failedPulls, ...counts } = tally
  const line = JSON.stringify({ ...counts, failedPulls: failedPulls.length, firstFailure: failedPulls[0] })
  process.stderr.write(`hosts-churn: ${line}\n`)
}

/** Runs a command to its end, until it is done, or until some milliseconds after its first change of certs.d. True: it was killed. */
async function run(
  node: ContainerdNode,
  args: readonly string[],
  { killAfterMs, isDone }: { killAfterMs: number | undefined; isDone: (() => boolean) | undefined },
): Promise<boolean> {
  const child = spawn(spegel, [...args, '--containerd-registry-config-path', node.certsFolder], { stdio: 'ignore' })
  const exited = once(child, 'exit')
  const watcher = watch(node.certsFolder)
  try {
    const isIdle = isDone?.() === true
    const limit = setTimeout(() => child.kill('SIGKILL'), isIdle ? idleLimitMs : commandLimitMs)
    if (killAfterMs !== undefined) {
      watcher.once('change', () => setTimeout(() => child.kill('SIGKILL'), killAfterMs))
    } else if (isDone !== undefined) {
      watcher.on('change', () => {
        // Its last changes follow; it then waits for its end.
        if (isDone()) setTimeout(() => child.kill('SIGTERM'), 500)
      })
    }
    await exited
    clearTimeout(limit)
    return child.signalCode === 'SIGKILL'
  } finally {
    watcher.close()
  }
}

/** The node's own configuration: without it containerd would look for HTTPS. */
function userTree(registry: string): TreeStep[] {
  const server = `server = 'http://${registry}'\n[host.'http://${registry}']\ncapabilities = ['pull', 'resolve']\n`
  const directory = `certs.d/${registry}`
  return [
    { op: 'file', path: `${directory}/hosts.toml`, bytes: base64(server), mode: 0o640 },
    { op: 'file', path: `${directory}/notes`, bytes: base64('notes') },
    { op: 'file', path: 'certs.d/quay.io/ca.crt', bytes: base64('certificate'), mode: 0o600 },
    { op: 'file', path: 'certs.d/_default/hosts.toml', bytes: base64("[host.'https://cache.example']\n") },
    { op: 'link', path: 'certs.d/linked.example', to: 'quay.io' },
    { op: 'directory', path: 'certs.d/empty.example' },
  ]
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}

function withoutDirectoryTime(entry: TreeEntry | undefined): TreeEntry | undefined {
  return entry?.type === 'directory' ? { ...entry, mtime: '' } : entry
}

function isOurs(path: string): boolean {
  const name = path.split('/').at(-1) ?? ''
  return name.startsWith('.spegel-ts') || (path.startsWith('_') && !path.startsWith('_default'))
}
