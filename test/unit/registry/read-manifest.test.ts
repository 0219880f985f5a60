import { describe, expect, it } from 'vitest'
import { manifestReadTimeoutMs, manifestReadsBytesMax } from '../../../src/limits.ts'
import { PeerFailure, type PeerResponse } from '../../../src/peers/protocol.ts'
import { ManifestReader } from '../../../src/registry/read-manifest.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const request = {
  kind: 'manifest',
  repository: 'app',
  registry: 'reg.test',
  key: 'reg.test/app:v1',
  tag: 'v1',
  digest: undefined,
} as const
const response: Omit<PeerResponse, 'send' | 'discard'> = {
  peer: { id: 'p', addresses: ['10.0.0.1'] },
  size: 100,
  range: undefined,
  contentType: '',
  digest: undefined,
  isArriving: false,
  hereBytes: undefined,
}

describe('a manifest of a peer', () => {
  it('that does not arrive in time fails, as a stall of the peer', async () => {
    const clock = new ManualClock()
    const discarded = Promise.withResolvers<void>()
    const manifest = new ManifestReader(clock).read(
      {
        ...response,
        send: async (write) => {
          await write(Buffer.from('{'))
          await discarded.promise
          throw new PeerFailure('body', 'discarded', { retryable: true })
        },
        discard: () => discarded.resolve(),
      },
      request,
    )
    clock.advance(manifestReadTimeoutMs)
    await expect(manifest).rejects.toMatchObject({ reason: 'stall', retryable: false })
  })

  it('fails while others fill the memory for manifests, which they give back when they end', async () => {
    const reader = new ManifestReader(new ManualClock())
    const half = Buffer.alloc(manifestReadsBytesMax / 2)
    const ends: ((error: Error) => void)[] = []
    const start = () =>
      reader.read(
        {
          ...response,
          send: (write) => write(half).then(() => new Promise((_resolve, reject) => ends.push(reject))),
          discard: () => {},
        },
        request,
      )
    const running = [start(), start()]
    await expect(start()).rejects.toMatchObject({ reason: 'body' })
    for (const end of ends) end(new PeerFailure('body', 'broken off'))
    await Promise.all(running.map((one) => expect(one).rejects.toThrow('broken off')))
    ends.length = 0
    const again = start()
    await expect.poll(() => ends.length).toBe(1)
    ends[0]?.(new PeerFailure('body', 'broken off again'))
    await expect(again).rejects.toThrow('broken off again')
  })
})
