/**
 * Copies that differ in nothing: hard links, which keep bytes, mode, owner, times and extended attributes. Where the file
 * system has none, bytes, mode, owner and times are copied.
 */
import { constants } from 'node:fs'
import {
  chmod,
  copyFile,
  lchown,
  link,
  lstat,
  lutimes,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  utimes,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { UserError, errorCode } from '../lib/errors.ts'
import { isTemporary, temporaryName } from './own-entries.ts'

/** Hard links are not supported, cross a mount point, or are refused for this file. */
const noHardLink = new Set(['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'])

/** Puts the same file or link at `to`, atomically. A directory there is removed. */
export async function copyEntry(from: string, to: string): Promise<void> {
  if (await isSameEntry(from, to)) return
  await replaceEntry(to, async (temporary) => {
    try {
      await link(from, temporary)
    } catch (error) {
      if (!noHardLink.has(errorCode(error) ?? '')) throw error
      await copyByBytes(from, temporary)
    }
  })
}

/** Copies a file, a link, or a directory with all that it holds, to where nothing is. */
export async function copyTree(from: string, to: string): Promise<void> {
  if (!(await lstat(from)).isDirectory()) return copyEntry(from, to)
  await mkdir(to)
  for (const name of await readdir(from)) {
    if (!isTemporary(name)) await copyTree(join(from, name), join(to, name))
  }
  await copyDirectoryStats(from, to)
}

/** Mode, owner and times. */
export async function copyDirectoryStats(from: string, to: string): Promise<void> {
  const stats = await lstat(from)
  await lchown(to, stats.uid, stats.gid)
  await chmod(to, stats.mode & 0o7777)
  await syncDirectory(to)
  await copyTimes(from, to)
}

/** Within a microsecond: Node has no finer clock for this. */
export async function copyTimes(from: string, to: string): Promise<void> {
  await setTimes(to, await lstat(from))
}

export async function setTimes(path: string, times: { atimeMs: number; mtimeMs: number }): Promise<void> {
  // In seconds, since dates would cut them to milliseconds.
  await utimes(path, times.atimeMs / 1000, times.mtimeMs / 1000)
}

/** Makes `path` by filling a temporary neighbour and renaming it. A directory in its place is removed. */
export async function replaceEntry(path: string, fill: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = join(dirname(path), temporaryName(basename(path)))
  await rm(temporary, { recursive: true, force: true })
  try {
    await fill(temporary)
    const existing = await lstatOrUndefined(path)
    if (existing?.isDirectory() === true) await rm(path, { recursive: true })
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
}

/** Writes a file with this content and mode in place of what is there, atomically, and on disk. */
export async function replaceFile(path: string, text: string, mode: number): Promise<void> {
  await replaceEntry(path, async (temporary) => {
    const handle = await open(temporary, 'wx', mode)
    try {
      await handle.writeFile(text)
      // The group is ours, also in a directory that hands its own down.
      await handle.chown(process.geteuid?.() ?? 0, process.getegid?.() ?? 0)
      await handle.chmod(mode)
      await handle.sync()
    } finally {
      await handle.close()
    }
  })
}

/** Both names are the same file. */
export async function isSameEntry(one: string, other: string): Promise<boolean> {
  const [a, b] = [await lstatOrUndefined(one), await lstatOrUndefined(other)]
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino
}

export async function lstatOrUndefined(path: string) {
  try {
    return await lstat(path)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errorCode(error) ?? '')) return undefined
    throw error
  }
}

/** Waits until names in the directory are on disk. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function copyByBytes(from: string, to: string): Promise<void> {
  const stats = await lstat(from)
  const times = [stats.atimeMs / 1000, stats.mtimeMs / 1000] as const
  if (stats.isSymbolicLink()) {
    await symlink(await readlink(from), to)
    await lchown(to, stats.uid, stats.gid)
    await lutimes(to, ...times)
    return
  }
  if (!stats.isFile()) throw new UserError(`${from} is neither file, directory nor link: move it elsewhere and retry`)
  await copyFile(from, to, constants.COPYFILE_EXCL)
  await syncDirectory(to)
  await lchown(to, stats.uid, stats.gid)
  await chmod(to, stats.mode & 0o7777)
  await utimes(to, ...times)
}
