/**
 * Writes and restores containerd's registry configuration folder (certs.d).
 *
 * The user's whole folder is first copied to `_backup` (complete copy, then one rename); from then on the live folder
 * is a function of the backup and the options, and what the user changes there goes into the backup first (adopt.ts). So
 * running twice, or again after a crash, gives the same result, and no moment exists in which a file of the user is only in
 * memory. `_backup` has the name and form that Spegel uses. A folder that was not there at all is removed again in the end,
 * where its parent can be written and nobody put anything into it.
 */
import { lstat, mkdir, readFile, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { writeFileAtomic } from '../lib/atomic-file.ts'
import { UserError, errorCode, errorMessage } from '../lib/errors.ts'
import type { Logger } from '../logger.ts'
import { adopt, ownMark } from './adopt.ts'
import { certificatesToml } from './certificate-files.ts'
import { prependHostsToml, renderHostsToml } from './hosts-toml.ts'
import { type MirroredRegistry, wildcardRegistry } from './registry-url.ts'
import { copyTree, syncFolder, timesOf } from './tree.ts'

const backupName = '_backup'
/** A backup that is being made: the live folder is still the user's. */
const partialName = '_backup.partial'
/** A backup that was restored: the live folder is the user's again. */
const doneName = '_backup.done'
/** In a folder that was not there before: there is nothing to go back to but its absence. */
const absentName = '_absent'
/** From when each hosts.toml of ours has its mark. Before that some may be Spegel's, or an earlier version's. */
const markedName = '_marked'
const ownNames = new Set([backupName, partialName, doneName, absentName, markedName])

export interface HostsConfig {
  /** certs.d */
  folder: string
  registries: readonly MirroredRegistry[]
  targets: readonly string[]
  resolveTags: boolean
  /** Keep what the user has for a registry, behind the mirror. */
  prependExisting: boolean
  authorization: string | undefined
}

/** Points containerd at the mirror. Throws a UserError when the folder cannot be written; then nothing is lost. */
export async function configureHosts(config: HostsConfig, logger: Logger): Promise<void> {
  const { folder } = config
  try {
    await makeFolder(folder)
    await rm(join(folder, doneName), { recursive: true, force: true })
    await backUp(folder)
    for (const name of await adoptChanges(folder)) {
      logger.info({ registry: name }, 'certs.d has changed since the last time: what is new is kept')
    }
    // Everything is rendered before the first byte is written: a file that does not parse changes nothing.
    const rendered = await render(config, logger)
    await writeLive(folder, rendered)
    if (!(await exists(join(folder, markedName)))) await writeFileAtomic(join(folder, markedName), '', 0o644)
  } catch (error) {
    throw explain(folder, error)
  }
}

/**
 * Makes the folder what it was, also if it was not there. Nothing to do without a backup. `keepFolder`: one that was not
 * there stays, empty but for its mark; a process that has it mounted would not see the next one.
 */
export async function restoreHosts(
  folder: string,
  { keepFolder = false }: { keepFolder?: boolean } = {},
): Promise<'restored' | 'nothing to restore'> {
  try {
    await rm(beside(folder, 'done'), { recursive: true, force: true })
    await adoptChanges(folder)
    const wasAbsent = await exists(join(folder, absentName))
    if (!keepFolder && wasAbsent && (await isNobodys(folder))) {
      // Gone at once: without the mark, what is left would be taken for the user's.
      await rename(folder, beside(folder, 'done'))
      await rm(beside(folder, 'done'), { recursive: true })
      return 'restored'
    }
    await rm(join(folder, partialName), { recursive: true, force: true })
    await rm(join(folder, doneName), { recursive: true, force: true })
    const backup = join(folder, backupName)
    if (!(await exists(backup))) return 'nothing to restore'
    const times = timesOf(await stat(backup))
    const names = await readdir(backup)
    for (const name of names) await copyTree(join(backup, name), join(folder, name))
    for (const name of await readdir(folder)) {
      if (!names.includes(name) && !ownNames.has(name)) await rm(join(folder, name), { recursive: true })
    }
    await syncFolder(folder)
    await rm(join(folder, markedName), { force: true })
    await rename(backup, join(folder, doneName))
    await rm(join(folder, doneName), { recursive: true })
    if (!keepFolder) await rm(join(folder, absentName), { force: true })
    await utimes(folder, ...times)
    return 'restored'
  } catch (error) {
    throw explain(folder, error)
  }
}

/** A folder that was not there appears with its mark in it, so that a crash cannot part them. */
async function makeFolder(folder: string): Promise<void> {
  if (!(await exists(folder))) {
    const partial = beside(folder, 'partial')
    await rm(partial, { recursive: true, force: true })
    await mkdir(partial, { recursive: true, mode: 0o755 })
    await writeFileAtomic(join(partial, absentName), '', 0o644)
    await rename(partial, folder)
  }
  // Says what is wrong where there is something else.
  await mkdir(folder, { recursive: true })
}

/** `certs.d.done` beside `certs.d`. */
function beside(folder: string, suffix: string): string {
  return join(dirname(folder), `${basename(folder)}.${suffix}`)
}

async function backUp(folder: string): Promise<void> {
  if (await exists(join(folder, backupName))) return
  const partial = join(folder, partialName)
  await rm(partial, { recursive: true, force: true })
  const times = timesOf(await stat(folder))
  await mkdir(partial)
  for (const name of await readdir(folder)) {
    if (!ownNames.has(name)) await copyTree(join(folder, name), join(partial, name))
  }
  await utimes(partial, ...times)
  await syncFolder(partial)
  await rename(partial, join(folder, backupName))
  await syncFolder(folder)
}

/** Only where all files of ours can be told from others. */
async function adoptChanges(folder: string): Promise<string[]> {
  const backup = join(folder, backupName)
  if (!(await exists(join(folder, markedName))) || !(await exists(backup))) return []
  return adopt(folder, backup, ownNames)
}

/** The user has put nothing into it. */
async function isNobodys(folder: string): Promise<boolean> {
  const backup = join(folder, backupName)
  if (await exists(backup)) return (await readdir(backup)).length === 0
  return (await readdir(folder)).every((name) => ownNames.has(name))
}

interface RenderedFile {
  text: string
  mode: number
}

interface Rendered {
  /** hosts.toml by registry. */
  hosts: Map<string, RenderedFile>
  /** Entries of the backup that stay as they are (hosts.toml excepted where one is rendered). */
  kept: string[]
}

async function render(config: HostsConfig, logger: Logger): Promise<Rendered> {
  const backup = join(config.folder, backupName)
  const existing = await readdir(backup)
  const named = new Map(config.registries.map((registry) => [registry.host, registry]))
  const mirrorsAll = named.has(wildcardRegistry)
  const hosts = new Map<string, RenderedFile>()
  const kept: string[] = []
  const add = async (host: string, server: string | undefined, prepend: boolean) => {
    const file = await renderOne(config, host, server, prepend)
    if (file !== undefined) hosts.set(host, file)
    else logger.warn({ registry: host }, 'its hosts.toml cannot be read and stays as it is: without the mirror')
    if (prepend) kept.push(host)
  }
  for (const { host, server } of config.registries) {
    await add(host, server, config.prependExisting && existing.includes(host))
  }
  for (const name of existing.filter((entry) => !named.has(entry))) {
    const hasHosts = await exists(join(backup, name, 'hosts.toml'))
    const isOwn = hasHosts || (await certificatesToml(join(backup, name))) !== undefined
    if (mirrorsAll && isOwn && config.prependExisting) {
      // A folder of its own hides _default: the mirror has to be named there too.
      await add(name, undefined, true)
    } else if (mirrorsAll && hasHosts) {
      logger.warn({ registry: name }, `its own configuration is set aside until cleanup: see --prepend-existing`)
    } else {
      kept.push(name)
    }
  }
  return { hosts, kept }
}

async function renderOne(
  { folder, targets, resolveTags, authorization }: HostsConfig,
  host: string,
  server: string | undefined,
  prepend: boolean,
): Promise<RenderedFile | undefined> {
  const init = { server, targets, resolveTags, authorization }
  // A password is for root, and for group root, which the daemon is of.
  const mode = authorization === undefined ? 0o644 : 0o640
  if (!prepend) return { text: renderHostsToml(init), mode }
  const existing = join(folder, backupName, host)
  const path = join(existing, 'hosts.toml')
  if (!(await exists(path))) {
    const text = await certificatesToml(existing)
    return {
      text: text === undefined ? renderHostsToml(init) : prependHostsToml({ text, path, folder: host }, init),
      mode,
    }
  }
  // A link may lead to where we cannot go, and to write without what is there would lose it.
  const text = await readFile(path, 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  // It may hold a secret. The daemon, of group root, reads it to know where upstream is.
  const { mode: theirs } = await stat(path)
  return { text: prependHostsToml({ text, path, folder: host }, init), mode: (theirs & mode) | 0o040 }
}

async function writeLive(folder: string, { hosts, kept }: Rendered): Promise<void> {
  const backup = join(folder, backupName)
  // New files first, old entries last: at no moment does containerd find less than it will in the end.
  for (const name of kept) {
    if (!hosts.has(name)) {
      await copyTree(join(backup, name), join(folder, name))
      continue
    }
    await makeOwnFolder(join(folder, name))
    for (const entry of await readdir(join(backup, name))) {
      if (entry !== 'hosts.toml') await copyTree(join(backup, name, entry), join(folder, name, entry))
    }
  }
  for (const [host, { text, mode }] of hosts) {
    await makeOwnFolder(join(folder, host))
    await writeFileAtomic(join(folder, host, 'hosts.toml'), `${ownMark(host)}\n${text}`, mode)
  }
  for (const host of hosts.keys()) {
    const wanted = kept.includes(host) ? [...(await readdir(join(backup, host))), 'hosts.toml'] : ['hosts.toml']
    for (const entry of await readdir(join(folder, host))) {
      if (!wanted.includes(entry)) await rm(join(folder, host, entry), { recursive: true })
    }
  }
  for (const name of await readdir(folder)) {
    if (!hosts.has(name) && !kept.includes(name) && !ownNames.has(name)) {
      await rm(join(folder, name), { recursive: true })
    }
  }
  await syncFolder(folder)
}

/** In place of a link: what that leads to is not ours to write. */
async function makeOwnFolder(path: string): Promise<void> {
  const existing = await lstat(path).catch(() => undefined)
  if (existing?.isSymbolicLink() === true) await rm(path)
  await mkdir(path, { recursive: true, mode: 0o755 })
}

async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined
}

function explain(folder: string, error: unknown): unknown {
  const code = errorCode(error)
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    const advice = 'run as root, and mount it writable'
    return new UserError(`--containerd-registry-config-path: ${folder}: ${errorMessage(error)}: ${advice}`)
  }
  if (code === 'ENOTDIR' || code === 'EEXIST') {
    return new UserError(`--containerd-registry-config-path: ${folder} is not a folder: name containerd's certs.d`)
  }
  return error
}
