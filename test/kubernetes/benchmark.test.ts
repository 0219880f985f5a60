/** `spegel-ts benchmark` in a cluster: as its users call it, with the rights that it prints, and killed at each step. */
import type { ChildProcess } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parseCheckedJson } from '../../src/benchmark/checked-json.ts'
import { imageSet } from '../../src/benchmark/measure/images.ts'
import { turnsOf } from '../../src/benchmark/measure/plan.ts'
import { parseResult } from '../../src/benchmark/result/result-file.ts'
import { networkResultSchema } from '../../src/benchmark/result/network-schema.ts'
import type { Phase, Result } from '../../src/benchmark/result/schema.ts'
import { runningPid, waitUntil } from '../../src/testbed/process.ts'
import { Cluster } from './cluster.ts'
import { hostFiles } from './host-files.ts'
import { installSpegel, publishSpegel } from './spegel.ts'

const MiB = 2 ** 20
const program = join(import.meta.dirname, '../../bin/spegel-ts')
const namespace = 'spegel-ts-benchmark'
const restricted = 'measured'
const nodeCount = 3
const certs = 'etc/containerd/certs.d'
const stepTimeoutMs = 120_000

describe('measuring in a cluster', () => {
  let cluster: Cluster
  let folder: string
  const filesBefore = new Map<string, Record<string, string>>()
  const running = new Set<ChildProcess>()

  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: nodeCount, containerd: ['new', 'old'], upstreamRate: '100mbit' })
    await publishSpegel(cluster)
    // Somebody's own, which the mirror's is written before.
    const foreign = join(cluster.node(2).disk, certs, 'docker.io')
    await mkdir(foreign)
    await writeFile(join(foreign, 'hosts.toml'), 'server = "https://registry-1.docker.io" # ours\n')
    // Here the mirror makes the folder; its daemon must not lose it.
    await rm(join(cluster.node(3).disk, certs), { recursive: true })
    await installSpegel(cluster)
    for (const node of cluster.nodes) filesBefore.set(node.name, await files(node))
    for (const version of ['v1', 'v2']) {
      const image = { sizeBytes: 10 * MiB, layers: 4, seed: version }
      await cluster.publish(`benchmark:${version}-10MB-4`, image)
    }
  })
  afterAll(() => cluster.stop())
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'spegel-ts-measured-'))
  })
  afterEach(async ({ task }) => {
    for (const child of running) child.kill('SIGKILL')
    running.clear()
    if (task.result?.state === 'fail') process.stderr.write(await cluster.lastWords())
    await rm(folder, { recursive: true })
  })

  it('compares no mirror with the installed one, and needs no more rights than it prints', async () => {
    const kubeconfig = await restrictedKubeconfig()
    const askedBefore = cluster.upstream.requests().length
    // Pushed by us, so that every round has images of its own.
    const push = ['--push', `${cluster.upstreamHost.ip}/benchmark`, '--images', 'v1-10MB-4', 'v2-10MB-4']
    const set = ['--namespace', restricted, '--result-dir', folder, '--rounds', '1', '--repeats', '0']
    const { code, errors } = await ended(start(['measure', '--kubeconfig', kubeconfig, ...set, ...push]))
    expect(errors).toMatch(/: 3 nodes\n/)
    expect({ code, errors: code === 0 ? '' : errors }).toEqual({ code: 0, errors: '' })
    const result = await readResult()
    expect(result).toMatchObject({ complete: true, set: { target: 'kubernetes', waveSize: 1 } })
    expect(result.mirrors.map(({ name }) => name)).toEqual(['none', 'spegel-ts'])

    const phases = result.rounds.flatMap(({ mirror, phases: { create, update } }) =>
      [create, update].map((phase) => ({ mirror, phase: phase as Phase })),
    )
    expect(phases).toHaveLength(2 * 2 * 2)
    for (const { mirror, phase } of phases) {
      expect(phase.pulls.map(({ node }) => node).toSorted()).toEqual(['n1', 'n2', 'n3'])
      expect(phase.pulls.filter(({ error }) => error !== undefined)).toEqual([])
      expect(phase.rollout).toBeGreaterThan(Math.max(...phase.pulls.map(({ duration }) => duration)))
      const copies = (phase.upstream.blobBytes ?? 0) / phase.imageBytes
      process.stderr.write(`${mirror}: ${copies.toFixed(3)} × upstream, roll-out ${(phase.rollout ?? 0) / 1e9} s\n`)
      if (mirror === 'none') expect(copies).toBe(nodeCount)
      else {
        expect(copies).toBeLessThan(1.02)
        expect(phase.peerBytes).toBeGreaterThan(1.9 * phase.imageBytes)
      }
    }
    // What the registry itself says.
    const sentBytes = cluster.upstream
      .requests()
      .slice(askedBefore)
      .filter(({ method, path }) => method === 'GET' && path.includes('/benchmark/'))
      .reduce((sum, { bytes }) => sum + bytes, 0)
    const countedBytes = phases.reduce((sum, { phase }) => sum + (phase.upstream.blobBytes ?? 0), 0)
    expect(countedBytes / sentBytes).toBeGreaterThan(0.98)
    expect(countedBytes / sentBytes).toBeLessThan(1.02)
    expect(meanMs(result, 'spegel-ts')).toBeLessThan(meanMs(result, 'none'))

    await ended(start(['analyze', '--path', folder, '--output-dir', join(folder, 'report')]))
    expect(await readFile(join(folder, 'report/report.md'), 'utf8')).toContain('roll-out s')
    const exported = await ended(start(['export', '--path', folder, '--output-dir', join(folder, 'go')]))
    expect(exported.output).toMatch(/none\.json\n.*spegel-ts\.json\n/)

    await expectAsBefore()
    // Who made the namespace removes it.
    expect(await cluster.api.find(`/api/v1/namespaces/${restricted}`)).toBeDefined()
  })

  it('says what is wrong, before anything is made', async () => {
    const wrong = async (...args: string[]) => (await ended(start(['measure', ...args]))).errors
    expect(await wrong(...measureArgs(), '--kubeconfig', '/no/file')).toMatch(/\/no\/file does not exist\n$/)
    expect(await wrong(...measureArgs(), '--mirror', 'a', 'b')).toMatch(/one mirror at a time/)
    expect(await wrong(...measureArgs(), '--upstream-rate', '1mbit')).toMatch(
      /--upstream-rate: only for --target local/,
    )
    expect(await wrong('--result-dir', folder, '--images', 'v1-1MB-1', 'v2-1MB-1')).toMatch(
      /"v1-1MB-1" is not an image of a registry/,
    )
    await expectAsBefore()
  })

  it('takes everything down on Ctrl-C', async () => {
    const child = start(['measure', ...measureArgs()])
    const done = ended(child)
    await step(child, /create: .* with none/)
    const second = await ended(start(['measure', ...measureArgs(), '--result-dir', join(folder, 'second')]))
    expect(second.errors).toMatch(/another measurement runs there, or one was killed/)
    child.kill('SIGINT')
    const { code, errors } = await done
    expect(code).toBe(130)
    expect(errors).toMatch(/broken off: the same command goes on\n$/)
    await expectAsBefore()
    await expectNothingLeft()
  })

  const agent = `/apis/apps/v1/namespaces/${namespace}/daemonsets/spegel-ts-benchmark-agent`
  /** The moments in the order in which they come. */
  const steps: [string, (child: ChildProcess) => Promise<void>][] = [
    ['the namespace is made', (child) => step(child, /made namespace/)],
    [
      'the agents are made',
      () =>
        waitUntil('agents', async () => (await cluster.api.find(agent)) !== undefined, { timeoutMs: stepTimeoutMs }),
    ],
    ['hosts.toml is switched off', (child) => step(child, /hosts\.toml is without the mirror/)],
    ['pods are made', (child) => step(child, /create: .* with none/)],
    ['pods are updated', (child) => step(child, /update: .* with none/)],
    ['hosts.toml is switched on again', (child) => step(child, /hosts\.toml is with the mirror/)],
  ]

  it.each(steps)('leaves nothing that down does not find when it is killed after %s', async (_name, moment) => {
    const child = start(['measure', ...measureArgs()])
    await moment(child)
    child.kill('SIGKILL')
    await ended(child)
    const { code, output, errors } = await ended(start(['kubernetes', 'down']))
    expect({ code, errors }).toEqual({ code: 0, errors: '' })
    expect(output).toContain(`removed namespace ${namespace}`)
    await expectAsBefore()
    await expectNothingLeft()
    expect((await ended(start(['kubernetes', 'down']))).output).toBe('nothing was left\n')
  })

  const network = ['network', 'run', '--rounds', '1', '--duration', '200ms']

  it('measures the paths between two nodes, and to a pod of the same', async () => {
    const kubeconfig = await restrictedKubeconfig()
    const set = ['--kubeconfig', kubeconfig, '--namespace', restricted, '--result-dir', folder]
    const { code, errors } = await ended(start([...network, ...set]))
    expect({ code, errors: code === 0 ? '' : errors }).toEqual({ code: 0, errors: '' })
    const text = await readFile(join(folder, 'result.json'), 'utf8')
    const { paths, turns, set: facts } = parseCheckedJson(text, folder, networkResultSchema)
    expect(paths.map(({ name }) => name)).toEqual(['host', 'pod', 'service', 'same-node'])
    expect(facts).toMatchObject({ target: 'kubernetes', nodes: { here: 'n1', there: 'n2' } })
    expect(turns.filter(({ kind }) => kind === 'failed')).toEqual([])
    for (const { name } of paths) expect(turns.filter(({ path }) => path === name).length).toBeGreaterThan(10)
    await expectAsBefore()
    await expectNothingLeft()
  })

  it('says why the network cannot be measured, and takes its agents down again', async () => {
    const wrong = async (...args: string[]) =>
      (await ended(start([...network, '--kubeconfig', kubeconfigOfAdmin(), '--result-dir', folder, ...args]))).errors
    expect(await wrong('--nodes', 'n1', 'n9')).toMatch(/--nodes: n9: the cluster has no such node: n1, n2, n3\n$/)
    expect(await wrong('--agent-image', 'registry.test/nothing:v1')).toMatch(
      /registry\.test\/nothing:v1 cannot be pulled/,
    )
    // The kubelet's.
    expect(await wrong('--agent-port', '10250')).toMatch(/port 10250 is taken on the node/)
    await expectNothingLeft()
  })

  it.each(['SIGINT', 'SIGKILL'] as const)('leaves no agent of the network after %s', async (signal) => {
    const child = start([...network, '--kubeconfig', kubeconfigOfAdmin(), '--result-dir', folder])
    await step(child, /the agents are ready/)
    child.kill(signal)
    await ended(child)
    if (signal === 'SIGKILL') await ended(start(['kubernetes', 'down']))
    await expectNothingLeft()
  })

  const kubeconfigOfAdmin = () => cluster.controlPlane.kubeconfig

  /** None comes first. */
  function measureArgs(): string[] {
    const images = ['registry.test/benchmark:v1-10MB-4', 'registry.test/benchmark:v2-10MB-4']
    const set = imageSet('v1-10MB-4', 'v2-10MB-4')
    const mirrors = ['none', 'spegel-ts'].map((name) => ({ name, command: name }))
    const seed = ['a', 'b', 'c', 'd', 'e', 'f'].find(
      (text) => turnsOf(0, set, mirrors, text)[0]?.mirror.name === 'none',
    )
    return ['--result-dir', folder, '--seed', seed ?? '', '--images', ...images]
  }

  /** It trusts the registry's certificate. */
  function start(args: readonly string[]): ChildProcess {
    const authority = join(cluster.node(1).disk, 'etc/kubernetes/authority.crt')
    const child = cluster.spawn('env', [`NODE_EXTRA_CA_CERTS=${authority}`, program, 'benchmark', ...args])
    running.add(child)
    return child
  }

  async function readResult(): Promise<Result> {
    return parseResult(await readFile(join(folder, 'result.json'), 'utf8'), folder)
  }

  /** A kubeconfig of the service account that `rights` describes. */
  async function restrictedKubeconfig(): Promise<string> {
    const { output } = await ended(start(['kubernetes', 'rights', '--namespace', restricted]))
    const { items } = JSON.parse(output) as { items: object[] }
    await cluster.apply(...items)
    const token = (await cluster.kubectl('create', 'token', 'spegel-ts-benchmark', '--namespace', restricted)).trim()
    const path = join(folder, 'restricted.kubeconfig')
    const admin = await readFile(cluster.controlPlane.kubeconfig, 'utf8')
    await writeFile(path, withToken(admin, token))
    return path
  }

  /** hosts.toml and its mark are written anew; all else is untouched. */
  async function files(node: Cluster['nodes'][number]): Promise<Record<string, string>> {
    const all = Object.entries(await hostFiles(node))
    const { ino } = await stat(join(node.disk, certs))
    return Object.fromEntries(
      [...all, ['the folder itself', String(ino)] as const].map(([path, value]) => [
        path,
        /certs\.d\/(_marked|(?!_backup).*hosts\.toml)$/.test(path) ? value.replace(/ [\d.]+ /, ' ') : value,
      ]),
    )
  }

  async function expectAsBefore(): Promise<void> {
    for (const node of cluster.nodes) {
      expect(await files(node), node.name).toEqual(filesBefore.get(node.name))
      const tags = (await node.cri.images()).flatMap(({ repoTags }) => repoTags)
      expect(tags.filter((tag) => tag.includes('/benchmark:'))).toEqual([])
    }
  }

  async function expectNothingLeft(): Promise<void> {
    const kinds = 'namespaces,daemonsets,pods'
    const label = 'app.kubernetes.io/managed-by=spegel-ts-benchmark'
    const left = await cluster.kubectl('get', kinds, '--all-namespaces', '--selector', label, '--output=name')
    expect(left.trim()).toBe('')
  }
})

