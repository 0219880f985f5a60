/** Finds what a run that was killed left behind, and removes it: processes, namespaces, mounts, folders. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { removeLeftovers } from '../../testbed/network.ts'

const run = promisify(execFile)
const prefix = 'spegel-ts-benchmark-'

/** For mkdtemp: the folder of this process's bed. */
export function bedFolderPrefix(): string {
  return join(tmpdir(), `${prefix}${process.pid}-`)
}

/** Returns what was removed, one line each. Beds of processes that still run are left alone. */
export async function removeLeftoversOfBeds(): Promise<string[]> {
  // Processes first: they hold mounts and write files.
  const namespaces = await removeLeftovers()
  const folders = readdirSync(tmpdir())
    .filter(
      (name) => name.startsWith(prefix) && !existsSync(`/proc/${name.slice(prefix.length).split('-')[0] ?? ''}`),
    )
    .map((name) => join(tmpdir(), name))
  for (const folder of folders) {
    for (const mount of mountsBelow(folder)) await run('umount', ['--lazy', mount])
    await rm(folder, { recursive: true, force: true })
  }
  return [...namespaces.map((name) => `network namespace ${name}`), ...folders.map((folder) => `folder ${folder}`)]
}

/** Innermost first. */
function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[1] ?? '').replaceAll(String.raw`\040`, ' '))
    .filter((path) => path.startsWith(`${folder}/`))
    .toReversed()
}
