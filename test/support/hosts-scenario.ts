/**
 * One life of a generated certs.d tree: configured, configured again with other options, restored, interrupted,
 * changed by its user, restored. Each state is judged by every containerd release; what must hold is checked here.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { pino } from 'pino'
import { configureHosts, restoreHosts } from '../../src/hosts/apply.ts'
import type { HostsConfig } from '../../src/hosts/plan.ts'
import { parseMirroredRegistries } from '../../src/hosts/registry-url.ts'
import { UserError, errorMessage } from '../../src/lib/errors.ts'
import {
  type HostsJudge,
  type JudgedHost,
  type TreeEntry,
  type TreeStep,
  type Verdict,
  isSameVerdict,
} from './hosts-judge.ts'
import {
  type HostsTree,
  type Pems,
  bytesOf,
  directoryNames,
  hostsText,
  hostsTree,
  registryNames,
  treeSeconds,
  treeSteps,
} from './hosts-trees.ts'
import { type Fault, Killed, interrupted } from './interrupted-files.ts'

export interface Scenario {
  tree: HostsTree
  options: Options
  /** Of the second run. */
  laterOptions: Options
  configureFault: RelativeFault
  /** Restore before the configuration that follows the interrupted one. */
  restoreAfterConfigureFault: boolean
  changes: readonly UserChange[]
  /** The user also copies this registry's live hosts.toml to a new directory. */
  copies: string | undefined
  /** The user deletes our `_backup` and nothing else. */
  deletesBackup: boolean
  /** Configure again between the user's changes and cleanup. */
  configureAfterChanges: boolean
  restoreFault: RelativeFault
  /** After the interrupted restore: configure before the next one. */
  configureAfterRestoreFault: boolean
}

export interface Options {
  /** As on the command line: `_default` or URLs. */
  registries: readonly string[]
  targets: readonly string[]
  prependExisting: boolean
  authorization: string | undefined
  resolveTags: boolean
}

interface RelativeFault extends Omit<Fault, 'at'> {
  /** Share of the calls that come before the fault. */
  share: number
}

/** Of a registry directory of the tree, by index (modulo their number), or of the whole. */
type UserChange =
  | { kind: 'edit in place' | 'edit by rename'; index: number; text: string }
  | { kind: 'add registry'; text: string }
  | { kind: 'append to the live file' | 'add certificate' | 'delete certificate' | 'delete registry'; index: number }

const fault = fc.record({
  kind: fc.constantFrom<Fault['kind']>('kill', 'kill', 'kill', 'ENOSPC', 'EROFS', 'EACCES', 'EIO'),
  once: fc.boolean(),
  share: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
})

const namedRegistries = fc.uniqueArray(
  fc.constantFrom(
    'https://docker.io',
    'https://registry.example',
    'https://registry.example:5000',
    'http://registry.example:5000',
    'https://registry.example:443',
    'http://registry.example:80',
    'https://localhost:5000',
    'http://127.0.0.1:5000',
    'https://quay.io',
  ),
  { minLength: 1, maxLength: 3, selector: (url) => url.replace(/^https?:/, '') },
)

const options: fc.Arbitrary<Options> = fc.record({
  registries: fc.oneof(
    { weight: 2, arbitrary: fc.constant(['_default']) },
    { weight: 2, arbitrary: namedRegistries },
    { weight: 1, arbitrary: namedRegistries.map((named) => [...named, '_default']) },
  ),
  targets: fc.constantFrom(
    ['http://127.0.0.1:30020'],
    ['http://127.0.0.1:30020'],
    ['http://127.0.0.1:30020', 'http://10.0.0.1:30021'],
    ['http://127.0.0.1:5000'],
    ['http://[fd00::1]:30020'],
  ),
  prependExisting: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, fc.constant(false)),
  authorization: fc.constantFrom(undefined, undefined, undefined, 'Basic dXNlcjpwYXNz'),
  resolveTags: fc.constantFrom(true, true, false),
})

