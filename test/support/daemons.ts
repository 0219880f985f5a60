/** Daemons in this process, over OCI layouts on loopback addresses. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseStaticPeer } from '../../src/bootstrap/static.ts'
import { type Daemon, type DaemonConfig, startDaemon } from '../../src/daemon.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { createLogger } from '../../src/logger.ts'
import { type ImageSpec, type WrittenImage, writeImage } from '../../src/images/image.ts'
import { awakeMs } from '../../src/testbed/awake-clock.ts'

const registryPort = 5000
const routerPort = 5001
const metricsPort = 9090

/** Distinct for test processes that run side by side: 127.<worker>.<group>.<n>. */
let groups = 0

export interface TestDaemon {
  ip: string
  layout: string
  /** `http://127.x.y.z:5000` */
  url: string
  metricsUrl: string
  daemon: Daemon
  /** Log lines so far. */
  lines: Record<string, unknown>[]
}

export class DaemonGroup {
  readonly daemons: TestDaemon[] = []
  readonly #network: string
  #folder: string | undefined

  constructor() {
    groups += 1
    this.#network = `127.${100 + (Number(process.env['VITEST_POOL_ID'] ?? '1') % 100)}.${groups}`
  }

  /** An address of this group that nothing else uses. */
  address(number: number): string {
    return `${this.#network}.${number}`
  }

  async folder(): Promise<string> {
    this.#folder ??= await mkdtemp(join(tmpdir(), 'spegel-ts-daemons-'))
    return this.#folder
  }

  /** Starts a further daemon; its first peer is the first daemon of the group. `watchClock`: see `startDaemon`. */
  async start(change: Partial<DaemonConfig> = {}, watchClock?: Clock): Promise<TestDaemon> {
    const number = this.daemons.length + 1
    const ip = this.address(number)
    const layout = await mkdtemp(join(await this.folder(), `n${number}-`))
    const lines: Record<string, unknown>[] = []
    const logger = createLogger('DEBUG', { write: (line) => void lines.push(JSON.parse(line) as (typeof lines)[0]) })
    const config: DaemonConfig = {
      version: 'test',
      store: { kind: 'layout', path: layout },
      bootstrap: { kind: 'static', peers: [parseStaticPeer(`${this.address(1)}:${routerPort}`, '')] },
      bootstrapCertificates: undefined,
      identityListen: undefined,
      registryListen: { host: ip, port: registryPort },
      routerListen: { host: ip, port: routerPort },
      metricsListen: { host: ip, port: metricsPort },
      advertisedIps: [],
      dataDir: undefined,
      mirroredRegistries: [],
      registryFilters: [],
      defaultRegistry: undefined,
      resolveTimeoutMs: 500,
      stallTimeoutMs: 10_000,
      providersWanted: 10,
      auth: undefined,
      flights: true,
      hostsFolder: undefined,
      ...change,
    }
    const daemon = await startDaemon(config, logger, watchClock)
    const started = {
      ip,
      layout,
      url: `http://${ip}:${registryPort}`,
      metricsUrl: `http://${ip}:${metricsPort}`,
      daemon,
      lines,
    }
    this.daemons.push(started)
    return started
  }

  /** Makes an image in a daemon's layout. */
  image(daemon: TestDaemon, spec: Partial<ImageSpec> = {}): Promise<WrittenImage> {
    return writeImage(daemon.layout, {
      name: 'reg.test/app:v1',
      sizeBytes: 3 * 1024 * 1024,
      layers: 2,
      seed: `${daemon.ip}-${spec.name ?? ''}`,
      ...spec,
    })
  }

  async close(): Promise<void> {
    await Promise.all(this.daemons.map(({ daemon }) => daemon.close(0)))
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true })
  }
}

/** Polls until the check passes; rejects with its last failure. For effects that spread through a swarm. */
export async function eventually<Value>(check: () => Promise<Value> | Value, timeoutMs = 10_000): Promise<Value> {
  const deadlineMs = awakeMs() + timeoutMs
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (awakeMs() > deadlineMs) throw error
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  }
}
