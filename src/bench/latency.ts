/** How long containerd waits: for "nobody has it", and for the first byte of what exactly one other node has. */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Digest } from '../oci/digest.ts'
import { recordsCompleteAfterMs } from '../limits.ts'
import type { Benchmark, BenchmarkOptions } from './benchmark.ts'
import { DelayLine } from './delay-line.ts'
import { KeepAliveClient } from './keep-alive-client.ts'
import { type BenchmarkOutput, quantileFigures } from './result.ts'
import { alternate } from './rounds.ts'
import { startDaemons, waitForRecords, writeBlobs } from './swarm-of-daemons.ts'
import { Workplace, registryPort } from './workplace.ts'

const nodes = 8
const questions = 200
const blobBytes = 64 * 1024
const delayMs = 5
/** A little more than rounds.ts may ask for. */
const roundsMax = (rounds: number) => 3 * rounds + 2

interface Answers {
  miss: number[]
  hit: number[]
  /** Of all daemons, per question: noise moves it less than the times. */
  missCpuMs: number
  hitCpuMs: number
}

export const latency: Benchmark = {
  name: 'latency',
  summary: `time to 404 and to the first byte in a swarm of ${nodes}; with and without ${delayMs} ms between nodes`,
  run: runLatency,
}

async function runLatency(options: BenchmarkOptions): Promise<BenchmarkOutput> {
  const near = await measureSwarm(options, undefined)
  const far = await measureSwarm(options, delayMs)
  const of = (rounds: readonly { ours: Answers }[], kind: 'miss' | 'hit') => rounds.map(({ ours }) => ours[kind])
  return {
    method: `${nodes} daemons as processes on loopback addresses, ${questions} questions a round to one of them, one after the other on one connection. 404: random digests. First byte: blobs of ${blobBytes / 1024} KiB that exactly one other node has, each asked for once. With delay: everything between nodes passes through relays that hand on each piece ${delayMs} ms later (the TCP handshake is not delayed).`,
    figures: [
      ...quantileFigures('404', of(near.values, 'miss'), { p50: 4, p95: undefined, p99: 10 }),
      ...quantileFigures('first byte from a peer', of(near.values, 'hit'), { p50: 4, p95: undefined, p99: 12 }),
      { name: '404, CPU of all daemons', unit: 'ms', samples: near.values.map(({ ours }) => ours.missCpuMs) },
      { name: 'first byte, CPU of all daemons', unit: 'ms', samples: near.values.map(({ ours }) => ours.hitCpuMs) },
      ...quantileFigures(`404, ${delayMs} ms each way`, of(far.values, 'miss'), noTargets),
      ...quantileFigures(`first byte, ${delayMs} ms each way`, of(far.values, 'hit'), noTargets),
    ],
    conditions: [...near.conditions, ...far.conditions],
    raw: { near: near.values, far: far.values },
  }
}

const noTargets = { p50: undefined, p95: undefined, p99: undefined }

async function measureSwarm({ rounds, seed, say }: BenchmarkOptions, delay: number | undefined) {
  const workplace = await Workplace.create(say)
  const delayLine = delay === undefined ? undefined : new DelayLine(delay)
  try {
    const layouts: string[] = []
    for (let number = 0; number < nodes; number++) layouts.push(await workplace.newFolder())
    // Blobs for every round that could come, dealt out to all but the node that is asked.
    const holders = layouts.slice(1)
    const perHolder = Math.ceil((questions * roundsMax(rounds)) / holders.length)
    const dealt: Digest[][] = []
    for (const [index, layout] of holders.entries()) {
      dealt.push(await writeBlobs(layout, `${seed}-${index}`, perHolder, blobBytes))
    }
    const blobs = Array.from({ length: perHolder }, (_, number) => dealt.flatMap((own) => own[number] ?? [])).flat()
    const startedMs = performance.now()
    const servers = await startDaemons(workplace, layouts, delayLine)
    const [asked] = servers
    if (asked === undefined) throw new Error('no daemon')
    const records = servers.map((_, index) => blobs.length - (dealt[index - 1]?.length ?? 0))
    await waitForRecords(servers, records)
    // From then on a node trusts its own records, as it does for nearly all of its life.
    await sleep(Math.max(0, startedMs + recordsCompleteAfterMs + 5_000 - performance.now()))
    const client = await KeepAliveClient.connect(asked.ip, registryPort)
    let round = 0
    const ask = async (digests: readonly string[], expected: number): Promise<number[]> => {
      const times: number[] = []
      for (const digest of digests) {
        const { status, firstByteMs } = await client.ask('GET', `/v2/app/blobs/${digest}?ns=reg.test`)
        if (status !== expected) throw new Error(`${digest}: ${status} instead of ${expected}`)
        times.push(firstByteMs)
      }
      return times
    }
    const series = delay === undefined ? 'without delay' : `${delay} ms each way`
    return await alternate(
      series,
      rounds,
      {
        ours: async (): Promise<Answers> => {
          round += 1
          const unknown = Array.from({ length: questions }, (_, number) =>
            unknownDigest(`${seed}-${round}-${number}`),
          )
          const cpuMs = () => 1000 * servers.reduce((sum, server) => sum + server.cpuSeconds(), 0)
          const beforeMs = cpuMs()
          const miss = await ask(unknown, 404)
          const betweenMs = cpuMs()
          const hit = await ask(blobs.slice((round - 1) * questions, round * questions), 200)
          const [missCpuMs, hitCpuMs] = [betweenMs - beforeMs, cpuMs() - betweenMs].map((ms) => ms / questions)
          return { miss, hit, missCpuMs: missCpuMs ?? 0, hitCpuMs: hitCpuMs ?? 0 }
        },
      },
      say,
    ).finally(() => client.close())
  } finally {
    await workplace.close()
    await delayLine?.close()
  }
}

function unknownDigest(seed: string): string {
  return `sha256:${createHash('sha256').update(`nobody has ${seed}`).digest('hex')}`
}