const index = fc.nat(5)
const change: fc.Arbitrary<UserChange> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('edit in place' as const, 'edit by rename' as const),
    index,
    text: hostsText,
  }),
  fc.record({ kind: fc.constant('add registry' as const), text: hostsText }),
  fc.record({
    kind: fc.constantFrom(
      'append to the live file' as const,
      'add certificate' as const,
      'delete certificate' as const,
      'delete registry' as const,
    ),
    index,
  }),
)

export const scenarios: fc.Arbitrary<Scenario> = fc.record({
  tree: hostsTree,
  options,
  laterOptions: options,
  configureFault: fault,
  changes: fc.uniqueArray(change, {
    maxLength: 2,
    // Two changes of one directory would depend on their order.
    selector: (each) => ('index' in each ? each.index : -1),
  }),
  restoreAfterConfigureFault: fc.boolean(),
  copies: fc.constantFrom(undefined, undefined, undefined, undefined, undefined, undefined, '_default', 'docker.io'),
  deletesBackup: fc.nat(9).map((number) => number === 9),
  configureAfterChanges: fc.boolean(),
  restoreFault: fault,
  configureAfterRestoreFault: fc.boolean(),
})

/** A property does not hold. `rule` names it. */
class Violation extends Error {
  readonly rule: string

  constructor(rule: string, details: Record<string, unknown>) {
    const lines = Object.entries(details).map(([name, value]) => `  ${name}: ${JSON.stringify(value)}`)
    super(`${rule}\n${lines.join('\n')}`)
    this.rule = rule
  }
}

