/**
 * Keeps `_backup` equal to the tree as the user has it: everything in certs.d without our blocks, files and links. What
 * the user added, changed or deleted since the last run is found by comparison, so nothing that is the user's exists only
 * in memory, whenever a run was interrupted.
 */
import { chmod, lchown, lstat, mkdir, readFile, readdir, readlink, rename, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parse } from 'smol-toml'
import { parseJsonObject, parsed } from '../lib/foreign.ts'
import {
  copyDirectoryStats,
  copyEntry,
  copyTimes,
  copyTree,
  isSameEntry,
  lstatOrUndefined,
  replaceFile,
  setTimes,
  syncDirectory,
} from './exact-copy.ts'
import { type Marked, readMarked } from './mirror-block.ts'
import {
  backupName,
  hostsFile,
  isTemporary,
  linkedText,
  markedName,
  originalFilePath,
  originalLinkPath,
  ownNames,
  partialName,
} from './own-entries.ts'

/** Returns the names of registries for which the user changed something since the last run. */
export async function updateBackup(directory: string): Promise<string[]> {
  const backup = join(directory, backupName)
  if ((await lstatOrUndefined(backup)) === undefined) {
    await createBackup(directory)
    return []
  }
  const written = await readWritten(directory)
  if (written === undefined) await takeOverFromSpegel(directory)
  const changed: string[] = []
  const [names, before] = [await userNames(directory), await userNames(backup)]
  for (const name of names) {
    if (await updateRegistry(directory, backup, name, written ?? [])) changed.push(name)
  }
  const deleted = before.filter((name) => !names.includes(name))
  for (const name of deleted) await rm(join(backup, name), { recursive: true })
  changed.push(...deleted)
  if (deleted.length > 0 || changed.some((name) => !before.includes(name))) await copyTimes(directory, backup)
  if (changed.length > 0) await syncDirectory(backup)
  if (written === undefined) await recordWritten(directory, [])
  return changed
}

/** Names of the user's entries, sorted. */
export async function userNames(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => !ownNames.has(name) && !isTemporary(name)).sort()
}

/** Records for which registries hosts.toml is going to be ours: only there may the user's be missing. */
export async function recordWritten(directory: string, names: readonly string[]): Promise<void> {
  const text = `${JSON.stringify({ written: names })}\n`
  const path = join(directory, markedName)
  const isThere = (await lstatOrUndefined(path)) !== undefined
  if (!isThere || (await readFile(path, 'utf8')) !== text) await replaceFile(path, text, 0o644)
}

/** Undefined: the backup, if there is one, is not of this program. */
async function readWritten(directory: string): Promise<readonly string[] | undefined> {
  const path = join(directory, markedName)
  if ((await lstatOrUndefined(path)) === undefined) return undefined
  const names = parseWritten(await readFile(path, 'utf8'))
  // The mark was edited: every registry may be ours.
  return names ?? userNames(directory)
}

function parseWritten(text: string): string[] | undefined {
  const written = parseJsonObject(text)?.['written']
  return Array.isArray(written) ? written.filter((name) => typeof name === 'string') : undefined
}

/** The block of ours in a file; undefined where it is the user's, or none. */
export async function markedFile(path: string): Promise<Marked | undefined> {
  const stats = await lstatOrUndefined(path)
  return stats?.isFile() === true ? readMarked(await readFile(path, 'utf8')) : undefined
}

export async function isOurLink(directory: string, name: string): Promise<boolean> {
  const path = join(directory, name)
  const stats = await lstatOrUndefined(path)
  return stats?.isSymbolicLink() === true && (await readlink(path)) === linkedText(name)
}

async function createBackup(directory: string): Promise<void> {
  const partial = join(directory, partialName)
  await rm(partial, { recursive: true, force: true })
  const times = await lstat(directory)
  await mkdir(partial)
  for (const name of await userNames(directory)) await updateRegistry(directory, partial, name, [])
  await recordWritten(directory, [])
  await setTimes(partial, times)
  await syncDirectory(partial)
  await rename(partial, join(directory, backupName))
  await syncDirectory(directory)
}

