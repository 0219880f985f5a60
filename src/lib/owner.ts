/** Gives a folder to a user who cannot take it: Kubernetes makes folders on the host for root. */
import { lchown, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { makeDirectory } from './make-directory.ts'

export interface Owner {
  uid: number
  gid: number
}

/**
 * The folder, which is made if it is not there, and the files in it. Only once: in a folder that is the user's already,
 * a name may lead anywhere. No capability but CHOWN is needed, since the folder is given away last.
 */
export async function giveFolder(path: string, owner: Owner): Promise<void> {
  await makeDirectory(path, 0o755)
  const { uid, gid } = await stat(path)
  if (uid === owner.uid && gid === owner.gid) return
  for (const name of await readdir(path)) await lchown(join(path, name), owner.uid, owner.gid)
  await lchown(path, owner.uid, owner.gid)
}
