/**
 * Runs as a child process: some routers of a swarm, commanded over IPC. Whole daemons would do, but what is tested is
 * finding, and 24 of everything on two cores would mostly test the machine.
 */
import { pino } from 'pino'
import { staticBootstrapper } from '../../src/bootstrap/static.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { systemRandom } from '../../src/lib/random.ts'
import { createMetrics } from '../../src/metrics.ts'
import { KadRouter } from '../../src/router/kad-router.ts'

export type SwarmCommand =
  | { id: number; command: 'start'; ip: string; firstPeer: string; keys: string[] }
  | { id: number; command: 'stop'; ip: string }
  | { id: number; command: 'lookup'; ip: string; keys: string[]; timeoutMs: number }
  | { id: number; command: 'peers'; ip: string }

/** For a look-up: by key, the addresses found and the milliseconds to the first. */
export type SwarmAnswer = { id: number; result?: unknown; error?: string }

export interface Looked {
  addresses: string[]
  firstMs: number | undefined
}

const routers = new Map<string, KadRouter>()

async function execute(command: SwarmCommand): Promise<unknown> {
  switch (command.command) {
    case 'start': {
      const router = await KadRouter.start(
        {
          listen: { host: command.ip, port: 5001 },
          advertisedIps: [command.ip],
          dataDir: undefined,
          version: 'test',
          providersWanted: 10,
        },
        {
          bootstrapper: staticBootstrapper([command.firstPeer]),
          clock: systemClock,
          random: systemRandom,
          logger: pino({ level: 'silent' }),
          metrics: createMetrics(),
        },
      )
      router.advertise(command.keys)
      routers.set(command.ip, router)
      return undefined
    }
    case 'stop':
      await routers.get(command.ip)?.close()
      routers.delete(command.ip)
      return undefined
    case 'peers':
      return routers.get(command.ip)?.stats()
    case 'lookup': {
      const results: Record<string, Looked> = {}
      for (const key of command.keys) results[key] = await lookup(command.ip, key, command.timeoutMs)
      return results
    }
  }
}

async function lookup(ip: string, key: string, timeoutMs: number): Promise<Looked> {
  const startedMs = performance.now()
  const addresses: string[] = []
  let firstMs: number | undefined
  const router = routers.get(ip)
  if (router === undefined) throw new Error(`no router at ${ip}`)
  for await (const peer of router.lookup(key, AbortSignal.timeout(timeoutMs))) {
    firstMs ??= performance.now() - startedMs
    addresses.push(...peer.addresses)
  }
  return { addresses, firstMs }
}

process.on('message', (command: SwarmCommand) => {
  execute(command).then(
    (result) => process.send?.({ id: command.id, result }),
    (error: unknown) => process.send?.({ id: command.id, error: String(error) }),
  )
})
process.on('disconnect', () => process.exit())
