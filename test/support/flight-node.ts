/** A registry port with flights and without content: what its containerd downloads is a double of the content directory. */
import { systemClock } from '../../src/lib/clock.ts'
import { createMetrics } from '../../src/metrics.ts'
import type { RegistryServer } from '../../src/registry/server.ts'
import type { SharedPassword } from '../../src/registry/shared-password.ts'
import type { Peer } from '../../src/router/router.ts'
import { IngestFolder } from '../../src/store/ingest-folder.ts'
import { ContentNotFound, type ContentStore } from '../../src/store/store.ts'
import type { DaemonGroup } from './daemons.ts'
import { FixedRouter } from './fixed-router.ts'
import { ContentFolderDouble } from './ingest-double.ts'
import { startRegistry } from './registry.ts'

export const flightNodePort = 5000

export interface FlightTestNode {
  self: Peer
  server: RegistryServer
  transfers: IngestFolder
  content: ContentFolderDouble
  close(): Promise<void>
}

/** Number N of a group has the id `node-N`. */
export function flightPeer(group: DaemonGroup, number: number): Peer {
  return { id: `node-${number}`, addresses: [group.address(number)] }
}

/** The flights of the node are decided by `coordinatorNumber`. It knows at which address each node of the group is. */
export async function startFlightNode(
  group: DaemonGroup,
  number: number,
  { coordinatorNumber, auth }: { coordinatorNumber: number; auth?: SharedPassword },
): Promise<FlightTestNode> {
  const self = flightPeer(group, number)
  const content = new ContentFolderDouble()
  content.makeIngestFolder()
  const transfers = new IngestFolder(content.path, 'k8s.io', systemClock)
  transfers.start()
  const nothing = () => Promise.reject(new ContentNotFound('nothing'))
  const store: ContentStore = {
    resolve: nothing,
    open: nothing,
    facts: nothing,
    isStored: () => false,
    wasStoredSince: () => false,
    async *watch() {},
    problem: () => undefined,
    close: () => Promise.resolve(),
  }
  const router = Object.assign(new FixedRouter(), {
    flightNodes: () => Promise.resolve([flightPeer(group, coordinatorNumber)]),
    isPeerAt: (id: string, ip: string) => Promise.resolve(group.address(Number(id.replace('node-', ''))) === ip),
  })
  const flight = {
    transfers,
    self,
    upstreamOrigin: () => Promise.resolve(undefined),
    upstreamRefuses: () => Promise.resolve(false),
  }
  const components = { store, router, flight, auth, metrics: createMetrics() }
  const server = await startRegistry({ host: group.address(number), port: flightNodePort }, components)
  const close = async () => {
    await server.close(0)
    transfers.stop()
    content.remove()
  }
  return { self, server, transfers, content, close }
}
