/** `spegel-ts benchmark measure` as a user runs it: real containerd nodes, a real registry, real mirrors. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parseResult } from '../../src/benchmark/result/result-file.ts'
import type { Phase, Result } from '../../src/benchmark/result/schema.ts'
import { type Tools, prepareTools } from '../../src/testbed/tools.ts'

const program = fileURLToPath(new URL('../../bin/spegel-ts', import.meta.url))

describe('benchmark measure', () => {
  let tools: Tools
  let folder: string
  const children: ChildProcess[] = []
  beforeAll(async () => {
    tools = await prepareTools((line) => process.stderr.write(`set-up: ${line}\n`))
  })
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'spegel-ts-measure-'))
  })
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    await run(['benchmark', 'local', 'down'])
    await rm(folder, { recursive: true })
  })

  const start = (args: readonly string[]) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    children.push(child)
    return child
  }
  const run = (args: readonly string[]) => ended(start(args))
  const measureArgs = (...more: string[]) => [
    ...'benchmark measure --images v1-10MB-1 v2-10MB-1 --nodes 2 --rounds 1 --repeats 0'.split(' '),
    ...'--upstream-rate 200mbit --node-rate 1gbit --result-dir'.split(' '),
    folder,
    '--containerd',
    tools.containerdNew,
    tools.containerdOld,
    '--registry',
    tools.registry,
    ...more,
  ]
  const result = async (): Promise<Result> => {
    const path = join(folder, 'result.json')
    return parseResult(await readFile(path, 'utf8'), path)
  }

  it('measures what really happened', async () => {
    const { code, stderr } = await run(measureArgs())
    expect(`${code} ${stderr}`).toMatch(/^0 /)
    const { rounds, set, links, complete } = await result()
    expect(complete).toBe(true)
    expect(set.nodes.map(({ runtime }) => runtime.split(' ')[0])).toEqual(['containerd', 'containerd'])
    expect(new Set(set.nodes.map(({ runtime }) => runtime)).size).toBe(2)
    // The order is the order of the log, and of the clock.
    const said = [...stderr.matchAll(/^round (\S+) \S+ (\S+):/gm)].map(([, number, mirror]) => `${number} ${mirror}`)
    expect(said).toEqual(rounds.map(({ number, mirror }) => `${number === 0 ? 'warm-up' : number} ${mirror}`))
    const starts = rounds.map(({ started }) => Date.parse(started))
    expect(starts).toEqual(starts.toSorted((a, b) => a - b))
    expect(links?.upstream).toBeGreaterThan(0.6 * 25e6)
    expect(links?.upstream).toBeLessThan(1.02 * 25e6)
    expect(links?.nodeOut).toBeLessThan(1.02 * 125e6)

    const phase = (mirror: string, name: 'create' | 'update'): Phase => {
      const found = rounds.find((round) => round.counts && round.mirror === mirror)?.phases[name]
      if (found === undefined) throw new Error(`there is no ${name} with ${mirror}`)
      return found
    }
    for (const name of ['create', 'update'] as const) {
      const alone = phase('none', name)
      expect(alone.mirror).toBeUndefined()
      expect(alone.upstream.blobBytes).toBeGreaterThanOrEqual(2 * 10 * 2 ** 20 * 0.99)
      expect(alone.pulls.map(({ blobs }) => blobs.at(-1)?.source)).toEqual(['upstream', 'upstream'])
    }
    const shared = phase('spegel-ts', 'update')
    expect(shared.pulls.map(({ wave, error }) => `${wave} ${error}`)).toEqual(['1 undefined', '2 undefined'])
    expect(shared.pulls.map(({ blobs }) => blobs.at(-1)?.source)).toEqual(['upstream', 'peer'])
    const [first, second] = shared.pulls
    expect(second?.started).toBeGreaterThan((first?.started ?? 0) + (first?.duration ?? 0))
    expect(second?.network).toBeLessThan(second?.duration ?? 0)
    expect(second?.blobs.at(-1)?.firstByte).toBeLessThan(second?.blobs.at(-1)?.arrived ?? 0)
    expect(shared.upstream.linkBytes).toBeLessThan(1.1 * shared.imageBytes)
    expect(shared.peerBytes).toBeGreaterThan(shared.imageBytes)
    expect(shared.mirror?.cpuSeconds).toBeGreaterThan(0)
    expect(shared.mirror?.peakRssBytes).toHaveLength(2)
    expect(leftovers()).toEqual([])
  })

  it('breaks off at once and goes on later', async () => {
    const child = start(measureArgs())
    await untilSaid(child, /^round warm-up \S+ \S+:.*[\s\S]*^round warm-up/m)
    // In the middle of the first round that counts.
    child.kill('SIGINT')
    const { code, stderr } = await ended(child)
    expect(code).toBe(130)
    expect(stderr).toContain('broken off: the same command goes on')
    expect(leftovers()).toEqual([])
    expect((await result()).rounds).toHaveLength(2)
    const again = await run(measureArgs())
    expect(again.code, again.stderr).toBe(0)
    expect((await result()).rounds.map(({ number }) => number)).toEqual([0, 0, 1, 1])
  })

  it('leaves things when it is killed, which `benchmark local down` finds', async () => {
    const child = start(measureArgs())
    await untilSaid(child, /^round warm-up/m)
    child.kill('SIGKILL')
    await ended(child)
    expect(leftovers().length).toBeGreaterThan(4)
    const { code, stdout } = await run(['benchmark', 'local', 'down'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/removed network namespace spegel-ts-\d+-\d+-a1/)
    expect(stdout).toMatch(/removed folder .*spegel-ts-benchmark-/)
    expect(leftovers()).toEqual([])
  })

  it('says which mirror does not start, and what it said', async () => {
    const { code, stderr } = await run(measureArgs('--mirror', 'none', "odd=sh -c 'echo no such cache; exit 3'"))
    expect(code).toBe(1)
    expect(stderr).toMatch(/--mirror odd: not ready on [ab]\d \(127.0.0.1:5000, .*\n*.*no such cache/)
    const unknown = await run(measureArgs('--mirror', 'none', 'odd=sh {nothing}'))
    expect(unknown.stderr).toContain('--mirror: {nothing} is not one of {node} {ip} {registryPort}')
    expect(leftovers()).toEqual([])
  })
})

/** Namespaces, folders and processes of benchmarks whose maker is gone. */
function leftovers(): string[] {
  const isGone = (pid: string | undefined) => pid !== undefined && !existsSync(`/proc/${pid}`)
  const namespaces = existsSync('/run/netns') ? readdirSync('/run/netns') : []
  const folders = [tmpdir(), '/dev/shm']
    .flatMap((parent) => readdirSync(parent))
    .filter((name) => isGone(/^spegel-ts-benchmark-(\d+)-/.exec(name)?.[1]))
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')]
      } catch {
        return []
      }
    })
    .filter((command) => isGone(/spegel-ts-benchmark-(\d+)-/.exec(command)?.[1]))
  return [...namespaces.filter((name) => isGone(/^spegel-ts-(\d+)-/.exec(name)?.[1])), ...folders, ...processes]
}

function ended(child: ChildProcess): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    let [stdout, stderr] = ['', '']
    child.stdout?.on('data', (data: Buffer) => (stdout += data.toString()))
    child.stderr?.on('data', (data: Buffer) => (stderr += data.toString()))
    child.once('close', (code) => resolve({ code, stdout, stderr }))
  })
}

/** Until standard error matches. */
function untilSaid(child: ChildProcess, pattern: RegExp): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = ''
    child.stderr?.on('data', (data: Buffer) => {
      said += data.toString()
      if (pattern.test(said)) resolve()
    })
    child.once('close', () => reject(new Error(`it ended: ${said}`)))
  })
}
