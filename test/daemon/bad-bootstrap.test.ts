import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ApiServer } from '../support/api-server.ts'
import { DaemonGroup, type TestDaemon, eventually } from '../support/daemons.ts'

/** None of these can ever be dialled. */
const undialable = [
  '/ip4/10.0.0.1/tcp/99999',
  '/ip4/10.0.0.1/tcp/0',
  '/ip4/0.0.0.0/tcp/5001',
  '/ip4/239.1.2.3/tcp/5001',
  '/ip4/10.0.0.1/udp/5001/quic-v1',
  '/ip6/fe80::1%eth0/tcp/5001',
  '/ip4/10.0.0.1/tcp/5001/p2p/nobody',
  'nonsense',
  '',
]

describe('a bootstrap source with entries that cannot be dialled', () => {
  let group: DaemonGroup

  beforeEach(() => void (group = new DaemonGroup()))
  afterEach(() => group.close())

  const reasons = async ({ url }: TestDaemon) => (await fetch(`${url}/readyz`)).text()
  const isReady = (daemon: TestDaemon) =>
    eventually(async () => expect(JSON.parse(await reasons(daemon))).toEqual({ ready: true, reasons: [] }))
  const skipped = ({ lines }: TestDaemon) =>
    lines.filter(({ msg }) => msg === 'bootstrap entry skipped: it cannot be dialled')

  it('still leads to the peers that it names, and each bad entry is reported once', async () => {
    const first = await group.start()
    const good = `/ip4/${first.ip}/tcp/5001`
    const peers = [...undialable, good, ...undialable]
    const second = await group.start({ bootstrap: { kind: 'static', peers } })
    await isReady(second)
    expect(skipped(second).map(({ entry }) => entry)).toEqual(undialable)
    expect(skipped(second)[0]).toMatchObject({
      level: 'WARN',
      bootstrap: 'static',
      reason: 'has the port "99999": a port is a number from 1 to 65535',
    })
  })

  it('is named in the readiness page when it has no other entries, and reported once in many rounds', async () => {
    const daemon = await group.start({ bootstrap: { kind: 'static', peers: undialable } })
    await eventually(async () =>
      expect(await reasons(daemon)).toContain(
        'router: none of the peers from static can be dialled: fix its entries',
      ),
    )
    // Several rounds.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    expect(skipped(daemon)).toHaveLength(undialable.length)
    expect(daemon.lines.filter(({ level }) => level === 'WARN')).toHaveLength(undialable.length + 1)
  })

  it('may be an HTTP server some of whose objects cannot be read', async () => {
    const first = await group.start()
    const answer = [
      { ID: 'nobody', Addrs: undialable },
      { ID: first.daemon.id },
      null,
      'text',
      { ID: 7, Addrs: [null, 5001, { host: 'x' }] },
      { ID: first.daemon.id, Addrs: ['/ip4/10.0.0.1/tcp/99999', `/ip4/${first.ip}/tcp/5001`] },
    ]
    const server = createServer((_request, response) => response.end(JSON.stringify(answer)))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      const { port } = server.address() as AddressInfo
      const second = await group.start({ bootstrap: { kind: 'http', url: new URL(`http://127.0.0.1:${port}/id`) } })
      await isReady(second)
      const entries = skipped(second).map(({ entry }) => entry)
      expect(entries).toContain('text')
      expect(entries).toContain(`{"ID":"${first.daemon.id}"}`)
      expect(new Set(entries).size).toBe(entries.length)
    } finally {
      server.close()
      server.closeAllConnections()
    }
  })

  it('may be Kubernetes with endpoints of every kind', async () => {
    const apiServer = await ApiServer.create()
    try {
      const first = await group.start()
      const addresses = ['0.0.0.0', 'fe80::1', 'nonsense', '224.0.0.1', first.ip]
      apiServer.slices = [{ addressType: 'IPv4', endpoints: [{ addresses }] }]
      await apiServer.start()
      const { address, credentialsFolder } = apiServer
      const bootstrap = { kind: 'kubernetes' as const, service: 's', apiServer: address, credentialsFolder }
      const second = await group.start({ bootstrap })
      await isReady(second)
      expect(skipped(second)).toHaveLength(4)
    } finally {
      await apiServer.remove()
    }
  })
})
