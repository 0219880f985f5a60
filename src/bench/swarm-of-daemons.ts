/** Daemons as processes that know each other, with small blobs of known content. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type Digest, digestOf } from '../oci/digest.ts'
import { blobPath } from '../images/layout.ts'
import { waitUntil } from '../testbed/process.ts'
import type { DelayLine } from './delay-line.ts'
import { type ServerProcess, type Workplace, readMetric, registryPort, routerPort } from './workplace.ts'

const spreadTimeoutMs = 120_000
/** Real addresses are this far from those that others know. */
const behindTheLine = 100

/**
 * Starts a daemon for each layout; the first is everybody's first peer. With a delay line, others know each by an
 * address of the line.
 */
export async function startDaemons(
  workplace: Workplace,
  layouts: readonly string[],
  delayLine?: DelayLine,
): Promise<ServerProcess[]> {
  const servers: ServerProcess[] = []
  for (const [index, layout] of layouts.entries()) {
    const known = workplace.address(index + 1)
    const ip = delayLine === undefined ? known : workplace.address(index + 1 + behindTheLine)
    for (const port of [registryPort, routerPort]) await delayLine?.relay(known, ip, port)
    const options = delayLine === undefined ? [] : ['--advertise-addr', known]
    servers.push(
      await workplace.startDaemon(
        index === 0 ? { ip, layout, options } : { ip, layout, options, firstPeer: workplace.address(1) },
      ),
    )
  }
  return servers
}

/** Until each holds so many records of the others. In a swarm of up to 21 nodes everybody holds everything. */
export async function waitForRecords(servers: readonly ServerProcess[], records: readonly number[]): Promise<void> {
  for (const [index, { ip, child }] of servers.entries()) {
    const complete = async () => (await readMetric(ip, 'spegel_provider_records')) >= (records[index] ?? 0)
    await waitUntil(`${records[index]} records on ${ip}`, complete, { timeoutMs: spreadTimeoutMs, child })
  }
}

/** Blobs of this many bytes, each different, made from the seed. No sync to disk: nothing has to survive. */
export async function writeBlobs(layout: string, seed: string, count: number, bytes: number): Promise<Digest[]> {
  const digests: Digest[] = []
  for (let number = 0; number < count; number++) {
    const content = Buffer.alloc(bytes, `${seed}-${number} `)
    const digest = digestOf(content)
    const path = blobPath(layout, digest)
    if (number === 0) await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content)
    digests.push(digest)
  }
  return digests
}
