/**
 * Points containerd at the mirror and back, in its registry configuration directory (certs.d).
 *
 * Everything of the user stays in place. Only `hosts.toml` is replaced, by the user's text with our block in it, each by
 * one rename; a link to a directory is replaced by a link to a directory of ours. At every moment containerd finds for a
 * registry either what it found before or that with the mirror in front. `_backup` holds hard links to the user's own
 * files, in the form that Spegel uses. A run that was interrupted is completed by the next one.
 */
import { lstat, mkdir, readdir, readlink, realpath, rename, rm, rmdir, symlink } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { UserError, errorCode, errorMessage } from '../lib/errors.ts'
import { makeDirectory } from '../lib/make-directory.ts'
import type { Logger } from '../logger.ts'
import {
  copyEntry,
  copyTimes,
  copyTree,
  isSameEntry,
  lstatOrUndefined,
  replaceEntry,
  replaceFile,
  setTimes,
  syncDirectory,
} from './exact-copy.ts'
import {
  absentName,
  backupName,
  doneName,
  hostsFile,
  isTemporary,
  linkedName,
  linkedText,
  markedName,
  originalFilePath,
  originalLinkPath,
  originalsName,
  ownNames,
  partialName,
  temporaryName,
} from './own-entries.ts'
import { type HostsConfig, type Plan, type PlannedFile, planHosts } from './plan.ts'
import { wildcardRegistry } from './registry-url.ts'
import { isOurLink, markedFile, recordWritten, updateBackup, userNames } from './user-tree.ts'
import { UserView } from './user-view.ts'

/** Throws a UserError when the directory cannot be written; a part of the registries may have the mirror then. */
export async function configureHosts(config: HostsConfig, logger: Logger): Promise<void> {
  const given = resolve(config.directory)
  try {
    await createOrCheck(given)
    // It may be a link itself: times are those of what it leads to.
    const directory = await realpath(given)
    await removeLeftovers(directory)
    for (const registry of await updateBackup(directory)) {
      logger.info({ registry }, 'configuration of the registry changed since the last run, changes kept')
    }
    const plan = await keepLinks(
      directory,
      await planHosts({ ...config, directory }, new UserView(directory), logger),
    )
    await recordWritten(directory, [...plan.keys()])
    for (const [name, file] of plan) await write(directory, name, file)
    await restoreAll(directory, (name) => !plan.has(name))
    await removeUnused(directory, plan)
    await syncDirectory(directory)
    await copyTimes(join(directory, backupName), directory)
  } catch (error) {
    throw explain(given, error)
  }
}

/**
 * Makes the directory what it was, with what the user changed since, also if it did not exist. `keepDirectory`: one that
 * did not exist stays, with its mark; a process that has it mounted would not see the next one.
 */
export async function restoreHosts(
  path: string,
  { keepDirectory = false }: { keepDirectory?: boolean } = {},
): Promise<'restored' | 'nothing to restore'> {
  const given = resolve(path)
  try {
    await rm(neighbour(given, 'done'), { recursive: true, force: true })
    await rm(neighbour(given, 'partial'), { recursive: true, force: true })
    if ((await lstatOrUndefined(given)) === undefined) return 'nothing to restore'
    const directory = await realpath(given)
    await removeLeftovers(directory)
    const isOurs = await hasOwnFiles(directory)
    if (isOurs) {
      await updateBackup(directory)
      await restoreAll(directory, () => true)
    }
    return (await removeOwnEntries(directory, { isOurs, keepDirectory })) ? 'restored' : 'nothing to restore'
  } catch (error) {
    throw explain(given, error)
  }
}

/** A directory that did not exist appears with its mark in it, so that a crash cannot separate them. */
async function createOrCheck(directory: string): Promise<void> {
  const existing = await lstatOrUndefined(directory)
  if (existing === undefined) {
    const partial = neighbour(directory, 'partial')
    await rm(partial, { recursive: true, force: true })
    await makeDirectory(partial, 0o755)
    await replaceFile(join(partial, absentName), '', 0o644)
    await rename(partial, directory)
    return
  }
  // Reports what is wrong where something else is, such as a dangling link.
  await readdir(directory)
}

/** `certs.d.done` next to `certs.d`. */
function neighbour(directory: string, suffix: string): string {
  return join(dirname(directory), `${basename(directory)}.${suffix}`)
}

/** What a process that was killed was writing. */
async function removeLeftovers(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name)
    if (isTemporary(entry.name)) await rm(path, { recursive: true })
    else if (entry.isDirectory() && !ownNames.has(entry.name)) {
      for (const name of (await readdir(path)).filter(isTemporary)) await rm(join(path, name), { recursive: true })
    }
  }
}

async function hasOwnFiles(directory: string): Promise<boolean> {
  if ((await lstatOrUndefined(join(directory, backupName))) !== undefined) return true
  for (const name of await userNames(directory)) {
    if (await isOurLink(directory, name)) return true
    if ((await markedFile(join(directory, name, hostsFile))) !== undefined) return true
  }
  return false
}

