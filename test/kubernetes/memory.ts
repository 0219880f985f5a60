/** Memory of containers as the kubelet counts it. */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { ClusterNode } from './node.ts'

const hierarchy = '/sys/fs/cgroup/memory'

/**
 * The working set of a pod: what is used, without the file pages that were not used lately. Read where the kubelet reads
 * it, which looks only each ten seconds. Undefined: it does not run.
 */
export function workingSetBytes(node: ClusterNode, podUid: string): number | undefined {
  try {
    const folder = podFolder(join(hierarchy, node.cgroup), podUid)
    if (folder === undefined) return undefined
    const usedBytes = Number(readFileSync(join(folder, 'memory.usage_in_bytes'), 'utf8'))
    const stat = readFileSync(join(folder, 'memory.stat'), 'utf8')
    const inactiveBytes = Number(/^total_inactive_file (\d+)$/m.exec(stat)?.[1])
    return Math.max(0, usedBytes - inactiveBytes)
  } catch {
    // It ended in this moment.
    return undefined
  }
}

/** `kubepods/pod…`, or one level deeper, in a folder for its class of service. */
function podFolder(root: string, podUid: string): string | undefined {
  const kubepods = join(root, 'kubepods')
  const classes = [kubepods, join(kubepods, 'burstable'), join(kubepods, 'besteffort')]
  return classes.flatMap(foldersIn).find((folder) => folder.endsWith(`/pod${podUid}`))
}

function foldersIn(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(folder, name))
}
