/** Messages of flights between two nodes with passwords: over HTTP, between the registry ports of both. */
import { afterEach, expect, it } from 'vitest'
import { pino } from 'pino'
import { systemClock } from '../../src/lib/clock.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { basicAuth } from '../../src/registry/auth.ts'
import { SharedPassword } from '../../src/registry/shared-password.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'
import { type FlightTestNode, flightNodePort, startFlightNode } from '../support/flight-node.ts'

const group = new DaemonGroup()
const logger = pino({ level: 'silent' })
const blob = Buffer.alloc(1_000_000, 'new on all nodes, ')
const digest = digestOf(blob)

const nodes: FlightTestNode[] = []
afterEach(async () => {
  for (const node of nodes.splice(0)) await node.close()
})

async function startNode(number: number, coordinatorNumber: number, password: string): Promise<FlightTestNode> {
  const auth = await SharedPassword.derive(
    basicAuth('mirror', password),
    { bootstrap: 'static', isOurs: () => true, isNamed: () => Promise.resolve(true), ownIps: () => [] },
    { clock: systemClock, logger },
  )
  const node = await startFlightNode(group, number, { coordinatorNumber, auth })
  nodes.push(node)
  return node
}

/** As containerd does: creates its ingest, then requests the blob. Resolves with the status. */
async function pull({ self, transfers, content }: FlightTestNode, wanted: Digest, password: string): Promise<number> {
  content.begin(wanted, blob.length)
  await eventually(() => expect(transfers.find(wanted)).toBeDefined())
  const headers = { authorization: basicAuth('mirror', password).header, 'user-agent': 'containerd/2.1.4' }
  const response = await fetch(`http://${self.addresses[0]}:${flightNodePort}/v2/app/blobs/${wanted}?ns=reg.test`, {
    headers,
  })
  return response.status
}

it('reach a coordinator with the same password, which grants the lease', async () => {
  const coordinator = await startNode(1, 1, 'same')
  const node = await startNode(2, 1, 'same')
  expect(await pull(node, digest, 'same')).toBe(404)
  expect(coordinator.server.flightsCoordinated).toBe(1)
})

it('are refused by a coordinator with another password, and the pull goes on', async () => {
  const coordinator = await startNode(1, 1, 'one')
  const node = await startNode(2, 1, 'another')
  expect(await pull(node, digest, 'another')).toBe(404)
  expect(coordinator.server.flightsCoordinated).toBe(0)
})
