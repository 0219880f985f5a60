/** A result as `benchmark measure` would write it, from distributions that are known. */
import { createHash } from 'node:crypto'
import type { Phase, PhaseName, Pull, Result, Round } from '../../src/benchmark/result/schema.ts'
import { schemaName } from '../../src/benchmark/result/schema.ts'
import { type Random, lognormal, seededRandom } from './random.ts'

const mebibyte = 1024 ** 2

export interface Simulation {
  seed: number
  nodes: number
  rounds: number
  images: readonly string[]
  /** How long one node takes for 1 MiB, by mirror and phase, before noise. */
  mirrors: Readonly<Record<string, Record<PhaseName, number>>>
  roundVariation?: number
  nodeVariation?: number
  /** This share of all pulls fails. */
  failures?: number
  /** These rounds are noisy, and repeated. */
  noisyRounds?: readonly number[]
}

export function simulatedResult(simulation: Simulation): Result {
  const { seed, nodes, rounds, images, mirrors, noisyRounds = [] } = simulation
  const random = seededRandom(seed)
  const waveSize = Math.ceil(0.2 * nodes)
  const names = Object.keys(mirrors)
  const made = Array.from({ length: rounds + 1 }, (_, number) =>
    images.flatMap((image) =>
      names.flatMap((mirror, position) => {
        const attempts = noisyRounds.includes(number) ? [1, 2] : [1]
        return attempts.map((attempt): Round => {
          const noisy = attempt < attempts.length
          return {
            number,
            attempt,
            image,
            mirror,
            position: position + 1,
            started: '2026-11-20T10:00:00.000Z',
            counts: number > 0 && !noisy,
            noise: noisy ? ['the host took 7 % of the CPU'] : [],
            phases: {
              create: phase(simulation, random, { image, mirror, name: 'create', waveSize: nodes }),
              update: phase(simulation, random, { image, mirror, name: 'update', waveSize }),
            },
          }
        })
      }),
    ),
  ).flat()
  return {
    schema: schemaName,
    name: 'simulated',
    started: '2026-11-20T10:00:00.000Z',
    updated: '2026-11-20T12:00:00.000Z',
    complete: true,
    tool: { version: '0.1.0', commit: 'abc123', node: 'v24.0.0', command: ['benchmark', 'measure'] },
    machine: { cpu: 'a cpu', cores: 2, memoryBytes: 8 * 1024 ** 3, kernel: '6.1', load: 0.2 },
    set: {
      target: 'simulated',
      seed: String(seed),
      rounds,
      nodes: Array.from({ length: nodes }, (_, index) => ({ name: nodeName(index), runtime: 'containerd 2.3.4' })),
      waveSize,
      stagger: 20e6,
      upstreamRate: '400mbit',
      nodeRate: '1gbit',
      expectFailures: 0,
    },
    links: { upstream: 48e6, upstreamSingle: 40e6, nodeOut: 119e6, nodeIn: 119e6 },
    mirrors: names.map((name) => (name === 'none' ? { name } : { name, command: `run ${name}` })),
    images: images.map((name) => ({ name, create: [reference(name, 'v1')], update: [reference(name, 'v2')] })),
    rounds: made,
  }
}

function phase(
  { nodes, mirrors, roundVariation = 0.03, nodeVariation = 0.08, failures = 0 }: Simulation,
  random: Random,
  { image, mirror, name, waveSize }: { image: string; mirror: string; name: PhaseName; waveSize: number },
): Phase {
  const { bytes, layers } = sizes(image)
  const perMiBMs = mirrors[mirror]?.[name] ?? 1
  const roundFactor = lognormal(random, roundVariation)
  const pulls: Pull[] = []
  let waveStart = 0
  for (let first = 0; first < nodes; first += waveSize) {
    for (let index = first; index < Math.min(nodes, first + waveSize); index++) {
      const milliseconds =
        (90 + (bytes / mebibyte) * perMiBMs) * roundFactor * lognormal(random, nodeVariation) * (layers > 1 ? 0.9 : 1)
      const duration = Math.round(milliseconds * 1e6)
      const network = Math.round(duration * 0.7)
      pulls.push({
        node: nodeName(index),
        wave: Math.floor(first / waveSize) + 1,
        image: `registry.test/${image}:${name}`,
        started: waveStart + Math.round((index - first) * 20e6),
        duration,
        network,
        unpack: duration - network,
        ...(random.next() < failures ? { error: 'failed to pull: 500 Internal Server Error' } : {}),
        blobs: [],
      })
    }
    waveStart = Math.max(...pulls.map((pull) => pull.started + pull.duration)) + 200e6
  }
  const duration = Math.max(...pulls.map((pull) => pull.started + pull.duration))
  const copies = mirror === 'none' ? nodes : name === 'create' ? Math.max(1, nodes * 0.4) : Math.min(nodes, 1.1)
  return {
    started: '2026-11-20T10:00:00.000Z',
    duration,
    pulls,
    lastByte: Math.round(duration * 0.9),
    floor: Math.round(duration * 0.6),
    stretch: 1.5 * roundFactor,
    imageBytes: bytes,
    upstream: {
      linkBytes: Math.round(copies * bytes * 1.02),
      blobBytes: Math.round(copies * bytes),
      requests: [
        { kind: 'tag', method: 'HEAD', status: 200, count: nodes },
        { kind: 'blob', method: 'GET', status: 200, count: Math.round(copies * layers) },
      ],
    },
    peerBytes: Math.round((nodes - copies) * bytes),
    ...(mirror === 'none'
      ? {}
      : {
          mirror: {
            cpuSeconds: 2,
            cpuSecondsPerGiB: 1.4 * lognormal(random, 0.05),
            peakRssBytes: Array.from({ length: nodes }, () => Math.round(110 * mebibyte * lognormal(random, 0.05))),
          },
        }),
    containerdCpuSeconds: 3 * lognormal(random, 0.05),
    cpu: { busyPercent: 55, stealPercent: 0.4 },
  }
}

function sizes(image: string): { bytes: number; layers: number } {
  const [, size, unit, layers] = /^(\d+)(MB|GB)-(\d+)$/.exec(image) ?? []
  return {
    bytes: Number(size ?? 10) * mebibyte * (unit === 'GB' ? 1024 : 1),
    layers: Number(layers ?? 1),
  }
}

function reference(image: string, version: string): Result['images'][number]['create'][number] {
  const { bytes, layers } = sizes(image)
  const digest = `sha256:${createHash('sha256').update(`${image} ${version}`).digest('hex')}`
  return {
    reference: `registry.test/${image}:${version}`,
    digest,
    bytes,
    layers: Array.from({ length: layers }, () => bytes / layers),
  }
}

function nodeName(index: number): string {
  return `node-${index + 1}`
}
