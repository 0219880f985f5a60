/**
 * Interrupts configuration and cleanup with the real means: a full tmpfs, a read-only mount, missing permissions, SIGKILL.
 * At each moment every containerd reaches each registry as before or as after; a later run completes, and cleanup gives
 * back the tree. ROUNDS and SEED: how often the command is killed, and when.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, writeFileSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { configureHosts, restoreHosts } from '../../src/hosts/apply.ts'
import { errorMessage } from '../../src/lib/errors.ts'
import { HostsJudge, type TreeEntry, type TreeStep, type Verdict, isSameVerdict } from '../support/hosts-judge.ts'
import { type Options, hostsConfig } from '../support/hosts-scenario.ts'
import { seededRandom } from '../support/random.ts'

const run = promisify(execFile)
const logger = pino({ level: 'silent' })
const spegel = join(import.meta.dirname, '../../bin/spegel-ts')
const withoutRights = join(import.meta.dirname, '../support/without-rights.ts')
const rounds = Number(process.env['ROUNDS'] ?? 3)

const options: Options = {
  registries: ['_default'],
  targets: ['http://127.0.0.1:5000'],
  prependExisting: true,
  authorization: undefined,
  resolveTags: true,
}
const names = [
  'docker.io',
  'registry.example:5000',
  'linked.example',
  'outside.example',
  'empty.example',
  'other.example',
]
const text = (lines: string) => Buffer.from(lines).toString('base64')
const time = { mtime: { seconds: 1_700_000_000, nanoseconds: 123_456_789 } }
const tree: TreeStep[] = [
  { op: 'directory', path: 'outside' },
  { op: 'file', path: 'outside/hosts.toml', bytes: text("server = 'https://outside.example'\n"), ...time },
  { op: 'directory', path: 'certs.d' },
  {
    op: 'file',
    path: 'certs.d/docker.io/hosts.toml',
    bytes: text("server = 'https://registry-1.docker.io'\n[host.'https://cache.example']\nskip_verify = true\n"),
    mode: 0o600,
    ...time,
  },
  {
    op: 'file',
    path: 'certs.d/registry.example_5000_/hosts.toml',
    bytes: text("[host.'https://a.example']\n"),
    ...time,
  },
  { op: 'file', path: 'certs.d/_default/hosts.toml', bytes: text("[host.'https://all.example']\n"), ...time },
  { op: 'link', path: 'certs.d/linked.example', to: 'docker.io' },
  { op: 'link', path: 'certs.d/outside.example', to: '../outside' },
  { op: 'directory', path: 'certs.d/empty.example' },
  { op: 'touch', path: 'certs.d', ...time },
]

describe('certs.d when a run fails', () => {
  let judges: HostsJudge[] = []
  let parent = ''
  let before: Map<string, Verdict>[] = []
  let after: Map<string, Verdict>[] = []
  let original = new Map<string, TreeEntry>()
  const mounts: string[] = []

  const directory = () => join(parent, 'certs.d')
  const configure = () => configureHosts(hostsConfig(directory(), options), logger)
  const judge = () => Promise.all(judges.map((each) => each.judge(directory(), names)))
  const snapshot = async () => (await judges[0]?.snapshot(parent)) ?? new Map<string, TreeEntry>()

  beforeAll(async () => {
    judges = await HostsJudge.startAll()
  }, 600_000)
  afterAll(() => Promise.all(judges.map((each) => each.close())))
  beforeEach(async () => {
    parent = await mkdtemp(join(tmpdir(), 'hosts-faults-'))
    await chmod(parent, 0o755)
  })
  afterEach(async () => {
    for (const path of mounts.splice(0).toReversed()) await run('umount', [path])
    await rm(parent, { recursive: true, force: true })
  })

  /** Creates the tree; learns how it is read before and after an undisturbed configuration. */
  async function create(): Promise<void> {
    await judges[0]?.make(parent, tree)
    original = await snapshot()
    before = await judge()
    await configure()
    after = await judge()
    await restoreHosts(directory())
    expect(comparable(await snapshot())).toEqual(comparable(original))
    for (const name of names) expect(after[0]?.get(name)?.hosts?.[0]?.host).toBe('127.0.0.1:5000')
  }

  async function expectBeforeOrAfter(moment: string): Promise<void> {
    for (const [index, now] of (await judge()).entries()) {
      for (const name of names) {
        const verdicts = [before, after].map((each) => each[index]?.get(name))
        const found = now.get(name)
        if (found !== undefined && verdicts.some((each) => each !== undefined && isSameVerdict(each, found))) continue
        throw new Error(`${moment}: ${judges[index]?.version} reads ${name} as ${JSON.stringify(found)}`)
      }
    }
  }

  async function expectRecovery(): Promise<void> {
    await configure()
    const now = await judge()
    for (const [index, each] of now.entries()) {
      for (const name of names) expect(each.get(name)?.hosts).toEqual(after[index]?.get(name)?.hosts)
    }
    await restoreHosts(directory())
    expect(comparable(await snapshot())).toEqual(comparable(original))
  }

  it.each(['size=256k', 'nr_inodes=64'])(
    'survives a full tmpfs (%s) at every number of free pages or inodes',
    async (limit) => {
      await run('mount', ['-t', 'tmpfs', '-o', `${limit},mode=755`, 'tmpfs', parent])
      mounts.push(parent)
      await create()
      let failures = 0
      for (let free = 0; free <= 40; free += 1) {
        const filler = join(parent, 'filler')
        await fill(filler, limit.startsWith('size'), free)
        const error: unknown = await configure().then(
          () => undefined,
          (cause: unknown) => cause,
        )
        if (error !== undefined) {
          failures += 1
          expect(errorMessage(error)).toContain('ENOSPC')
        }
        await expectBeforeOrAfter(`${free} free`)
        if (free % 2 === 0) {
          await restoreHosts(directory()).catch((cause: unknown) => expect(errorMessage(cause)).toContain('ENOSPC'))
          await expectBeforeOrAfter(`${free} free, after cleanup`)
        }
        await rm(filler, { recursive: true })
        await expectRecovery()
      }
      expect(failures).toBeGreaterThan(3)
    },
  )

  it('changes nothing on a read-only mount', async () => {
    await create()
    await run('mount', ['--bind', parent, parent])
    mounts.push(parent)
    await run('mount', ['-o', 'remount,bind,ro', parent])
    await expect(configure()).rejects.toThrow(/^--containerd-registry-config-path: .*EROFS.*mount it writable/)
    expect(comparable(await snapshot())).toEqual(comparable(original))
    await run('mount', ['-o', 'remount,bind,rw', parent])
    await configure()
    await run('mount', ['-o', 'remount,bind,ro', parent])
    await expect(restoreHosts(directory())).rejects.toThrow(/^--containerd-registry-config-path: .*EROFS/)
    await expectBeforeOrAfter('cleanup on a read-only mount')
    await run('mount', ['-o', 'remount,bind,rw', parent])
    await expectRecovery()
  })

  it.each([
    ['certs.d', ['certs.d']],
    ['one registry', ['certs.d/docker.io']],
    ['everything but one registry', ['certs.d', 'certs.d/docker.io', 'certs.d/_default', 'certs.d/empty.example']],
  ])('changes only what it may without root, when root owns %s', async (_name, ofRoot) => {
    await create()
    for (const { path, op } of tree) {
      const parts = path.split('/')
      const directories = parts.map((_part, index) => parts.slice(0, index + 1).join('/'))
      if (op === 'link') continue
      for (const each of directories) if (!ofRoot.includes(each)) await chown(join(parent, each), 65_534, 65_534)
    }
    original = await snapshot()
    await run(process.execPath, [withoutRights, directory()])
    await expectBeforeOrAfter('without permissions')
    await expectRecovery()
  })

  it('survives SIGKILL of configuration and cleanup at random moments', async () => {
    const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
    process.stderr.write(`hosts-faults: SEED=${seed}\n`)
    const random = seededRandom(seed)
    await create()
    for (let round = 0; round < rounds; round++) {
      await killed(['configuration', '--mirror-targets', ...options.targets, '--prepend-existing'], random.next() * 6)
      await expectBeforeOrAfter(`configuration killed in round ${round}`)
      if (random.next() < 0.5) await configure()
      await killed(['cleanup', '--addr', '127.0.0.1:0'], random.next() * 6)
      await expectBeforeOrAfter(`cleanup killed in round ${round}`)
      await expectRecovery()
    }
  })

  /** Kills the command some milliseconds after it first changes certs.d. */
  async function killed(args: readonly string[], afterMs: number): Promise<void> {
    const state = () => readdirSync(directory()).sort().join()
    const first = state()
    const child = spawn(spegel, [...args, '--containerd-registry-config-path', directory()], { stdio: 'ignore' })
    const exited = once(child, 'exit')
    const startedMs = performance.now()
    while (state() === first && child.exitCode === null && performance.now() - startedMs < 10_000) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    const changedMs = performance.now()
    while (performance.now() - changedMs < afterMs) await new Promise((resolve) => setImmediate(resolve))
    child.kill('SIGKILL')
    await exited
  }
})

/** Leaves this many free pages, or inodes, in the file system. */
async function fill(filler: string, isSize: boolean, free: number): Promise<void> {
  await mkdir(filler)
  const { bfree, ffree, bsize } = await statfs(filler)
  if (isSize) {
    writeFileSync(join(filler, 'file'), Buffer.alloc(Math.max(0, bfree - free) * bsize))
    return
  }
  for (let index = 0; index < ffree - free; index++) writeFileSync(join(filler, String(index)), '')
}

/** Times of directories are set in microseconds. The parent is ours. */
function comparable(entries: ReadonlyMap<string, TreeEntry>): Record<string, TreeEntry> {
  const kept = [...entries].filter(([path]) => path !== '.' && !path.startsWith('filler'))
  return Object.fromEntries(
    kept.map(([path, entry]) => [path, { ...entry, mtime: entry.type === 'directory' ? '' : entry.mtime }]),
  )
}
