/** What is on a node's disk, so that two moments can be compared. */
import { createHash } from 'node:crypto'
import { lstat, readFile, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { ClusterNode } from './node.ts'

/** Of containerd, its network plugins, the kubelet and the machine itself: what is there is theirs. */
const skipped = new Set([
  'var/lib/containerd',
  'var/lib/cni',
  'var/lib/kubelet',
  'var/log',
  'run',
  'tmp',
  'usr',
  'proc',
  'sys',
  'dev',
])

/** Path to kind, mode, owner and, but for folders, time and content. */
export async function hostFiles(node: ClusterNode): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  const walk = async (folder: string): Promise<void> => {
    for (const name of (await readdir(join(node.disk, folder))).sort()) {
      const path = join(folder, name)
      if (skipped.has(path)) continue
      const absolute = join(node.disk, path)
      const stat = await lstat(absolute)
      const owner = `${stat.mode.toString(8)} ${stat.uid}:${stat.gid}`
      if (stat.isDirectory()) {
        files[path] = owner
        await walk(path)
      } else {
        const content = stat.isSymbolicLink()
          ? await readlink(absolute)
          : createHash('sha256')
              .update(await readFile(absolute))
              .digest('hex')
        files[path] = `${owner} ${stat.mtimeMs} ${content}`
      }
    }
  }
  await walk('')
  return files
}
