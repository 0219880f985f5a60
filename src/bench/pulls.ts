/**
 * What containerd nodes see: does anything leak upstream while a peer has it, does a rate-limited upstream matter, do
 * waves of a rolling update share holders. Real containerd, a real registry, shaped links.
 */
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { seededRandom, shuffled } from '../lib/random.ts'
import { end } from '../testbed/process.ts'
import type { Benchmark, BenchmarkOptions } from './benchmark.ts'
import { cpuShares, readCpuTicks } from '../testbed/machine.ts'
import { cpuSeconds, memoryMiB } from '../testbed/process-usage.ts'
import { PullCluster, type Pull, type Published } from './pull-cluster.ts'
import type { BenchmarkOutput, Figure, RoundConditions } from './result.ts'
import { median } from './statistics.ts'

const MiB = 1024 * 1024
const pullers = 8
const stealPercentMax = 2
const method = `${pullers} nodes with containerd 2.3.4 in network namespaces and one more that has the image, links 1 Gbit, upstream 200 Mbit, pulls by CRI with unpacking, all at once.`

export const pulls: Benchmark = {
  name: 'pulls',
  summary: 'containerd nodes: leaks upstream, a rate-limited upstream, waves of an update',
  async run(options) {
    const bed = await PullCluster.create(pullers + 1, options.seed)
    try {
      const leak = await leakRounds(bed, options, 'fresh')
      const limited = await limitedRounds(bed, options, 'fresh')
      const waves = await waveRounds(bed, options)
      return joined(method, [leak, limited, waves])
    } finally {
      await bed.close()
    }
  },
}

export const hour: Benchmark = {
  name: 'hour',
  summary: 'the same after --minutes of pulls and removals (with 60: at least 500)',
  long: true,
  async run(options) {
    const bed = await PullCluster.create(pullers + 1, options.seed)
    try {
      const life = await livelyTime(bed, options)
      const leak = await leakRounds(bed, options, 'warm')
      const limited = await limitedRounds(bed, options, 'warm')
      const memory = bed.cluster.nodes.map(({ daemon }) => memoryMiB(daemonPid(daemon.pid)).now)
      life.figures.push({
        name: 'memory of a daemon afterwards (one per node)',
        unit: 'MiB',
        samples: memory,
        target: { atMost: 180 },
      })
      return joined(method, [life, leak, limited])
    } finally {
      await bed.close()
    }
  },
}

/** One node has the image, upstream is healthy, the others pull at once. */
async function leakRounds(bed: PullCluster, options: BenchmarkOptions, state: string): Promise<BenchmarkOutput> {
  const rounds: { leakedMiB: number; pulls: Pull[]; cpu: number }[] = []
  const conditions = await repeat(options, `leak ${state}`, async () => {
    const { image, holder, others } = await prepared(bed)
    const seen = bed.cluster.upstream.requests().length
    const daemons = bed.cluster.nodes.map(({ daemon }) => daemonPid(daemon.pid))
    const cpuBefore = daemons.map(cpuSeconds)
    const done = await Promise.all(others.map((node) => bed.pull(node, image)))
    const cpu = daemons.reduce((sum, pid, index) => sum + cpuSeconds(pid) - (cpuBefore[index] ?? 0), 0)
    const asked = bed.cluster.upstream.requests().slice(seen)
    const leaked = asked.filter(
      ({ method: verb, path, client }) => verb === 'GET' && path.includes('/blobs/') && client !== holder.host.ip,
    )
    rounds.push({ leakedMiB: leaked.reduce((sum, { bytes }) => sum + bytes, 0) / MiB, pulls: done, cpu })
    await bed.removeEverywhere(image)
    return `leaked ${rounds.at(-1)?.leakedMiB} MiB, ${failed(done)} failed, median ${middle(done).toFixed(2)} s`
  })
  return {
    method,
    conditions,
    figures: [
      {
        name: `leak, ${state}: blob bytes from upstream`,
        unit: 'MiB',
        samples: rounds.map(({ leakedMiB }) => leakedMiB),
        target: { atMost: 0 },
      },
      {
        name: `leak, ${state}: failed pulls`,
        unit: '',
        samples: rounds.map(({ pulls: done }) => failed(done)),
        target: { atMost: 0 },
      },
      {
        name: `leak, ${state}: median node, 100 MiB in 4 layers`,
        unit: 's',
        samples: rounds.map(({ pulls: done }) => middle(done)),
      },
      { name: `leak, ${state}: CPU of all daemons`, unit: 's', samples: rounds.map(({ cpu }) => cpu) },
    ],
    raw: { [`leak ${state}`]: rounds },
  }
}

/** One node has the image, upstream answers 429 to everything. */
async function limitedRounds(bed: PullCluster, options: BenchmarkOptions, state: string): Promise<BenchmarkOutput> {
  const rounds: Pull[][] = []
  const conditions = await repeat(options, `429 ${state}`, async () => {
    const { image, others } = await prepared(bed)
    const { hostname, port } = new URL(bed.cluster.upstream.url)
    await bed.cluster.upstream.stop()
    const script = fileURLToPath(new URL('refusing-upstream.ts', import.meta.url))
    const refusing = bed.cluster.upstreamHost.spawn(process.execPath, [script, hostname, port], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(refusing, 'spawn')
      rounds.push(await Promise.all(others.map((node) => bed.pull(node, image))))
    } finally {
      await end(refusing)
      await bed.cluster.upstream.start()
    }
    await bed.removeEverywhere(image)
    return `${failed(rounds.at(-1) ?? [])} failed`
  })
  const samples = rounds.map(failed)
  return {
    method,
    conditions,
    figures: [
      {
        name: `upstream answers 429, ${state}: failed pulls of ${pullers}`,
        unit: '',
        samples,
        target: { atMost: 0 },
      },
    ],
    raw: { [`429 ${state}`]: rounds },
  }
}

