/**
 * What came to certs.d, or changed there, after its backup was made: a registry that an administrator added, a
 * certificate that was renewed, what a distribution writes when it starts. It goes into the backup, so that it stays, and
 * is there after the clean-up.
 */
import { lstat, mkdir, readFile, readdir, readlink } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { copyTree, syncFolder } from './tree.ts'

/** First line of each hosts.toml of ours. With the folder's name: a copy of it in another folder is the user's. */
export function ownMark(name: string): string {
  return `# Written by spegel-ts for ${name}. Your own is below _backup, and comes back at the clean-up.`
}

/** Names of files that were being written when their writer was killed. */
const temporary = /^\..*\.\d+\.tmp$/

/** Returns the entries that had something new. What is gone stays in the backup. */
export async function adopt(folder: string, backup: string, ownNames: ReadonlySet<string>): Promise<string[]> {
  const adopted: string[] = []
  for (const name of await readdir(folder)) {
    if (ownNames.has(name) || temporary.test(name)) continue
    if (await adoptTree(join(folder, name), join(backup, name), true)) adopted.push(name)
  }
  if (adopted.length > 0) await syncFolder(backup)
  return adopted
}

async function adoptTree(live: string, kept: string, isRegistry: boolean): Promise<boolean> {
  const [is, was] = [await lstat(live), await lstat(kept).catch(() => undefined)]
  if (!is.isDirectory()) {
    // Who mends the backup, as the error about a file in it says, is later than the copy of it that is live.
    if (was !== undefined && (was.ctimeMs > is.ctimeMs || (await isSame(live, kept)))) return false
    await copyTree(live, kept)
    return true
  }
  const names = (await readdir(live)).filter((name) => !temporary.test(name))
  const isOurs =
    isRegistry && names.includes('hosts.toml') && (await isMarked(join(live, 'hosts.toml'), basename(live)))
  const theirs = isOurs ? names.filter((name) => name !== 'hosts.toml') : names
  if (was?.isDirectory() !== true) {
    if (isOurs && theirs.length === 0) return false
    if (!isOurs) {
      await copyTree(live, kept)
      return true
    }
    await mkdir(kept, { recursive: true })
  }
  let isNew = false
  for (const name of theirs) {
    if (await adoptTree(join(live, name), join(kept, name), false)) isNew = true
  }
  return isNew
}

async function isSame(live: string, kept: string): Promise<boolean> {
  const [is, was] = [await lstat(live), await lstat(kept)]
  if (is.isSymbolicLink() && was.isSymbolicLink()) return (await readlink(live)) === (await readlink(kept))
  if (!is.isFile() || !was.isFile() || is.size !== was.size) return false
  return (await readFile(live)).equals(await readFile(kept))
}

async function isMarked(path: string, name: string): Promise<boolean> {
  return (await readFile(path, 'utf8').catch(() => '')).startsWith(ownMark(name))
}
