/** Memory of a daemon's process: idle, beside 16 transfers that it serves or passes on, and after them. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { end, output } from '../testbed/process.ts'
import { writeImage } from '../images/image.ts'
import { needCurl } from '../testbed/tools.ts'
import type { Benchmark, BenchmarkOptions } from './benchmark.ts'
import { spawnCurl } from './download.ts'
import type { BenchmarkOutput, Figure } from './result.ts'
import { alternate } from './rounds.ts'
import { median } from './statistics.ts'
import { type ServerProcess, Workplace, registryPort } from './workplace.ts'

const MiB = 1024 * 1024
const checkout = fileURLToPath(new URL('../..', import.meta.url))
const streams = 16
const idleSeconds = 10
const workSeconds = 5
const afterSeconds = 10
const sampleMs = 100

type Program = 'bundle' | 'checkout'

/** MiB of resident memory. */
interface Memory {
  idle: number
  serving: number
  servingPeak: number
  afterServing: number
  relaying: number
  relayingPeak: number
  afterRelaying: number
}

export const memory: Benchmark = {
  name: 'memory',
  summary: `resident memory idle, with ${streams} transfers, and after them`,
  run: runMemory,
}

async function runMemory({ rounds, seed, say }: BenchmarkOptions): Promise<BenchmarkOutput> {
  await needCurl(say)
  const workplace = await Workplace.create(say)
  try {
    say('building the bundle')
    await output(spawn('npm', ['run', '--silent', 'build'], { cwd: checkout, stdio: ['ignore', 'pipe', 'pipe'] }))
    const layout = await workplace.newFolder()
    const image = { name: 'reg.test/many:v1', sizeBytes: streams * 128 * MiB, layers: streams, seed }
    const { layers } = await writeImage(layout, image)
    const digests = layers.map(({ digest }) => digest)
    const measured = await alternate(
      'resident memory',
      rounds,
      {
        bundle: () => measure(workplace, 'bundle', layout, digests),
        checkout: () => measure(workplace, 'checkout', layout, digests),
      },
      say,
    )
    const figure = (name: string, key: keyof Memory, atMost?: number, program: Program = 'bundle'): Figure => ({
      name: program === 'bundle' ? name : `${name}, from a checkout`,
      unit: 'MiB',
      samples: measured.values.map((round) => round[program][key]),
      ...(atMost === undefined ? {} : { target: { atMost } }),
    })
    return {
      method: `VmRSS of the daemon's process (the bundle of npm run build, as in an image), new in each round, in a swarm of two. Idle: ${idleSeconds} s after it is ready. At work: median of samples over ${workSeconds} s of ${streams} downloads of 128 MiB blobs as fast as they go, and the kernel's high-water mark. After: ${afterSeconds} s later. Relaying: the same in the node that has none of it.`,
      figures: [
        figure('idle', 'idle', 110),
        figure(`serving ${streams} transfers`, 'serving', 180),
        figure(`serving ${streams} transfers, highest`, 'servingPeak'),
        figure('after serving', 'afterServing'),
        figure(`relaying ${streams} transfers`, 'relaying', 180),
        figure(`relaying ${streams} transfers, highest`, 'relayingPeak'),
        figure('after relaying', 'afterRelaying'),
        figure('idle', 'idle', undefined, 'checkout'),
        figure(`relaying ${streams} transfers, highest`, 'relayingPeak', undefined, 'checkout'),
      ],
      conditions: measured.conditions,
      raw: { rounds: measured.values },
    }
  } finally {
    await workplace.close()
  }
}

async function measure(
  workplace: Workplace,
  program: Program,
  layout: string,
  digests: readonly string[],
): Promise<Memory> {
  const holder = await workplace.startDaemon({ ip: workplace.address(1), layout, program })
  const relay = await workplace.startDaemon({
    ip: workplace.address(2),
    layout: await workplace.newFolder(),
    firstPeer: holder.ip,
    program,
  })
  try {
    await sleep(idleSeconds * 1000)
    const idle = holder.memoryMiB().now
    const serving = await whileDownloading(holder, digests)
    const servingPeak = holder.memoryMiB().peak
    await sleep(afterSeconds * 1000)
    const afterServing = holder.memoryMiB().now
    const relaying = await whileDownloading(relay, digests)
    const relayingPeak = relay.memoryMiB().peak
    await sleep(afterSeconds * 1000)
    return { idle, serving, servingPeak, afterServing, relaying, relayingPeak, afterRelaying: relay.memoryMiB().now }
  } finally {
    await Promise.all([holder, relay].map((server) => workplace.stop(server)))
  }
}

async function whileDownloading(server: ServerProcess, digests: readonly string[]): Promise<number> {
  const urls = digests.map((digest) => `http://${server.ip}:${registryPort}/v2/many/blobs/${digest}?ns=reg.test`)
  const downloads = urls.map((url) => spawnCurl(Array<string>(100).fill(url)))
  try {
    const samples: number[] = []
    for (let sample = 0; sample < (workSeconds * 1000) / sampleMs; sample++) {
      await sleep(sampleMs)
      samples.push(server.memoryMiB().now)
    }
    const failed = downloads.filter(({ exitCode }) => exitCode !== null).length
    if (failed > 0) throw new Error(`${failed} downloads ended early`)
    return median(samples)
  } finally {
    await Promise.all(downloads.map((child) => end(child)))
  }
}
