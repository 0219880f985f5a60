/** With a DOUBLE of libp2p: a real one does not connect on command to a peer that stays out of the routing table. */
import { pino } from 'pino'
import { afterEach, describe, expect, it } from 'vitest'
import { type BootstrapComponents, BootstrapLoop } from '../../../src/router/bootstrap-loop.ts'
import { systemClock } from '../../../src/lib/clock.ts'

const first = '/ip4/10.0.0.1/tcp/5001'

describe('bootstrap', () => {
  let loop: BootstrapLoop | undefined
  afterEach(() => loop?.close())

  it('is not over with a connection: the peer has to come into the routing table', async () => {
    const connected: string[] = []
    let peerCount = 0
    let asked = 0
    const said: string[] = []
    const components = {
      bootstrapper: {
        name: 'test',
        peers: () => {
          asked += 1
          return Promise.resolve([first])
        },
      },
      libp2p: {
        dial: () => Promise.resolve(connected.push(first)),
        getPeers: () => connected,
        peerStore: { get: (address: string) => Promise.resolve({ addresses: [{ multiaddr: address }] }) },
      },
      peerCount: () => peerCount,
      // What the membership does: it has the table ping the peer once more.
      onConnected: () => (asked > 2 ? (peerCount = 1) : undefined),
      clock: systemClock,
      random: () => 0.5,
      logger: pino({ level: 'info' }, { write: (line) => said.push((JSON.parse(line) as { msg: string }).msg) }),
    } as unknown as BootstrapComponents
    loop = new BootstrapLoop(components, [])
    const problems = new Set<string | undefined>()
    loop.start()
    await expect
      .poll(
        () => {
          if (peerCount === 0) problems.add(loop?.problem())
          return said
        },
        { timeout: 10_000 },
      )
      .toEqual(['joined the swarm by test'])
    expect([...problems]).toEqual(['router: no peer yet, asking test'])
    expect(connected).toEqual([first])
  })
})