async function updateRegistry(
  directory: string,
  backup: string,
  name: string,
  written: readonly string[],
): Promise<boolean> {
  const [live, kept] = [join(directory, name), join(backup, name)]
  if (await isOurLink(directory, name)) {
    const original = originalLinkPath(directory, name)
    if ((await lstatOrUndefined(kept)) === undefined && (await lstatOrUndefined(original)) !== undefined) {
      await copyEntry(original, kept)
    }
    return adoptThroughLink(directory, name, kept)
  }
  if (!(await lstat(live)).isDirectory()) return updateFile(live, kept)
  const marked = await markedFile(join(live, hostsFile))
  const isOurs = marked !== undefined
  const names = (await readdir(live)).filter((entry) => !isTemporary(entry))
  const isOnlyOurs = isOurs && marked.users === undefined && marked.isNewDirectory && names.length === 1
  if (isOnlyOurs && (await lstatOrUndefined(kept)) === undefined) return false
  let isChanged = await updateDirectory(live, kept, {
    ignored: isOurs ? hostsFile : undefined,
    // Where hosts.toml was ours and is gone, the user's own is still the one in the backup.
    kept: isOurs || written.includes(name) ? hostsFile : undefined,
  })
  if (isOurs && marked.users === undefined) {
    if (await recoverOriginal(originalFilePath(directory, name), join(kept, hostsFile))) isChanged = true
  }
  if (marked?.users !== undefined && (await updateEdited(live, kept, marked.users))) isChanged = true
  return isChanged
}

/** Where `_backup` was deleted, and our file says nothing of the user's. */
async function recoverOriginal(original: string, kept: string): Promise<boolean> {
  if ((await lstatOrUndefined(kept)) !== undefined || (await lstatOrUndefined(original)) === undefined) return false
  await copyEntry(original, kept)
  return true
}

/** What the user added or edited in a directory of ours goes to where it would be without us. */
async function adoptThroughLink(directory: string, name: string, kept: string): Promise<boolean> {
  const linked = join(directory, linkedText(name))
  if ((await lstatOrUndefined(linked))?.isDirectory() !== true) return false
  const original = await lstatOrUndefined(kept)
  const target = original?.isSymbolicLink() === true ? resolve(directory, await readlink(kept)) : kept
  const entries = await readdir(linked, { withFileTypes: true })
  const added = entries.filter(
    (entry) => !entry.isSymbolicLink() && entry.name !== hostsFile && !isTemporary(entry.name),
  )
  const file = join(linked, hostsFile)
  const marked = await markedFile(file)
  const isEdited =
    marked?.users !== undefined || (marked === undefined && (await lstatOrUndefined(file)) !== undefined)
  if (added.length === 0 && !isEdited) return false
  if (original === undefined) await mkdir(target, { mode: 0o755 })
  for (const entry of added) {
    if ((await lstatOrUndefined(join(target, entry.name))) === undefined) {
      await copyTree(join(linked, entry.name), join(target, entry.name))
    }
    await rm(join(linked, entry.name), { recursive: true })
  }
  if (isEdited) {
    const text = marked?.users ?? (await readFile(file, 'utf8'))
    await replaceFile(join(target, hostsFile), text, (await lstat(file)).mode & 0o7777)
  }
  return true
}

/** Entries that are not the user's in the live directory, and that stay in the backup though the live directory has none. */
interface Exceptions {
  ignored: string | undefined
  kept: string | undefined
}

