/**
 * What serving costs, beside nginx on the same files: throughput, CPU, and how long small requests wait meanwhile. And
 * what passing on from a peer costs.
 */
import { readFile } from 'node:fs/promises'
import { end } from '../testbed/process.ts'
import { writeImage } from '../images/image.ts'
import { blobPath } from '../images/layout.ts'
import { needCurl, prepareNginx } from '../testbed/tools.ts'
import type { Benchmark, BenchmarkOptions } from './benchmark.ts'
import { download, spawnCurl, verify } from './download.ts'
import { KeepAliveClient } from './keep-alive-client.ts'
import { startNginx } from './nginx.ts'
import { type BenchmarkOutput, type Figure, quantileFigures } from './result.ts'
import { alternate } from './rounds.ts'
import { type ServerProcess, Workplace, registryPort } from './workplace.ts'

const MiB = 1024 * 1024
const GiB = 1024 * MiB
const streams = 16
const headSeconds = 2
const headsMax = 20_000
/** Times that each of the 16 would download its blob while HEADs are measured: more than it gets to. */
const downloadsEach = 50

interface Cost {
  mibPerSecond: number
  cpuPerGib: number
}

interface Blob {
  digest: string
  size: number
}

export const speed: Benchmark = {
  name: 'speed',
  summary: 'throughput and CPU of serving and of relaying, HEADs beside downloads; against nginx',
  run: runSpeed,
}

async function runSpeed({ rounds, seed, say }: BenchmarkOptions): Promise<BenchmarkOutput> {
  await needCurl(say)
  const nginxBinary = await prepareNginx(say)
  const workplace = await Workplace.create(say)
  try {
    const layout = await workplace.newFolder()
    say('writing 3 GiB of blobs')
    const large = await writeImage(layout, { name: 'reg.test/large:v1', sizeBytes: GiB, layers: 1, seed })
    const many = await writeImage(layout, { name: 'reg.test/many:v1', sizeBytes: 2 * GiB, layers: streams, seed })
    for (const { digest } of [...large.layers, ...many.layers]) await readFile(blobPath(layout, digest))

    const ours = await workplace.startDaemon({ ip: workplace.address(1), layout })
    const nginx = await startNginx(workplace, nginxBinary, workplace.address(2), { layout })
    const relay = await workplace.startDaemon({
      ip: workplace.address(3),
      layout: await workplace.newFolder(),
      firstPeer: ours.ip,
    })
    const nginxRelay = await startNginx(workplace, nginxBinary, workplace.address(4), { proxied: ours.ip })

    const [blob] = large.layers
    if (blob === undefined) throw new Error('an image without layers')
    for (const server of [ours, nginx, relay, nginxRelay]) await verify(blobUrl(server, blob), blob.digest)

    const one = await alternate(
      '1 GiB on one connection',
      rounds,
      { ours: () => cost(ours, [blob]), nginx: () => cost(nginx, [blob]) },
      say,
    )
    const sixteen = await alternate(
      `${streams} × 128 MiB at once`,
      rounds,
      { ours: () => cost(ours, many.layers), nginx: () => cost(nginx, many.layers) },
      say,
    )
    const relayed = await alternate(
      '1 GiB passed on from a peer',
      rounds,
      { ours: () => cost(relay, [blob]), nginx: () => cost(nginxRelay, [blob]) },
      say,
    )
    const heads = await alternate(
      `HEAD of a manifest beside ${streams} downloads`,
      rounds,
      {
        ours: () => headsBesideDownloads(ours, many.manifest.digest, many.layers),
        nginx: () => headsBesideDownloads(nginx, many.manifest.digest, many.layers),
      },
      say,
    )
    return {
      method: `client: curl to /dev/null over loopback, one process per stream; files in page cache; every body's length checked in each round, the 1 GiB body's digest once per server. nginx: 2 workers, sendfile, tcp_nopush, no access log; its relay is proxy_pass without buffering. CPU is that of the server's processes only. HEAD: one keep-alive connection for ${headSeconds} s, manifest of ${many.manifest.size} bytes.`,
      figures: [
        ...costFigures('1 GiB', one.values, { throughputAtLeast: 0.9 }),
        ...costFigures(`${streams} × 128 MiB`, sixteen.values, { throughputAtLeast: 0.9 }),
        ...costFigures('relay, 1 GiB', relayed.values, { cpuAtMost: 0.7 }),
        ...quantileFigures(
          `HEAD beside ${streams} downloads`,
          heads.values.map(({ ours: times }) => times),
          { p50: undefined, p95: 20, max: undefined },
        ),
        ...quantileFigures(
          `HEAD beside ${streams} downloads, nginx`,
          heads.values.map(({ nginx: times }) => times),
          { p50: undefined, p95: undefined, max: undefined },
        ),
      ],
      conditions: [one, sixteen, relayed, heads].flatMap(({ conditions }) => conditions),
      raw: { one: one.values, sixteen: sixteen.values, relayed: relayed.values, headMs: heads.values },
    }
  } finally {
    await workplace.close()
  }
}