/** Until it says so. */
async function step(child: ChildProcess, line: RegExp): Promise<void> {
  let said = ''
  child.stderr?.on('data', (data: Buffer) => (said += data.toString()))
  await waitUntil(`${line}`, () => Promise.resolve(line.test(said)), { timeoutMs: stepTimeoutMs, child }).catch(
    (error: unknown) => {
      throw new Error(`${String(error)}\n${said}`)
    },
  )
}

async function ended(child: ChildProcess): Promise<{ code: number | null; output: string; errors: string }> {
  let [output, errors] = ['', '']
  child.stdout?.on('data', (data: Buffer) => (output += data.toString()))
  child.stderr?.on('data', (data: Buffer) => (errors += data.toString()))
  if (runningPid(child) === undefined) return { code: child.exitCode, output, errors }
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, output, errors }
}

function meanMs({ rounds }: Result, mirror: string): number {
  const durations = rounds
    .filter((round) => round.mirror === mirror)
    .flatMap(({ phases }) => phases.create?.pulls ?? [])
    .map(({ duration }) => duration / 1e6)
  return durations.reduce((sum, value) => sum + value, 0) / durations.length
}

/** The user's certificate makes way for a token. */
function withToken(kubeconfig: string, token: string): string {
  const config = JSON.parse(kubeconfig) as { users: { user: object }[] }
  for (const entry of config.users) entry.user = { token }
  return JSON.stringify(config)
}
