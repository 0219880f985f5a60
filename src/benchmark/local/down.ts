/** Finds what a run that was killed left behind, and removes it: processes, namespaces, mounts, folders. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, statfsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { removeLeftovers } from '../../testbed/network.ts'

const run = promisify(execFile)
const prefix = 'spegel-ts-benchmark-'
const namePattern = /^spegel-ts-benchmark-(\d+)-/
const memoryFolder = '/dev/shm'

/** For mkdtemp: the folder of this process's bed. */
export function bedFolderPrefix(workFolder: string): string {
  return join(workFolder, `${prefix}${process.pid}-`)
}

/**
 * Where nodes keep their files unless told otherwise: in memory, if so many bytes take no more than half of what is free
 * there. Nodes have disks of their own; here all would share one, and that disk would be measured.
 */
export function defaultWorkFolder(neededBytes: number): string {
  if (!existsSync(memoryFolder)) return tmpdir()
  const { bavail, bsize } = statfsSync(memoryFolder)
  return 2 * neededBytes <= bavail * bsize ? memoryFolder : tmpdir()
}

/** Returns what was removed, one line each; `workFolders` besides the usual ones. Beds of processes that still run are left alone. */
export async function removeLeftoversOfBeds(workFolders: readonly string[] = []): Promise<string[]> {
  // Processes first: they hold mounts and write files.
  const namespaces = await removeLeftovers()
  const folders = [...new Set([tmpdir(), memoryFolder, ...workFolders])].flatMap(leftFolders)
  for (const folder of folders) {
    for (const mount of mountsBelow(folder)) await run('umount', ['--lazy', mount])
    await rm(folder, { recursive: true, force: true })
  }
  return [...namespaces.map((name) => `network namespace ${name}`), ...folders.map((folder) => `folder ${folder}`)]
}

function leftFolders(parent: string): string[] {
  const names = existsSync(parent) ? readdirSync(parent) : []
  const isLeft = (pid: string | undefined) => pid !== undefined && !existsSync(`/proc/${pid}`)
  return names.filter((name) => isLeft(namePattern.exec(name)?.[1])).map((name) => join(parent, name))
}

/** Innermost first. */
function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[1] ?? '').replaceAll(String.raw`\040`, ' '))
    .filter((path) => path.startsWith(`${folder}/`))
    .toReversed()
}