function blobUrl({ ip }: ServerProcess, { digest }: Blob): string {
  return `http://${ip}:${registryPort}/v2/large/blobs/${digest}?ns=reg.test`
}

async function cost(server: ServerProcess, blobs: readonly Blob[]): Promise<Cost> {
  const bytesEach = blobs[0]?.size ?? 0
  const urls = blobs.map((blob) => blobUrl(server, blob))
  const before = server.cpuSeconds()
  const { seconds } = await download(urls, bytesEach)
  const gib = (bytesEach * blobs.length) / GiB
  return { mibPerSecond: (gib * 1024) / seconds, cpuPerGib: (server.cpuSeconds() - before) / gib }
}

/** Milliseconds of each HEAD. */
async function headsBesideDownloads(
  server: ServerProcess,
  manifest: string,
  blobs: readonly Blob[],
): Promise<number[]> {
  const client = await KeepAliveClient.connect(server.ip, registryPort)
  const downloads = blobs.map((blob) => spawnCurl(Array<string>(downloadsEach).fill(blobUrl(server, blob))))
  try {
    await new Promise((resolve) => setTimeout(resolve, 300))
    const times: number[] = []
    const endMs = performance.now() + headSeconds * 1000
    while (performance.now() < endMs && times.length < headsMax) {
      const { status, firstByteMs } = await client.ask('HEAD', `/v2/many/manifests/${manifest}?ns=reg.test`)
      if (status !== 200) throw new Error(`HEAD: ${status}`)
      times.push(firstByteMs)
    }
    const ended = downloads.filter(({ exitCode }) => exitCode !== null).length
    if (ended > 0) throw new Error(`${ended} downloads ended before the HEADs`)
    return times
  } finally {
    client.close()
    await Promise.all(downloads.map((child) => end(child)))
  }
}

function costFigures(
  name: string,
  rounds: readonly { ours: Cost; nginx: Cost }[],
  targets: { throughputAtLeast?: number; cpuAtMost?: number },
): Figure[] {
  const { throughputAtLeast, cpuAtMost } = targets
  return [
    { name: `${name}, throughput`, unit: 'MiB/s', samples: rounds.map(({ ours }) => ours.mibPerSecond) },
    {
      name: `${name}, throughput to nginx's`,
      unit: '×',
      samples: rounds.map(({ ours, nginx }) => ours.mibPerSecond / nginx.mibPerSecond),
      ...(throughputAtLeast === undefined ? {} : { target: { atLeast: throughputAtLeast } }),
    },
    {
      name: `${name}, CPU`,
      unit: 's/GiB',
      samples: rounds.map(({ ours }) => ours.cpuPerGib),
      ...(cpuAtMost === undefined ? {} : { target: { atMost: cpuAtMost } }),
    },
    {
      name: `${name}, CPU to nginx's`,
      unit: '×',
      samples: rounds.map(({ ours, nginx }) => ours.cpuPerGib / nginx.cpuPerGib),
    },
  ]
}
