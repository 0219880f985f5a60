/** gzip with stored blocks (RFC 1951 §3.2.4): no compressor whose next version might give other bytes. */
import { crc32 } from 'node:zlib'

/** The most that a stored block can hold. */
const blockBytesMax = 0xffff

export function* gzipStored(parts: Iterable<Buffer>): Generator<Buffer> {
  yield Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])
  let checksum = 0
  let bytes = 0
  for (const part of parts) {
    checksum = crc32(part, checksum)
    bytes += part.length
    const pieces: Buffer[] = []
    for (let at = 0; at < part.length; at += blockBytesMax) {
      const piece = part.subarray(at, at + blockBytesMax)
      pieces.push(storedHeader(piece.length, false), piece)
    }
    yield Buffer.concat(pieces)
  }
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(checksum, 0)
  trailer.writeUInt32LE(bytes % 2 ** 32, 4)
  yield Buffer.concat([storedHeader(0, true), trailer])
}

function storedHeader(length: number, last: boolean): Buffer {
  const header = Buffer.alloc(5)
  header.writeUInt8(last ? 1 : 0, 0)
  header.writeUInt16LE(length, 1)
  header.writeUInt16LE(blockBytesMax - length, 3)
  return header
}
