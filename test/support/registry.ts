/** The registry port of a daemon alone, over a given store and router. */
import { pino } from 'pino'
import { systemClock } from '../../src/lib/clock.ts'
import { createMetrics } from '../../src/metrics.ts'
import { nameFilter } from '../../src/oci/filter.ts'
import { type RegistryComponents, RegistryServer } from '../../src/registry/server.ts'

export async function startRegistry(
  listen: { host: string; port: number },
  components: Pick<RegistryComponents, 'store' | 'router'> & Partial<RegistryComponents>,
): Promise<RegistryServer> {
  const server = new RegistryServer(
    { listen, defaultRegistry: undefined, resolveTimeoutMs: 500, stallTimeoutMs: 1_000 },
    {
      filter: nameFilter([], []),
      auth: undefined,
      notReady: () => [],
      isOwnNode: () => true,
      flight: undefined,
      clock: systemClock,
      // Peers are asked in the order in which they are found.
      random: () => 0.999_999,
      metrics: createMetrics(),
      logger: pino({ level: 'silent' }),
      ...components,
    },
  )
  await server.start()
  return server
}