/** A link of ours from the last run stays one: a directory cannot take its place in one step. */
async function keepLinks(directory: string, plan: Plan): Promise<Plan> {
  const kept = new Map<string, PlannedFile>()
  for (const [name, file] of plan) {
    const isLink = file.place === 'new' && (await isOurLink(directory, name))
    kept.set(name, isLink ? { ...file, place: 'link' } : file)
  }
  return kept
}

async function write(directory: string, name: string, file: PlannedFile): Promise<void> {
  const path = join(directory, name)
  switch (file.place) {
    case 'existing':
      if (await isOurLink(directory, name)) await restore(directory, name)
      await keepOriginal(join(directory, backupName, name, hostsFile), originalFilePath(directory, name))
      await replaceFile(join(path, hostsFile), file.text, file.mode)
      await syncDirectory(path)
      await restoreTimes(join(directory, backupName, name), path)
      return
    case 'new':
      if ((await lstatOrUndefined(path))?.isDirectory() === true) await writeOwnDirectory(path, file, '..')
      else await createOwnDirectory(path, file, '..')
      return
    case 'link':
    case 'nowhere': {
      const linked = join(directory, linkedName, name)
      await makeDirectory(join(directory, linkedName), 0o755)
      await keepOriginal(join(directory, backupName, name), originalLinkPath(directory, name))
      // A directory of ours: what containerd finds without it is _default, which this one stands for, too.
      if ((await lstatOrUndefined(path))?.isDirectory() === true) await restore(directory, name)
      if (file.place === 'nowhere') await rm(linked, { recursive: true, force: true })
      else if ((await lstatOrUndefined(linked)) === undefined) await createOwnDirectory(linked, file, '../..')
      else await writeOwnDirectory(linked, file, '../..')
      if (await isOurLink(directory, name)) return
      await replaceEntry(path, (temporary) => symlink(linkedText(name), temporary))
    }
  }
}

/** The user's file or link, where it is found also if `_backup` is deleted. */
async function keepOriginal(kept: string, original: string): Promise<void> {
  const stats = await lstatOrUndefined(kept)
  if (stats === undefined || stats.isDirectory()) return
  await makeDirectory(dirname(original), 0o755)
  await copyEntry(kept, original)
}