async function updateDirectory(
  live: string,
  kept: string,
  exceptions: Exceptions = { ignored: undefined, kept: undefined },
): Promise<boolean> {
  const was = await lstatOrUndefined(kept)
  let isChanged = was?.isDirectory() !== true
  if (isChanged) {
    await rm(kept, { recursive: true, force: true })
    await mkdir(kept)
  }
  const names = (await readdir(live)).filter((name) => !isTemporary(name))
  for (const name of names) {
    if (name === exceptions.ignored) continue
    const isDirectory = (await lstat(join(live, name))).isDirectory()
    const update = isDirectory ? updateDirectory : updateFile
    if (await update(join(live, name), join(kept, name))) isChanged = true
  }
  for (const name of await readdir(kept)) {
    if (names.includes(name) || name === exceptions.kept) continue
    await rm(join(kept, name), { recursive: true })
    isChanged = true
  }
  const [is, before] = [await lstat(live), await lstat(kept)]
  const hasOtherStats = is.mode !== before.mode || is.uid !== before.uid || is.gid !== before.gid
  // Times of the live directory are the user's only if the user changed something in it: we write there, too.
  if (isChanged) {
    await copyDirectoryStats(live, kept)
  } else if (hasOtherStats) {
    await lchown(kept, is.uid, is.gid)
    await chmod(kept, is.mode & 0o7777)
  }
  return isChanged || hasOtherStats
}

async function updateFile(live: string, kept: string): Promise<boolean> {
  const was = await lstatOrUndefined(kept)
  if (was !== undefined && (await isSameContent(live, kept))) return false
  // The backup was edited, as an operator of Spegel may do: the later edit counts.
  if (was !== undefined && !was.isDirectory() && was.ctimeMs > (await lstat(live)).ctimeMs) {
    await copyEntry(kept, live)
    return true
  }
  await copyEntry(live, kept)
  return true
}

/** The user's part of a file with our block was edited, here or in the backup. */
async function updateEdited(live: string, kept: string, text: string): Promise<boolean> {
  const [from, to] = [join(live, hostsFile), join(kept, hostsFile)]
  const [is, was] = [await lstat(from), await lstatOrUndefined(to)]
  if (was?.isFile() === true && (was.ctimeMs > is.ctimeMs || (await readFile(to, 'utf8')) === text)) return false
  await replaceFile(to, text, (was?.isFile() === true ? was : is).mode & 0o7777)
  await copyTimes(from, to)
  return true
}

async function isSameContent(one: string, other: string): Promise<boolean> {
  if (await isSameEntry(one, other)) return true
  const [a, b] = [await lstat(one), await lstat(other)]
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.size !== b.size) return false
  if (a.isSymbolicLink()) return (await readlink(one)) === (await readlink(other))
  if (Math.abs(a.mtimeMs - b.mtimeMs) > 0.001 || !a.isFile()) return false
  return (await readFile(one)).equals(await readFile(other))
}

/** Spegel moved the user's tree to `_backup`. What it wrote in its place goes, what was added later stays. */
async function takeOverFromSpegel(directory: string): Promise<void> {
  const backup = join(directory, backupName)
  const names = await userNames(backup)
  for (const name of await userNames(directory)) {
    const path = join(directory, name, hostsFile)
    if (!(await isSpegels(path))) continue
    if (!names.includes(name) && (await readdir(join(directory, name))).length === 1) {
      await rm(join(directory, name), { recursive: true })
    } else if ((await lstatOrUndefined(join(backup, name, hostsFile))) === undefined) {
      await rm(path)
    } else {
      await copyEntry(join(backup, name, hostsFile), path)
    }
  }
  for (const name of names) await restoreMissing(join(backup, name), join(directory, name))
}

async function restoreMissing(kept: string, live: string): Promise<void> {
  const existing = await lstatOrUndefined(live)
  if (existing === undefined) return copyTree(kept, live)
  if (!existing.isDirectory() || !(await lstat(kept)).isDirectory()) return
  for (const name of await readdir(kept)) await restoreMissing(join(kept, name), join(live, name))
  await copyDirectoryStats(kept, live)
}

/** Spegel gives its own hosts, which come first, a dial timeout of 200 ms. */
async function isSpegels(path: string): Promise<boolean> {
  if ((await lstatOrUndefined(path))?.isFile() !== true) return false
  const text = await readFile(path, 'utf8')
  const { host } = parsed(() => parse(text)) ?? {}
  const first = Object.values((host ?? {}) as Record<string, { dial_timeout?: unknown }>)[0]
  return first?.dial_timeout === '200ms'
}