const randomOrder = /\r(?!\n)|\bhost\s*[=.]\s*['{]|\[\[?\s*host\s*\]/
const copyName = 'copied.example'

/** By registry name, one map per judge. */
type Judgement = Map<string, Verdict>[]

export interface World {
  /** The first one also creates and records trees. */
  judges: readonly HostsJudge[]
  /** Directory for trees. */
  work: string
  pems: Pems
  /** How containerd reaches each registry without any configuration. */
  defaults: Judgement
}

export async function createWorld(judges: readonly HostsJudge[], work: string, pems: Pems): Promise<World> {
  const defaults = await Promise.all(judges.map((judge) => judge.judge(join(work, 'absent'), registryNames)))
  return { judges, work, pems, defaults }
}

/** Plays a scenario below a new directory. Throws a Violation. */
export async function play(scenario: Scenario, world: World): Promise<void> {
  const parent = mkdtempSync(join(world.work, 'tree-'))
  try {
    await new Play(scenario, world, parent).run()
  } finally {
    rmSync(parent, { recursive: true, force: true })
  }
}

class Play {
  readonly #scenario: Scenario
  readonly #world: World
  readonly #judges: readonly HostsJudge[]
  readonly #root: string
  /** Holds the tree as the user alone would have it. */
  readonly #model: string
  /** containerd 1.x uses hosts that are on one line, or have no header of their own, in a random order. */
  readonly #hasRandomOrder: boolean
  /** Reads and writes trees. */
  readonly #files: HostsJudge

  constructor(scenario: Scenario, world: World, parent: string) {
    this.#scenario = scenario
    this.#world = world
    this.#judges = world.judges
    this.#root = join(parent, 'live')
    this.#model = join(parent, 'model')
    this.#hasRandomOrder = scenario.tree.entries.some(
      (entry) => entry.kind === 'directory' && entry.hosts.kind === 'text' && randomOrder.test(entry.hosts.text),
    )
    const [files] = world.judges
    if (files === undefined) throw new Error('no judges')
    this.#files = files
  }

  async run(): Promise<void> {
    const { options: first, laterOptions } = this.#scenario
    await this.#files.make(this.#root, treeSteps(this.#scenario.tree, this.#world.pems, this.#root))
    const [original, before] = await Promise.all([this.#files.snapshot(this.#root), this.#judge()])
    const resolved = new Map(registryNames.map((name) => [name, this.#directoryOf(name)]))

    const configured = await this.#configure(first)
    if (configured === 'refused') {
      this.#checkSame('configuration refused', before, await this.#judge())
      const { error } = await this.#restoreWith(undefined)
      if (error !== undefined && !(error instanceof UserError)) {
        throw new Violation('cleanup after a refusal failed', { error: errorMessage(error) })
      }
      await this.#expectTree('restored after a refusal', original)
      return
    }
    const after = await this.#judge()
    this.#checkConfigured('configured', first, before, after, configured.warnings, resolved)

    const again = await this.#configure(laterOptions)
    if (again === 'refused') throw new Violation('configured again: refused', {})
    this.#checkConfigured('configured again', laterOptions, before, await this.#judge(), again.warnings, resolved)
    const restored = await this.#restore()
    await this.#expectTree('restored', original)

    await this.#interruptConfiguration(configured, original, before, after)
    if (this.#scenario.deletesBackup && first.prependExisting) await this.#loseBackup(before, resolved)
    else await this.#changeAndRestore(restored, original, before, after)
  }

  /** Ends configured. */
  async #interruptConfiguration(
    complete: Outcome,
    original: ReadonlyMap<string, TreeEntry>,
    before: Judgement,
    after: Judgement,
  ): Promise<void> {
    const { options: chosen, configureFault, restoreAfterConfigureFault } = this.#scenario
    const broken = await this.#configureWith(chosen, absolute(configureFault, complete))
    await this.#checkInterrupted('configuration interrupted', broken, before, after)
    if (restoreAfterConfigureFault) {
      await this.#restore()
      await this.#expectTree('restored after an interrupted configuration', original)
    }
    const repeated = await this.#configure(chosen)
    if (repeated === 'refused') throw new Violation('configured after an interruption: refused', {})
    this.#checkSame('configured after an interruption', after, await this.#judge())
  }

  /** What is in the live files alone gives back how containerd reaches registries, though not every byte. */
  async #loseBackup(before: Judgement, resolved: ReadonlyMap<string, string | undefined>): Promise<void> {
    rmSync(join(this.#root, 'certs.d/_backup'), { recursive: true, force: true })
    if (this.#scenario.configureAfterChanges) await this.#configure(this.#scenario.options)
    await this.#restore()
    const { entries } = this.#scenario.tree
    const directories = new Set(entries.flatMap((entry) => (entry.kind === 'directory' ? [entry.name] : [])))
    const kept = registryNames.filter((registry) => {
      const directory = resolved.get(registry)
      return directory === undefined || directories.has(directory)
    })
    this.#checkSame('restored without the backup', before, await this.#judge(), kept)
  }

  async #changeAndRestore(
    complete: Outcome,
    original: ReadonlyMap<string, TreeEntry>,
    before: Judgement,
    after: Judgement,
  ): Promise<void> {
    const { options: chosen, changes, restoreFault, configureAfterChanges } = this.#scenario
    const touched = await this.#change(changes)
    const isCopied = await this.#copy(touched)
    const isChanged = changes.length > 0 || isCopied
    if (configureAfterChanges) await this.#configure(chosen)
    const stopped = await this.#restoreWith(absolute(restoreFault, complete))
    if (!isChanged) await this.#checkInterrupted('cleanup interrupted', stopped, before, after)
    if (this.#scenario.configureAfterRestoreFault) {
      await this.#configure(chosen)
      if (!isChanged) this.#checkSame('configured after an interrupted cleanup', after, await this.#judge())
    }
    await this.#restore()
    if (isCopied) await this.#checkCopy()
    if (!isChanged) await this.#expectTree('restored after interruptions', original)
    else await this.#expectTree('restored with changes of the user', await this.#files.snapshot(this.#model), touched)
  }

  /** A file with our mark is ours wherever it is found: no mirror stays behind in the copy. */
  async #checkCopy(): Promise<void> {
    for (const judge of this.#judges) {
      const verdict = (await judge.judge(join(this.#root, 'certs.d'), [copyName])).get(copyName)
      const isLeft = verdict?.hosts?.some(({ host }) => this.#scenario.options.targets.includes(`http://${host}`))
      if (isLeft === true) {
        throw new Violation('restored: the mirror is left in a copy of our file', {
          containerd: judge.version,
          verdict,
        })
      }
    }
    rmSync(join(this.#root, 'certs.d', copyName), { recursive: true, force: true })
  }

  async #copy(touched: Set<string>): Promise<boolean> {
    const { copies, tree, options: chosen } = this.#scenario
    // A mirror that the user's own files name is the user's.
    if (copies === undefined || !tree.exists || JSON.stringify(tree).includes('127.0.0.1:')) return false
    if (chosen.registries.every((url) => url !== '_default' && url !== `https://${copies}`)) return false
    let text: Buffer
    try {
      text = readFileSync(join(this.#root, 'certs.d', copies, 'hosts.toml'))
    } catch {
      return false
    }
    const path = `certs.d/${copyName}/hosts.toml`
    await this.#files.make(this.#root, [{ op: 'file', path, bytes: text.toString('base64') }])
    touched.add('certs.d')
    return true
  }

  async #configure(chosen: Options): Promise<'refused' | Outcome> {
    const outcome = await this.#configureWith(chosen, undefined)
    if (outcome.error instanceof UserError) return 'refused'
    if (outcome.error !== undefined)
      throw new Violation('configuration failed', { error: errorMessage(outcome.error) })
    return outcome
  }

  async #configureWith(chosen: Options, injected: Fault | undefined): Promise<Outcome> {
    const warnings: Warning[] = []
    const logger = pino(
      { level: 'warn', base: null },
      { write: (line: string) => warnings.push(JSON.parse(line) as Warning) },
    )
    const outcome = await interrupted(injected, () =>
      configureHosts(hostsConfig(join(this.#root, 'certs.d'), chosen), logger),
    )
    return { ...outcome, warnings }
  }

  async #restore(): Promise<Outcome> {
    const outcome = await this.#restoreWith(undefined)
    if (outcome.error !== undefined) throw new Violation('cleanup failed', { error: errorMessage(outcome.error) })
    return outcome
  }

  async #restoreWith(injected: Fault | undefined): Promise<Outcome> {
    return { ...(await interrupted(injected, () => restoreHosts(join(this.#root, 'certs.d')))), warnings: [] }
  }

  async #judge(): Promise<Judgement> {
    return Promise.all(
      this.#judges.map(async (judge) => {
        const verdicts = await judge.judge(join(this.#root, 'certs.d'), registryNames)
        if (judge.version.startsWith('1.') && this.#hasRandomOrder) {
          for (const verdict of verdicts.values()) this.#sortHosts(verdict)
        }
        return verdicts
      }),
    )
  }

  /** Leaves mirrors at the front and the server at the end where they are. */
  #sortHosts(verdict: Verdict): void {
    const { options: first, laterOptions } = this.#scenario
    const targets = new Set([...first.targets, ...laterOptions.targets])
    const hosts = verdict.hosts ?? []
    const start = hosts.findIndex(({ host }) => !targets.has(`http://${host}`))
    const middle = hosts.slice(start, -1).sort((one, other) => (JSON.stringify(one) < JSON.stringify(other) ? -1 : 1))
    if (start !== -1) verdict.hosts = [...hosts.slice(0, start), ...middle, ...hosts.slice(-1)]
  }

  /** Name of the directory of certs.d that containerd uses for a registry; undefined without one. */
  #directoryOf(registry: string): string | undefined {
    return directoryNames(registry).find((name) => {
      try {
        statSync(join(this.#root, 'certs.d', name))
        return true
      } catch (error) {
        return (error as NodeJS.ErrnoException).code !== 'ENOENT'
      }
    })
  }

  #checkConfigured(
    moment: string,
    chosen: Options,
    before: Judgement,
    after: Judgement,
    warnings: readonly Warning[],
    resolved: ReadonlyMap<string, string | undefined>,
  ): void {
    for (const warning of warnings) {
      for (const field of ['registry', 'file', 'reason', 'remedy'] as const) {
        if (typeof warning[field] !== 'string' || warning[field] === '') {
          throw new Violation(`${moment}: a warning lacks a field`, { field, warning })
        }
      }
    }
    const files = warnings.map(({ file }) => file)
    if (new Set(files).size < files.length) throw new Violation(`${moment}: a file is warned about twice`, { files })
    for (const registry of registryNames) {
      const isMirrored = scopeOf(chosen, registry)
      const directory = resolved.get(registry)
      const isWarned = warnings.some((warning) =>
        [registry, directory ?? '_default'].includes(warning.registry ?? ''),
      )
      for (const [number, judge] of this.#judges.entries()) {
        const [old, now] = [verdictOf(before[number], registry), verdictOf(after[number], registry)]
        const details = { registry, containerd: judge.version, before: old, after: now, directory, warnings }
        const isUnchanged = isSameVerdict(old, now)
        if (isMirrored === undefined) {
          if (!isUnchanged) throw new Violation(`${moment}: a registry out of scope changed`, details)
          continue
        }
        const usual = verdictOf(this.#world.defaults[number], registry)
        const fallbacks = fallbacksOf(chosen, isMirrored, old, usual, directory)
        if (now.hosts !== null && fallbacks.some((fallback) => isMirrorThen(chosen, now.hosts ?? [], fallback)))
          continue
        // containerd 1.x cannot read an IPv6 mirror, and the user's own configuration is set aside on request.
        const isUnreadable = judge.version.startsWith('1.') && chosen.targets.some((target) => target.includes('['))
        if (isUnreadable && !chosen.prependExisting && isWarned && now.hosts !== null) continue
        const rule = chosen.prependExisting ? 'mirror, then as before' : "mirror, then the registry's default"
        if (!isUnchanged) throw new Violation(`${moment}: neither ${rule}, nor as before`, details)
        const without = old.hosts === null ? 'not mirrored (an error before), without' : 'not mirrored, without'
        if (!isWarned) throw new Violation(`${moment}: ${without} a warning`, details)
      }
    }
  }

  /** At the moment of an interruption every registry is served as before or as after. */
  async #checkInterrupted(moment: string, outcome: Outcome, before: Judgement, after: Judgement): Promise<void> {
    const { error } = outcome
    if (error !== undefined && !(error instanceof Killed) && !(error instanceof Error)) {
      throw new Violation(`${moment}: not an error`, { error: errorMessage(error) })
    }
    const now = await this.#judge()
    for (const registry of registryNames) {
      for (const [number, judge] of this.#judges.entries()) {
        const verdicts = [before, after, now].map((judgement) => verdictOf(judgement[number], registry)) as [
          Verdict,
          Verdict,
          Verdict,
        ]
        if (isSameVerdict(verdicts[0], verdicts[2]) || isSameVerdict(verdicts[1], verdicts[2])) continue
        throw new Violation(`${moment}: neither as before nor as after`, {
          registry,
          containerd: judge.version,
          before: verdicts[0],
          after: verdicts[1],
          now: verdicts[2],
          error: errorMessage(error),
        })
      }
    }
  }

  #checkSame(
    moment: string,
    expected: Judgement,
    now: Judgement,
    registries: readonly string[] = registryNames,
  ): void {
    for (const registry of registries) {
      for (const [number, judge] of this.#judges.entries()) {
        const [wanted, found] = [verdictOf(expected[number], registry), verdictOf(now[number], registry)]
        if (isSameVerdict(wanted, found)) continue
        throw new Violation(`${moment}: another result`, { registry, containerd: judge.version, wanted, found })
      }
    }
  }

  /** `touched`: given when the expected tree is the model, of which only explicit times count. */
  async #expectTree(
    moment: string,
    expected: ReadonlyMap<string, TreeEntry>,
    touched?: ReadonlySet<string>,
  ): Promise<void> {
    const found = await this.#files.snapshot(this.#root)
    for (const path of new Set([...expected.keys(), ...found.keys()])) {
      const [wanted, is] = [expected.get(path), found.get(path)]
      if (wanted === undefined) throw new Violation(`${moment}: left over`, { path, is })
      if (is === undefined) throw new Violation(`${moment}: lost`, { path, wanted })
      const isTouched = touched?.has(path) === true
      const isTimed = touched === undefined || (!isTouched && wanted.mtime.startsWith(`${treeSeconds}.`))
      if (contentOf(wanted, isTouched) !== contentOf(is, isTouched)) {
        throw new Violation(`${moment}: ${wanted.type} differs`, { path, wanted, is })
      }
      // The last call sets the time of certs.d: after an interruption just before it that time is unknown.
      const isInterrupted = path.endsWith('certs.d') && moment !== 'restored'
      if (isTimed && path !== '.' && !isInterrupted && !isSameTime(wanted, is)) {
        throw new Violation(`${moment}: time of ${wanted.type} differs`, { path, wanted, is })
      }
    }
  }

  /** Performs the user's changes on the live tree and on the model. Returns paths whose times and modes are theirs. */
  async #change(changes: readonly UserChange[]): Promise<Set<string>> {
    const touched = new Set<string>()
    await this.#files.make(this.#model, treeSteps(this.#scenario.tree, this.#world.pems, this.#root))
    for (const each of changes) {
      const steps = this.#stepsOf(each)
      if (steps.length === 0) continue
      await this.#files.make(this.#model, steps)
      await this.#files.make(this.#root, steps)
      for (const { path } of steps) {
        for (const one of [path, path.slice(0, path.lastIndexOf('/')), 'certs.d', '.']) {
          touched.add(one)
          // Where certs.d is a link, this is what the path leads to.
          if (this.#scenario.tree.link === 'directory') touched.add(join('outside', one))
        }
      }
    }
    return touched
  }

  /** No steps where the change does not apply to the tree. Directories that are links are left alone. */
  #stepsOf(each: UserChange): TreeStep[] {
    if (each.kind === 'add registry') {
      if (this.#scenario.tree.link === 'dangling') return []
      return [{ op: 'file', path: 'certs.d/added.example/hosts.toml', bytes: bytesOf(each.text) }]
    }
    const { exists, link, entries } = this.#scenario.tree
    const directories = exists && link !== 'dangling' ? entries.filter((entry) => entry.kind === 'directory') : []
    const directory = directories[each.index]
    if (directory === undefined) return []
    const path = `certs.d/${directory.name}`
    const hasOwnText = directory.hosts.kind === 'text'
    switch (each.kind) {
      case 'edit in place':
        return hasOwnText ? [{ op: 'file', path: `${path}/hosts.toml`, bytes: bytesOf(each.text) }] : []
      case 'edit by rename':
        return hasOwnText ? [{ op: 'replace', path: `${path}/hosts.toml`, bytes: bytesOf(each.text) }] : []
      case 'append to the live file':
        // Without --prepend-existing the live file has nothing of the user's.
        return hasOwnText && this.#scenario.options.prependExisting
          ? [{ op: 'append', path: `${path}/hosts.toml`, bytes: bytesOf('\n# a note\n') }]
          : []
      case 'add certificate':
        return [{ op: 'file', path: `${path}/added.crt`, bytes: bytesOf(this.#world.pems.ca) }]
      case 'delete certificate':
        return directory.files.includes('ca.crt') ? [{ op: 'remove', path: `${path}/ca.crt` }] : []
      case 'delete registry':
        return [{ op: 'remove', path }]
    }
  }
}

interface Outcome {
  error: unknown
  calls: number
  writes: number
  warnings: Warning[]
}

interface Warning {
  msg: string
  registry?: string
  file?: string
  reason?: string
  remedy?: string
}

/** The only place that knows the shape of the product's configuration. */
export function hostsConfig(directory: string, { registries, ...chosen }: Options): HostsConfig {
  const { targets, resolveTags, prependExisting, authorization } = chosen
  return {
    directory,
    containerdVersion: undefined,
    registries: parseMirroredRegistries(registries, '--mirrored-registries'),
    targets,
    resolveTags,
    prependExisting,
    authorization,
  }
}

function absolute({ share, ...rest }: RelativeFault, { calls, writes }: { calls: number; writes: number }): Fault {
  return { ...rest, at: Math.floor(share * (rest.kind === 'kill' ? calls : writes)) }
}

/** The option that brings a registry into scope: its URL or `_default`. */
function scopeOf({ registries }: Options, registry: string): string | undefined {
  const named = registries.find((url) => url.replace(/^https?:\/\//, '') === registry)
  return named ?? registries.find((url) => url === '_default')
}

/** What may come after the mirror. `defaults`: what containerd does for the registry without any configuration. */
function fallbacksOf(
  { prependExisting }: Options,
  scope: string,
  before: Verdict,
  defaults: Verdict,
  directory: string | undefined,
): JudgedHost[][] {
  const isPlain = scope.startsWith('http://')
  const chosen = (prependExisting ? before : defaults).hosts
  if (chosen === null) return []
  const plain = chosen.map(({ httpFallback: _fallback, skipVerify: _skip, ...host }) => ({ ...host, scheme: 'http' }))
  if (!isPlain) return [chosen]
  if (!prependExisting) return [plain]
  // The user has configured nothing for it, and the operator names it with http://.
  return directory === undefined ? [chosen, plain] : [chosen]
}

function isMirrorThen(chosen: Options, hosts: readonly JudgedHost[], fallback: readonly JudgedHost[]): boolean {
  const { targets, resolveTags, authorization } = chosen
  const mirrors = hosts.slice(0, targets.length)
  const areOurs = targets.every((target, position) => {
    const host = mirrors[position]
    if (host === undefined) return false
    const isScheme = host.scheme === 'http' || host.httpFallback === true
    const wanted = {
      url: target,
      path: '/v2',
      capabilities: resolveTags ? ['pull', 'resolve'] : ['pull'],
      header: authorization === undefined ? {} : { Authorization: [authorization] },
    }
    const found = {
      url: `http://${host.host}`,
      path: host.path,
      capabilities: host.capabilities,
      header: host.header ?? {},
    }
    return isScheme && JSON.stringify(wanted) === JSON.stringify(found)
  })
  return areOurs && JSON.stringify(hosts.slice(targets.length)) === JSON.stringify(fallback)
}

function verdictOf(judgement: ReadonlyMap<string, Verdict> | undefined, registry: string): Verdict {
  const verdict = judgement?.get(registry)
  if (verdict === undefined) throw new Error(`${registry} was not judged`)
  return verdict
}

/** Of a file that the user has written only the content counts: who edits in place edits a file of ours. */
function contentOf({ mtime: _mtime, ...rest }: TreeEntry, isTouched: boolean): string {
  return JSON.stringify(isTouched && rest.type === 'file' ? rest.bytes : rest)
}

/** Node sets times in microseconds, so only those of files, which need not be set, are exact. */
function isSameTime(wanted: TreeEntry, found: TreeEntry): boolean {
  const nanoseconds = ({ mtime }: TreeEntry) => BigInt(mtime.replace('.', ''))
  const difference = nanoseconds(wanted) - nanoseconds(found)
  if (wanted.type === 'file' || wanted.type === 'link') return difference === 0n
  return difference <= 1_000n && difference >= -1_000n
}
