/** Runs as a process of its own: the demo's upstream registry, serving an OCI layout. Arguments: layout, IP, port. */
import { systemClock } from '../lib/clock.ts'
import { systemRandom } from '../lib/random.ts'
import { createLogger } from '../logger.ts'
import { createMetrics } from '../metrics.ts'
import { nameFilter } from '../oci/filter.ts'
import { RegistryServer } from '../registry/server.ts'
import { LayoutStore } from '../store/layout/layout-store.ts'

const [layout = '', host = '', port = ''] = process.argv.slice(2)
const server = new RegistryServer(
  { listen: { host, port: Number(port) }, defaultRegistry: undefined, resolveTimeoutMs: 0, stallTimeoutMs: 10_000 },
  {
    store: await LayoutStore.open(layout, systemClock),
    router: undefined,
    filter: nameFilter([], []),
    auth: undefined,
    notReady: () => [],
    isOwnNode: () => true,
    flight: undefined,
    clock: systemClock,
    random: systemRandom,
    metrics: createMetrics(),
    logger: createLogger('WARN'),
  },
)
await server.start()
process.on('SIGTERM', () => process.exit())
