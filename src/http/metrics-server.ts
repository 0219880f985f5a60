/** Metrics and health on an address of their own. */
import { type FastifyInstance, fastify } from 'fastify'
import type { HostPort } from '../lib/address.ts'
import { metricsConnectionsMax, metricsConnectionsPerAddressMax, metricsConnectionsReserved } from '../limits.ts'
import type { Metrics } from '../metrics.ts'
import { type HealthExtras, addHealthRoutes } from './health.ts'
import { createHttpServer, leaveClientError } from './http-server.ts'
import { listen } from './listen.ts'

export interface MetricsServerComponents extends HealthExtras {
  metrics: Metrics
  /** Sets the gauges that are read rather than counted. */
  beforeScrape: () => void
  notReady: () => string[]
  isOwnNode: (remoteAddress: string | undefined) => boolean
}

const connectionLimits = {
  connectionsMax: metricsConnectionsMax,
  perAddressMax: metricsConnectionsPerAddressMax,
  reserved: metricsConnectionsReserved,
}

/** Throws a UserError when the address cannot be had. */
export async function startMetricsServer(
  address: HostPort,
  { metrics, beforeScrape, notReady, warnings, isOwnNode }: MetricsServerComponents,
): Promise<FastifyInstance> {
  const app = fastify({
    logger: false,
    forceCloseConnections: true,
    serverFactory: (listener) => createHttpServer(listener, { ...connectionLimits, isOwnNode }),
    clientErrorHandler: leaveClientError,
  })
  app.get('/metrics', async (_request, reply) => {
    beforeScrape()
    return reply.type(metrics.registry.contentType).send(await metrics.registry.metrics())
  })
  addHealthRoutes(app, notReady, { warnings })
  await listen(app, address, '--metrics-addr')
  return app
}