/** `up`: the way from the directory to certs.d. */
async function createOwnDirectory(path: string, file: PlannedFile, up: string): Promise<void> {
  const temporary = join(dirname(path), temporaryName(basename(path)))
  await rm(temporary, { recursive: true, force: true })
  try {
    await mkdir(temporary, 0o755)
    await writeOwnDirectory(temporary, file, up)
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
}

/** Links first: hosts.toml names what they lead to. */
async function writeOwnDirectory(path: string, { text, mode, links }: PlannedFile, up: string): Promise<void> {
  for (const [name, target] of links) {
    const link = join(path, name)
    const wanted = target.startsWith('/') ? target : join(up, target)
    const existing = await lstatOrUndefined(link)
    const isThere = existing?.isSymbolicLink() === true && (await readlink(link)) === wanted
    if (!isThere) await replaceEntry(link, (temporary) => symlink(wanted, temporary))
  }
  await replaceFile(join(path, hostsFile), text, mode)
  for (const name of await readdir(path)) {
    const isOurs = (await lstat(join(path, name))).isSymbolicLink() && !links.has(name)
    if (isOurs) await rm(join(path, name))
  }
  await syncDirectory(path)
}

/**
 * Directories of ours first: a link that led nowhere must not find one when it is back. Of these `_default` first: a registry
 * without a directory would find the mirror there, with another host behind it than its own file named.
 */
async function restoreAll(directory: string, isWanted: (name: string) => boolean): Promise<void> {
  const names = (await userNames(directory)).filter(isWanted)
  const users = new Set(await userNames(join(directory, backupName)))
  const ours = names.filter((each) => !users.has(each))
  const defaultFirst = [...ours.filter((each) => each === wildcardRegistry), ...ours]
  for (const name of new Set(defaultFirst)) await restore(directory, name)
  for (const name of names.filter((each) => users.has(each))) await restore(directory, name)
}

/** Puts the user's hosts.toml and link back. */
async function restore(directory: string, name: string): Promise<void> {
  const [path, kept] = [join(directory, name), join(directory, backupName, name)]
  if (await isOurLink(directory, name)) {
    const original = await lstatOrUndefined(kept)
    if (original === undefined) await rm(path)
    else if (!original.isDirectory()) await copyEntry(kept, path)
    else await replaceLinkByDirectory(path, kept)
    return
  }
  if (!(await lstat(path)).isDirectory()) return
  const [file, users] = [join(path, hostsFile), join(kept, hostsFile)]
  const keptDirectory = await lstatOrUndefined(kept)
  const isOurs = (await markedFile(file)) !== undefined
  if (keptDirectory === undefined) {
    // A directory without our mark belongs to the user, even if the backup lacks it.
    if (!isOurs) return
    // One rename: an empty directory would hide _default.
    const temporary = join(directory, temporaryName(name))
    await rename(path, temporary)
    await rm(temporary, { recursive: true })
    return
  }
  const usersFile = await lstatOrUndefined(users)
  const hasUsers = usersFile !== undefined
  // A directory of that name is never replaced.
  if (hasUsers && !usersFile.isDirectory() && !(await isSameEntry(file, users))) await copyEntry(users, file)
  else if (isOurs && !hasUsers) await rm(file)
  // Also where an interrupted run left only the time of the directory changed.
  if (keptDirectory.isDirectory()) await restoreTimes(kept, path)
}

/** The user put something into a directory of ours, which stands for _default: for a moment _default itself is read. */
async function replaceLinkByDirectory(path: string, kept: string): Promise<void> {
  const temporary = join(dirname(path), temporaryName(basename(path)))
  await copyTree(kept, temporary)
  await rm(path)
  await rename(temporary, path)
}

/** Only where they differ: a copy is exact to a microsecond only. */
async function restoreTimes(kept: string, path: string): Promise<void> {
  const [was, is] = [await lstat(kept), await lstat(path)]
  if (Math.abs(was.mtimeMs - is.mtimeMs) < 0.001) return
  await syncDirectory(path)
  await setTimes(path, was)
}

/** Directories of ours whose link is the user's again, and originals that are in their place. */
async function removeUnused(directory: string, plan: Plan): Promise<void> {
  const used = new Set<string>()
  for (const [name, { place }] of plan) {
    if (place === 'existing') used.add(originalFilePath(directory, name))
    if (place === 'link' || place === 'nowhere') {
      used.add(originalLinkPath(directory, name)).add(join(directory, linkedName, name))
    }
  }
  for (const parent of [linkedName, originalsName].map((name) => join(directory, name))) {
    if ((await lstatOrUndefined(parent)) === undefined) continue
    for (const name of await readdir(parent)) {
      if (!used.has(join(parent, name))) await rm(join(parent, name), { recursive: true })
    }
    if ((await readdir(parent)).length === 0) await rmdir(parent)
  }
}

/** False: there was nothing of ours. */
async function removeOwnEntries(
  directory: string,
  { isOurs, keepDirectory }: { isOurs: boolean; keepDirectory: boolean },
): Promise<boolean> {
  const [backup, done, absent] = [backupName, doneName, absentName].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ]
  const wasAbsent = (await lstatOrUndefined(absent)) !== undefined
  if (wasAbsent && !keepDirectory && (await userNames(directory)).length === 0) {
    // Gone at once: without the mark, what is left would be taken for the user's.
    await rename(directory, neighbour(directory, 'done'))
    await rm(neighbour(directory, 'done'), { recursive: true })
    return true
  }
  if (isOurs) {
    await syncDirectory(directory)
    await rm(done, { recursive: true, force: true })
    await rename(backup, done)
  }
  await rm(join(directory, partialName), { recursive: true, force: true })
  await rm(join(directory, linkedName), { recursive: true, force: true })
  await rm(join(directory, originalsName), { recursive: true, force: true })
  await rm(join(directory, markedName), { force: true })
  if (!keepDirectory) await rm(absent, { force: true })
  const original = await lstatOrUndefined(done)
  if (original === undefined) return wasAbsent && !keepDirectory
  const { atimeMs, mtimeMs } = original
  await rm(done, { recursive: true })
  await setTimes(directory, { atimeMs, mtimeMs })
  return true
}

/** What an administrator can do about an error of the file system. */
const remedies: Readonly<Record<string, string>> = {
  EACCES: 'run as root, and mount it writable',
  EPERM: 'run as root, and mount it writable',
  EROFS: 'run as root, and mount it writable',
  ENOSPC: 'free space and run the command again',
  EDQUOT: 'free space and run the command again',
  EMFILE: 'raise the limit of open files',
  ENFILE: 'raise the limit of open files',
  EIO: 'check the file system and run the command again',
  EBUSY: 'unmount what is mounted there and run the command again',
  ESTALE: 'mount it again and run the command again',
}
const notADirectory = new Set(['ENOENT', 'ENOTDIR', 'EEXIST', 'ELOOP', 'ENAMETOOLONG', 'EINVAL'])

function explain(directory: string, error: unknown): unknown {
  const code = errorCode(error) ?? ''
  const what = `--containerd-registry-config-path: ${directory}`
  if (notADirectory.has(code)) {
    return new UserError(`${what} is not a directory (${errorMessage(error)}): name containerd's certs.d`)
  }
  const remedy = remedies[code]
  return remedy === undefined ? error : new UserError(`${what}: ${errorMessage(error)}: ${remedy}`)
}
