/** Groups for the pods of a node, in every hierarchy of cgroup v1: what a kubelet is given as its root. */
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, readFile, readdir, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError, errorCode } from '../../src/lib/errors.ts'
import { waitUntil } from '../../src/testbed/process.ts'

const root = '/sys/fs/cgroup'
const emptyTimeoutMs = 20_000

function hierarchies(): string[] {
  if (!existsSync(join(root, 'memory'))) {
    throw new UserError(`the cluster needs cgroup v1 at ${root}: boot with systemd.unified_cgroup_hierarchy=0`)
  }
  // `unified` is the hierarchy of cgroup v2, without controllers here. Links are second names.
  return readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== 'unified')
    .map(({ name }) => join(root, name))
}

/** `path` is what programs are told: `/cluster/node`. */
export async function makeCgroup(path: string): Promise<void> {
  for (const hierarchy of hierarchies()) {
    let folder = hierarchy
    for (const name of path.split('/').filter(Boolean)) {
      const parent = folder
      folder = join(parent, name)
      await mkdir(folder, { recursive: true })
      // A new cpuset is empty, and nobody may run in it.
      for (const file of ['cpuset.cpus', 'cpuset.mems']) {
        if (existsSync(join(folder, file))) await writeFile(join(folder, file), await readFile(join(parent, file)))
      }
    }
  }
}

/** With all below it. Waits for processes that are ending. */
export async function removeCgroup(path: string): Promise<void> {
  const gone = async () => {
    for (const hierarchy of hierarchies()) await removeFolder(join(hierarchy, path))
    return true
  }
  await waitUntil(`the end of the processes in the cgroup ${path}`, gone, { timeoutMs: emptyTimeoutMs })
}

/** Names of the groups directly below the root, of all hierarchies. */
export function topCgroups(): string[] {
  return [...new Set(hierarchies().flatMap((hierarchy) => readdirSync(hierarchy)))]
}

async function removeFolder(folder: string): Promise<void> {
  // The files in it cannot be removed, and need not be.
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  for (const entry of entries) if (entry.isDirectory()) await removeFolder(join(folder, entry.name))
  await rmdir(folder).catch((error: unknown) => {
    if (errorCode(error) !== 'ENOENT') throw error
  })
}
