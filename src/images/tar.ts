/** Tar archives (POSIX ustar) without times and owners: the same files give the same bytes. */

const blockBytes = 512
const endBytes = 2 * blockBytes

/** The most that the header's eleven octal digits can say. */
export const tarFileBytesMax = 8 ** 11 - 1

export interface TarFile {
  /** At most 100 characters. */
  path: string
  mode: number
  sizeBytes: number
  content: Iterable<Buffer>
}

export function* tar(files: readonly TarFile[]): Generator<Buffer> {
  for (const file of files) {
    yield tarHeader(file)
    yield* file.content
    yield Buffer.alloc(paddingBytes(file.sizeBytes))
  }
  yield Buffer.alloc(endBytes)
}

/** What an archive of files of these sizes takes beside their bytes. */
export function tarOverheadBytes(fileSizesBytes: readonly number[]): number {
  return fileSizesBytes.reduce((sum, sizeBytes) => sum + blockBytes + paddingBytes(sizeBytes), endBytes)
}

function paddingBytes(sizeBytes: number): number {
  return (blockBytes - (sizeBytes % blockBytes)) % blockBytes
}

function tarHeader({ path, mode, sizeBytes }: TarFile): Buffer {
  const header = Buffer.alloc(blockBytes)
  const octal = (value: number, width: number) => `${value.toString(8).padStart(width - 1, '0')}\0`
  header.write(path, 0)
  header.write(octal(mode, 8), 100)
  header.write(octal(0, 8), 108)
  header.write(octal(0, 8), 116)
  header.write(octal(sizeBytes, 12), 124)
  header.write(octal(0, 12), 136)
  // The checksum counts its own field as spaces.
  header.write(' '.repeat(8), 148)
  header.write('0', 156)
  header.write('ustar\x0000', 257)
  const checksum = header.reduce((sum, byte) => sum + byte, 0)
  header.write(`${octal(checksum, 7)} `, 148)
  return header
}
