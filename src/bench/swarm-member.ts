/** Runs as a child process: some routers of a swarm, without stores or registries, commanded over IPC. */
import { toMultiaddr } from '../bootstrap/bootstrapper.ts'
import { staticBootstrapper } from '../bootstrap/static.ts'
import { systemClock } from '../lib/clock.ts'
import { systemRandom } from '../lib/random.ts'
import { createLogger } from '../logger.ts'
import { createMetrics } from '../metrics.ts'
import { KadRouter } from '../router/kad-router.ts'

export type MemberCommand =
  | { id: number; command: 'start'; ip: string; firstPeer: string; port: number }
  | { id: number; command: 'advertise'; ip: string; keys: string[] }
  /** Until the router knows so many peers and holds so many records. */
  | { id: number; command: 'wait'; ip: string; peers: number; records: number }
  /** Milliseconds until the first provider of each key, asked one after the other; -1 where there was none. */
  | { id: number; command: 'lookup'; ip: string; keys: string[] }

export interface MemberAnswer {
  id: number
  error?: string
  /** When the command was done, as a date: processes of one machine share that clock. */
  atMs: number
  times: number[]
}

const pollMs = 5
const waitTimeoutMs = 120_000
const routers = new Map<string, KadRouter>()

async function execute(command: MemberCommand): Promise<number[]> {
  if (command.command === 'start') {
    const { ip, firstPeer, port } = command
    const router = await KadRouter.start(
      { listen: { host: ip, port }, advertisedIps: [ip], dataDir: undefined, version: 'bench', providersWanted: 10 },
      {
        bootstrapper: staticBootstrapper([toMultiaddr(firstPeer, port)]),
        clock: systemClock,
        random: systemRandom,
        logger: createLogger('ERROR'),
        metrics: createMetrics(),
      },
    )
    routers.set(ip, router)
    return []
  }
  const router = routers.get(command.ip)
  if (router === undefined) throw new Error(`no router on ${command.ip}`)
  if (command.command === 'advertise') {
    router.advertise(command.keys)
    return []
  }
  if (command.command === 'wait') {
    const deadlineMs = performance.now() + waitTimeoutMs
    for (;;) {
      const { peers, records } = router.stats()
      if (peers >= command.peers && records >= command.records) return []
      if (performance.now() > deadlineMs) throw new Error(`${command.ip}: ${peers} peers, ${records} records`)
      await systemClock.sleep(pollMs)
    }
  }
  const times: number[] = []
  for (const key of command.keys) times.push(await firstProviderMs(router, key))
  return times
}

async function firstProviderMs(router: KadRouter, key: string): Promise<number> {
  const stop = new AbortController()
  const startedMs = performance.now()
  try {
    for await (const _peer of router.lookup(key, stop.signal)) return performance.now() - startedMs
    return -1
  } finally {
    stop.abort()
  }
}

process.on('message', (command: MemberCommand) => {
  const answer = (outcome: { error?: string; times: number[] }) =>
    process.send?.({ id: command.id, atMs: performance.timeOrigin + performance.now(), ...outcome })
  execute(command).then(
    (times) => answer({ times }),
    (error: unknown) => answer({ error: String(error), times: [] }),
  )
})
process.on('disconnect', () => {
  void Promise.allSettled([...routers.values()].map((router) => router.close())).finally(() => process.exit())
})
