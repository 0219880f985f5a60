import { expect, it } from 'vitest'
import { manifestReadTimeoutMs } from '../../../src/limits.ts'
import { PeerFailure, type PeerResponse } from '../../../src/peers/protocol.ts'
import { readManifest } from '../../../src/registry/read-manifest.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const request = {
  kind: 'manifest',
  repository: 'app',
  registry: 'reg.test',
  key: 'reg.test/app:v1',
  tag: 'v1',
} as const

it('gives up a manifest that does not come, and says that the peer stalls', async () => {
  const clock = new ManualClock()
  const discarded = Promise.withResolvers<void>()
  const response: PeerResponse = {
    peer: { id: 'p', addresses: ['10.0.0.1'] },
    size: 100,
    range: undefined,
    contentType: '',
    digest: undefined,
    isArriving: false,
    hereBytes: undefined,
    send: async (write) => {
      await write(Buffer.from('{'))
      await discarded.promise
      throw new PeerFailure('body', 'not wanted any more', { retryable: true })
    },
    discard: () => discarded.resolve(),
  }
  const manifest = readManifest(response, { ...request, digest: undefined }, clock)
  clock.advance(manifestReadTimeoutMs)
  await expect(manifest).rejects.toMatchObject({ reason: 'stall', retryable: false })
})
