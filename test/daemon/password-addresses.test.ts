/** Proofs cover the address that the sender dialled: a node that listens on all addresses accepts them for each of its own. */
import { expect, it } from 'vitest'
import { pino } from 'pino'
import { systemClock } from '../../src/lib/clock.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { PeerClient } from '../../src/peers/client.ts'
import { basicAuth } from '../../src/registry/auth.ts'
import { SharedPassword } from '../../src/registry/shared-password.ts'
import { ContentNotFound, type ContentStore } from '../../src/store/store.ts'
import { startRegistry } from '../support/registry.ts'

const port = 15_793
const digest = digestOf(Buffer.from('a blob that no node holds'))

it('accepts a proof at every address of the node, in IPv4 and IPv6', async () => {
  const nothing = () => Promise.reject(new ContentNotFound('nothing'))
  const store: ContentStore = {
    resolve: nothing,
    open: nothing,
    facts: () => Promise.reject(new ContentNotFound('none')),
    isStored: () => false,
    wasStoredSince: () => false,
    async *watch() {},
    problem: () => undefined,
    close: () => Promise.resolve(),
  }
  const auth = await SharedPassword.derive(
    basicAuth('mirror', 'password'),
    { bootstrap: 'static', isOurs: () => false, isNamed: () => Promise.resolve(false), ownIps: () => [] },
    { clock: systemClock, logger: pino({ level: 'silent' }) },
  )
  const server = await startRegistry({ host: '', port }, { store, router: undefined, auth })
  const { credentials } = auth
  const client = new PeerClient({ registryPort: port, stallTimeoutMs: 10_000, credentials }, systemClock)
  const request = { kind: 'blob' as const, registry: 'r', repository: 'n', tag: undefined, digest, key: digest }
  const question = { request, method: 'GET' as const, range: undefined, loadMax: undefined }
  try {
    for (const ip of ['127.0.0.1', '127.0.93.1', '::1', '0:0:0:0:0:0:0:1']) {
      const response = client.open({ id: ip, addresses: [ip] }, question, AbortSignal.timeout(10_000), () => {})
      // Accepted, and not found.
      await expect(response, ip).rejects.toMatchObject({ reason: 'not-found' })
    }
  } finally {
    await client.close()
    await server.close(0)
  }
})