/** A rolling update: two nodes at a time, nobody has it at first. */
async function waveRounds(bed: PullCluster, options: BenchmarkOptions): Promise<BenchmarkOutput> {
  const rounds: { pulls: Pull[]; shared: number }[] = []
  const conditions = await repeat(options, 'waves', async () => {
    const image = await bed.publish(100, 1)
    const nodes = bed.cluster.nodes.slice(0, pullers)
    const layer = image.image.layers[0]?.digest ?? ''
    const done: Pull[] = []
    let shared = 0
    for (let wave = 0; wave < pullers / 2; wave++) {
      const two = nodes.slice(2 * wave, 2 * wave + 2)
      done.push(...(await Promise.all(two.map((node) => bed.pull(node, image)))))
      const sources = await Promise.all(two.map((node) => bed.sources(node, layer)))
      if (wave > 0 && new Set(sources.map(([first]) => first)).size < two.length) shared += 1
    }
    rounds.push({ pulls: done, shared })
    await bed.removeEverywhere(image)
    return `${shared} waves with a shared holder, median ${middle(done).toFixed(2)} s`
  })
  return {
    method,
    conditions,
    figures: [
      {
        name: 'waves of 2 of 8: later waves that shared a holder while another was idle',
        unit: '',
        samples: rounds.map(({ shared }) => shared),
        target: { atMost: 0 },
      },
      {
        name: 'waves of 2 of 8: median node, 100 MiB in 1 layer',
        unit: 's',
        samples: rounds.map(({ pulls: done }) => middle(done)),
        target: { atMost: 1.62 },
      },
    ],
    raw: { waves: rounds },
  }
}

/** Pulls and removals at random, evenly over the time; fails when one of them does. */
async function livelyTime(bed: PullCluster, { minutes, seed, say }: BenchmarkOptions): Promise<BenchmarkOutput> {
  const pullsWanted = Math.ceil((minutes * 500) / 60) + 10
  const random = seededRandom(Buffer.from(seed).reduce((sum, byte) => (sum * 31 + byte) >>> 0, 7))
  const images: Published[] = []
  for (let i = 0; i < 12; i++) images.push(await bed.publish(8, 1 + (i % 3)))
  const errors: string[] = []
  const startedMs = performance.now()
  const pause = (minutes * 60_000) / pullsWanted
  for (let done = 0; done < pullsWanted; done++) {
    const [image] = shuffled(images, random)
    const [node] = shuffled(bed.cluster.nodes, random)
    if (image === undefined || node === undefined) break
    await node.cri.remove(image.reference).catch(() => undefined)
    const { error } = await bed.pull(node, image)
    if (error !== undefined) errors.push(error)
    if (done % 50 === 49) say(`lively time: ${done + 1} of ${pullsWanted} pulls, ${errors.length} failed`)
    const dueMs = startedMs + (done + 1) * pause
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs - performance.now())))
  }
  for (const image of images) await bed.removeEverywhere(image)
  return {
    method,
    conditions: [],
    figures: [
      { name: 'pulls before', unit: '', samples: [pullsWanted] },
      { name: 'of them failed', unit: '', samples: [errors.length], target: { atMost: 0 } },
    ],
    raw: { errors, minutes: (performance.now() - startedMs) / 60_000 },
  }
}

/** A fresh image that the last node has and offers. */
async function prepared(bed: PullCluster) {
  const { nodes } = bed.cluster
  const image = await bed.publish(100, 4)
  const [holder, others] = [bed.cluster.node(nodes.length), nodes.slice(0, -1)]
  const { error } = await bed.pull(holder, image)
  if (error !== undefined) throw new Error(`the first node cannot pull: ${error}`)
  await bed.offered(bed.cluster.node(1), image)
  return { image, holder, others }
}

async function repeat(
  { rounds, say }: BenchmarkOptions,
  series: string,
  round: () => Promise<string>,
): Promise<RoundConditions[]> {
  const conditions: RoundConditions[] = []
  for (let number = 1; number <= rounds; number++) {
    const before = readCpuTicks()
    const outcome = await round()
    const { stealPercent } = cpuShares(before, readCpuTicks())
    say(`${series} ${number}/${rounds}: ${outcome} (steal ${stealPercent.toFixed(1)} %)`)
    conditions.push({ series, stealPercent, busyBeforePercent: 0, noisy: stealPercent > stealPercentMax })
  }
  return conditions
}

function joined(how: string, outputs: readonly BenchmarkOutput[]): BenchmarkOutput {
  return {
    method: how,
    figures: outputs.flatMap(({ figures }): Figure[] => figures),
    conditions: outputs.flatMap(({ conditions }) => conditions),
    raw: Object.assign({}, ...outputs.map(({ raw }) => raw)) as Record<string, unknown>,
  }
}

const failed = (done: readonly Pull[]) => done.filter(({ seconds }) => seconds === undefined).length
const middle = (done: readonly Pull[]) => median(done.map(({ seconds }) => seconds ?? Infinity))

/** The pid is nsenter's, which becomes the daemon. */
function daemonPid(pid: number | undefined): number {
  if (pid === undefined) throw new Error('the daemon does not run')
  return pid
}
