/** What a daemon costs that nobody asks: CPU over a time that has a re-announcement of every key in it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { reprovideIntervalMs } from '../limits.ts'
import type { Benchmark, BenchmarkOptions } from './benchmark.ts'
import type { BenchmarkOutput, RoundConditions } from './result.ts'
import { cpuShares, readCpuTicks } from '../testbed/machine.ts'
import { startDaemons, waitForRecords, writeBlobs } from './swarm-of-daemons.ts'
import { type ServerProcess, Workplace } from './workplace.ts'

const nodes = 8
const keysPerNode = [100, 1_000]
/** Starting is not being idle. */
const settleSeconds = 30
const sampleSeconds = 60

interface Watched {
  /** Percent of a core, of each daemon, over the whole time. */
  cpuPercent: number[]
  /** The mean of all daemons in each minute: the re-announcement shows. */
  perMinutePercent: number[]
  memoryMiB: number[]
  stealPercent: number
}

export const idle: Benchmark = {
  name: 'idle',
  summary: `CPU of ${nodes} daemons that nobody asks, with ${keysPerNode.join(' and ')} keys each`,
  long: true,
  run: runIdle,
}

async function runIdle({ minutes, seed, say }: BenchmarkOptions): Promise<BenchmarkOutput> {
  const watched: { keys: number; result: Watched }[] = []
  for (const keys of keysPerNode) {
    const workplace = await Workplace.create(say)
    try {
      const layouts: string[] = []
      for (let number = 0; number < nodes; number++) {
        const layout = await workplace.newFolder()
        await writeBlobs(layout, `${seed}-${number}`, keys, 64)
        layouts.push(layout)
      }
      const servers = await startDaemons(workplace, layouts)
      await waitForRecords(
        servers,
        servers.map(() => keys * (nodes - 1)),
      )
      await sleep(settleSeconds * 1000)
      watched.push({ keys, result: await watch(servers, minutes, (line) => say(`${keys} keys: ${line}`)) })
    } finally {
      await workplace.close()
    }
  }
  const conditions: RoundConditions[] = watched.map(({ keys, result }) => ({
    series: `${keys} keys`,
    stealPercent: result.stealPercent,
    busyBeforePercent: 0,
    noisy: false,
  }))
  const reprovideMinutes = reprovideIntervalMs / 60_000
  return {
    method: `${nodes} daemons as processes on loopback addresses, each with so many blobs, watched for ${minutes} minutes from ${settleSeconds} s after all of them know everything; every key is announced again after ${(reprovideMinutes * 2) / 3} to ${reprovideMinutes} minutes. A sample for each daemon.`,
    figures: watched.flatMap(({ keys, result }) => [
      { name: `idle, ${keys} keys each, CPU of a core`, unit: '%', samples: result.cpuPercent },
      { name: `idle, ${keys} keys each, memory`, unit: 'MiB', samples: result.memoryMiB },
    ]),
    conditions,
    raw: Object.fromEntries(watched.map(({ keys, result }) => [`keys${keys}`, result])),
  }
}

async function watch(
  servers: readonly ServerProcess[],
  minutes: number,
  say: (line: string) => void,
): Promise<Watched> {
  const cpu = () => servers.map((server) => server.cpuSeconds())
  const ticksBefore = readCpuTicks()
  const startedMs = performance.now()
  const before = cpu()
  const perMinutePercent: number[] = []
  let [last, lastMs] = [before, startedMs]
  for (let minute = 1; minute <= minutes; minute++) {
    await sleep(Math.max(0, startedMs + minute * sampleSeconds * 1000 - performance.now()))
    const [now, nowMs] = [cpu(), performance.now()]
    const used = now.reduce((sum, seconds, index) => sum + seconds - (last[index] ?? 0), 0)
    perMinutePercent.push((100 * used) / servers.length / ((nowMs - lastMs) / 1000))
    say(`minute ${minute}: ${perMinutePercent.at(-1)?.toFixed(2)} % of a core each`)
    ;[last, lastMs] = [now, nowMs]
  }
  const seconds = (lastMs - startedMs) / 1000
  return {
    cpuPercent: last.map((total, index) => (100 * (total - (before[index] ?? 0))) / seconds),
    perMinutePercent,
    memoryMiB: servers.map((server) => server.memoryMiB().now),
    stealPercent: cpuShares(ticksBefore, readCpuTicks()).stealPercent,
  }
}
