/**
 * Removes what clusters of killed test runs left: processes, namespaces, cgroups, folders. Mounts are in the nodes'
 * own namespaces and go with their processes. By hand: `bin/run node test/kubernetes/down.ts`
 */
import { existsSync, readdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { removeLeftovers } from '../../src/testbed/network.ts'
import { removeCgroup, topCgroups } from './cgroups.ts'

const prefix = 'spegel-ts-kubernetes-'

/** For mkdtemp. The folder's name is also that of the cluster's cgroup, and says who made it. */
export function clusterFolderPrefix(): string {
  return join(tmpdir(), `${prefix}${process.pid}-`)
}

/** Returns what was removed, one line each. Clusters of processes that still run are left alone. */
export async function removeLeftClusters(): Promise<string[]> {
  // Processes first: with them the mounts go.
  const namespaces = await removeLeftovers()
  const cgroups = topCgroups().filter(isLeft)
  for (const name of cgroups) await removeCgroup(`/${name}`)
  const folders = readdirSync(tmpdir()).filter(isLeft)
  for (const name of folders) await rm(join(tmpdir(), name), { recursive: true, force: true })
  return [
    ...namespaces.map((name) => `network namespace ${name}`),
    ...cgroups.map((name) => `cgroup ${name}`),
    ...folders.map((name) => `folder ${join(tmpdir(), name)}`),
  ]
}

function isLeft(name: string): boolean {
  const pid = new RegExp(String.raw`^${prefix}(\d+)-`).exec(name)?.[1]
  return pid !== undefined && !existsSync(`/proc/${pid}`)
}

if (import.meta.main) {
  for (const line of await removeLeftClusters()) process.stdout.write(`removed ${line}\n`)
}
