/** Messages of flights between two nodes with passwords: over HTTP, between the registry ports of both. */
import { afterEach, expect, it } from 'vitest'
import { pino } from 'pino'
import { systemClock } from '../../src/lib/clock.ts'
import { createMetrics } from '../../src/metrics.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { basicAuth } from '../../src/registry/auth.ts'
import type { RegistryServer } from '../../src/registry/server.ts'
import { SharedPassword } from '../../src/registry/shared-password.ts'
import type { Peer } from '../../src/router/router.ts'
import { IngestFolder } from '../../src/store/ingest-folder.ts'
import { ContentNotFound, type ContentStore } from '../../src/store/store.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'
import { FixedRouter } from '../support/fixed-router.ts'
import { ContentFolderDouble } from '../support/ingest-double.ts'
import { startRegistry } from '../support/registry.ts'

const port = 5000
const group = new DaemonGroup()
const logger = pino({ level: 'silent' })
const blob = Buffer.alloc(1_000_000, 'new on all nodes, ')
const digest = digestOf(blob)

interface FlightTestNode {
  self: Peer
  server: RegistryServer
  transfers: IngestFolder
  content: ContentFolderDouble
}

const nodes: FlightTestNode[] = []
afterEach(async () => {
  for (const { server, transfers, content } of nodes.splice(0)) {
    await server.close(0)
    transfers.stop()
    content.remove()
  }
})

/** A node without content whose flights the coordinator decides. */
async function startNode(number: number, coordinatorNumber: number, password: string): Promise<FlightTestNode> {
  const peerOf = (of: number) => ({ id: `node-${of}`, addresses: [group.address(of)] })
  const self = peerOf(number)
  const content = new ContentFolderDouble()
  content.makeIngestFolder()
  const transfers = new IngestFolder(content.path, 'k8s.io', systemClock)
  transfers.start()
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
  const router = Object.assign(new FixedRouter(), { flightNodes: () => Promise.resolve([peerOf(coordinatorNumber)]) })
  const auth = await SharedPassword.derive(
    basicAuth('mirror', password),
    { bootstrap: 'static', isOurs: () => true, isNamed: () => Promise.resolve(true), ownIps: () => [] },
    { clock: systemClock, logger },
  )
  const flight = {
    transfers,
    self,
    upstreamOrigin: () => Promise.resolve(undefined),
    upstreamRefuses: () => Promise.resolve(false),
  }
  const components = { store, router, flight, auth, metrics: createMetrics() }
  const server = await startRegistry({ host: group.address(number), port }, components)
  const node = { self, server, transfers, content }
  nodes.push(node)
  return node
}

/** As containerd does: creates its ingest, then requests the blob. Resolves with the status. */
async function pull({ self, transfers, content }: FlightTestNode, wanted: Digest, password: string): Promise<number> {
  content.begin(wanted, blob.length)
  await eventually(() => expect(transfers.find(wanted)).toBeDefined())
  const headers = { authorization: basicAuth('mirror', password).header, 'user-agent': 'containerd/2.1.4' }
  const response = await fetch(`http://${self.addresses[0]}:${port}/v2/app/blobs/${wanted}?ns=reg.test`, { headers })
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
