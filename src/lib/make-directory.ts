/**
 * Creates a directory and its missing parents one by one. `mkdir` with `recursive` of Node loops forever where the system
 * answers ENOENT although the parent exists, as /proc, autofs and some FUSE file systems do, and it reports a full disk as
 * ENOENT (https://github.com/nodejs/node/issues/42808). This file can go when both are fixed.
 */
import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errorCode, expecting, isSystemError } from './errors.ts'

/** Does nothing where a directory, or a link to one, exists. Throws the error of the system otherwise. */
export async function makeDirectory(path: string, mode = 0o777): Promise<void> {
  try {
    await mkdir(path, mode)
  } catch (error) {
    const code = errorCode(error)
    const parent = dirname(path)
    if (
      code === 'ENOENT' &&
      parent !== path &&
      (await stat(parent).catch(expecting(isSystemError, undefined))) === undefined
    ) {
      await makeDirectory(parent, mode)
      await mkdir(path, mode)
      return
    }
    // A read-only file system reports EROFS even where the directory exists.
    if ((await stat(path).catch(expecting(isSystemError, undefined)))?.isDirectory() === true) return
    throw error
  }
}
