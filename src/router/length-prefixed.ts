/** Messages with their length before them as a varint: the framing of the DHT protocol. */

const varintBytesMax = 4

export function lengthPrefixed(message: Uint8Array): Uint8Array {
  const prefix: number[] = []
  let rest = message.length
  while (rest >= 0x80) {
    prefix.push((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  prefix.push(rest)
  return Buffer.concat([Uint8Array.from(prefix), message])
}

/** Takes bytes as they come, gives whole messages. Throws when a message is longer than the bound. */
export class LengthPrefixedDecoder {
  readonly #messageBytesMax: number
  #pending: Buffer = Buffer.alloc(0)

  constructor(messageBytesMax: number) {
    this.#messageBytesMax = messageBytesMax
  }

  *decode(data: Uint8Array): Generator<Uint8Array> {
    this.#pending = this.#pending.length === 0 ? Buffer.from(data) : Buffer.concat([this.#pending, data])
    for (;;) {
      const prefix = readVarint(this.#pending)
      if (prefix === undefined) return
      if (prefix.value > this.#messageBytesMax) throw tooLong(prefix.value)
      const end = prefix.bytes + prefix.value
      if (this.#pending.length < end) return
      const message = this.#pending.subarray(prefix.bytes, end)
      this.#pending = this.#pending.subarray(end)
      yield message
    }
  }
}

function tooLong(bytes: number): Error {
  return new Error(`a message of ${bytes} bytes is too long`)
}

function readVarint(buffer: Buffer): { value: number; bytes: number } | undefined {
  let value = 0
  for (let i = 0; i < varintBytesMax; i++) {
    const byte = buffer[i]
    if (byte === undefined) return undefined
    value += (byte & 0x7f) * 2 ** (7 * i)
    if (byte < 0x80) return { value, bytes: i + 1 }
  }
  throw new Error('a message length does not end')
}
