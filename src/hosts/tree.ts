/** Copies of folders with mode, owner, times and symbolic links as they are. */
import { constants } from 'node:fs'
import {
  chmod,
  copyFile,
  lchown,
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
import { UserError } from '../lib/errors.ts'

/** Copies what `from` is (file, folder or symbolic link) to `to`, which is replaced entry by entry, each atomically. */
export async function copyTree(from: string, to: string): Promise<void> {
  const stats = await lstat(from)
  if (stats.isDirectory()) {
    const existing = await lstat(to).catch(() => undefined)
    if (existing !== undefined && !existing.isDirectory()) await rm(to)
    await mkdir(to, { recursive: true })
    const names = await readdir(from)
    for (const name of names) await copyTree(join(from, name), join(to, name))
    for (const name of await readdir(to)) {
      if (!names.includes(name)) await rm(join(to, name), { recursive: true })
    }
    await lchown(to, stats.uid, stats.gid)
    await chmod(to, stats.mode & 0o7777)
    await syncFolder(to)
    await utimes(to, ...timesOf(stats))
    return
  }
  await replace(to, async (temporary) => {
    if (stats.isSymbolicLink()) {
      await symlink(await readlink(from), temporary)
      await lchown(temporary, stats.uid, stats.gid)
      await lutimes(temporary, ...timesOf(stats))
    } else if (stats.isFile()) {
      await copyFile(from, temporary, constants.COPYFILE_EXCL)
      await sync(temporary)
      await lchown(temporary, stats.uid, stats.gid)
      await chmod(temporary, stats.mode & 0o7777)
      await utimes(temporary, ...timesOf(stats))
    } else {
      throw new UserError(`${from} is neither file, folder nor link: move it elsewhere; nothing of yours was changed`)
    }
  })
}

/** Makes `path` by filling a temporary neighbour and renaming it. A folder in its place is removed. */
async function replace(path: string, fill: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`)
  await rm(temporary, { force: true })
  try {
    await fill(temporary)
    const existing = await lstat(path).catch(() => undefined)
    if (existing?.isDirectory() === true) await rm(path, { recursive: true })
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

/** Access and modification time for utimes: in seconds, since dates would cut them to milliseconds. */
export function timesOf(stats: { atimeMs: number; mtimeMs: number }): [number, number] {
  return [stats.atimeMs / 1000, stats.mtimeMs / 1000]
}

/** Waits until names in the folder are on disk. */
export function syncFolder(path: string): Promise<void> {
  return sync(path)
}

/** Copies must outlast a power cut before what they are copies of is replaced. */
async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
