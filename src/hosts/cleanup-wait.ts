/** Waits until every node says that its hosts.toml is restored: that many clean rounds in a row. */
import { lookup } from 'node:dns/promises'
import { request } from 'node:http'
import { type HostPort, formatHostPort } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import { errorMessage } from '../lib/errors.ts'
import type { Logger } from '../logger.ts'

const probeTimeoutMs = 1_000
const probeConcurrency = 10

export interface CleanupWaitConfig {
  /** The name is looked up in each round: all of its addresses count. */
  endpoint: HostPort
  /** Clean rounds in a row. */
  threshold: number
  periodMs: number
}

export async function waitForCleanup(
  { endpoint, threshold, periodMs }: CleanupWaitConfig,
  clock: Clock,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  for (let cleanRounds = 0; cleanRounds < threshold;) {
    const failures = await probeAll(endpoint, signal)
    cleanRounds = failures.length === 0 ? cleanRounds + 1 : 0
    logger.info({ cleanRounds, threshold, failures }, 'cleanup probe')
    if (cleanRounds < threshold) await clock.sleep(periodMs, signal)
  }
}

/** Why each node that is not done is not. */
async function probeAll({ host, port }: HostPort, signal: AbortSignal): Promise<string[]> {
  let addresses: string[]
  try {
    addresses = (await lookup(host, { all: true })).map(({ address }) => address)
  } catch (error) {
    return [`${host}: ${errorMessage(error)}`]
  }
  const failures: string[] = []
  const prober = async () => {
    for (let address = addresses.pop(); address !== undefined; address = addresses.pop()) {
      const failure = await probe(address, port, signal)
      if (failure !== undefined) failures.push(`${formatHostPort(address, port)}: ${failure}`)
    }
  }
  await Promise.all(Array.from({ length: probeConcurrency }, prober))
  return failures
}

function probe(host: string, port: number, signal: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve) => {
    const timed = AbortSignal.any([signal, AbortSignal.timeout(probeTimeoutMs)])
    const outgoing = request({ host, port, path: '/readyz', agent: false, signal: timed }, (response) => {
      response.resume()
      resolve(response.statusCode === 200 ? undefined : `status ${response.statusCode}`)
    })
    outgoing.on('error', (error) => resolve(errorMessage(error)))
    outgoing.end()
  })
}
