/** Runs as a child process: some daemons of a swarm, over OCI layouts with small blobs, commanded over IPC. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { parseStaticPeer } from '../../src/bootstrap/static.ts'
import { type Daemon, startDaemon } from '../../src/daemon.ts'
import { writeBlob } from '../../src/images/layout.ts'

export type SwarmCommand =
  | { id: number; command: 'start'; ip: string; firstPeer: string; contents: string[] }
  | { id: number; command: 'stop'; ip: string }

export interface SwarmAnswer {
  id: number
  error?: string
}

const daemons = new Map<string, { daemon: Daemon; layout: string }>()

async function execute(command: SwarmCommand): Promise<void> {
  if (command.command === 'stop') {
    const running = daemons.get(command.ip)
    daemons.delete(command.ip)
    await running?.daemon.close(0)
    if (running !== undefined) await rm(running.layout, { recursive: true })
    return
  }
  const { ip, firstPeer, contents } = command
  const layout = await mkdtemp(join(tmpdir(), 'spegel-ts-swarm-'))
  for (const content of contents) await writeBlob(layout, Buffer.from(content))
  const daemon = await startDaemon(
    {
      version: 'test',
      store: { kind: 'layout', path: layout },
      bootstrap: { kind: 'static', peers: [parseStaticPeer(firstPeer, '')] },
      bootstrapCertificates: undefined,
      identityListen: undefined,
      registryListen: { host: ip, port: 5000 },
      routerListen: { host: ip, port: 5001 },
      metricsListen: { host: ip, port: 9090 },
      advertisedIps: [],
      dataDir: undefined,
      mirroredRegistries: [],
      registryFilters: [],
      defaultRegistry: undefined,
      resolveTimeoutMs: 500,
      stallTimeoutMs: 10_000,
      providersWanted: 10,
      auth: undefined,
    },
    pino({ level: 'silent' }),
  )
  daemons.set(ip, { daemon, layout })
}

process.on('message', (command: SwarmCommand) => {
  execute(command).then(
    () => process.send?.({ id: command.id }),
    (error: unknown) => process.send?.({ id: command.id, error: String(error) }),
  )
})
process.on('disconnect', () => {
  const stopped = [...daemons.keys()].map((ip) => execute({ id: 0, command: 'stop', ip }))
  void Promise.allSettled(stopped).finally(() => process.exit())
})
