/** Reads a file that an option names. A device without an end or a FIFO without a writer would be read for ever. */
import { constants, open } from 'node:fs/promises'

const fileBytesMax = 256 * 1024 * 1024

/** Throws errors of the system, or one that says what the path is instead; callers add the path and the option. */
export async function readRegularFile(path: string): Promise<Buffer> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const stats = await file.stat()
  if (stats.isDirectory()) throw new Error('a directory, not a file')
  if (!stats.isFile()) throw new Error('not a regular file')
  if (stats.size > fileBytesMax) throw new Error('larger than 256 MiB')
  return await file.readFile()
}
