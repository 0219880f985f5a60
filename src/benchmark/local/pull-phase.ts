/** One phase on real nodes: everybody pulls when it is their turn, and what that costs is read from outside. */
import type { ContainerdNode } from '../../testbed/containerd-node.ts'
import type { Host } from '../../testbed/network.ts'
import type { AccessLogEntry } from '../../testbed/registry-process.ts'
import type { Blob, Phase, Pull, Result } from '../result/schema.ts'
import { BlobWatch } from './blob-watch.ts'
import type { LayoutImage, PulledBlob } from './layout-image.ts'
import { type MirrorAnswer, mirrorAnswers } from './mirror-log.ts'
import { countRequests } from './requests.ts'
import { CpuSamples, forgetPeaks, peakRss, readUsage } from './usage.ts'

const GiB = 1024 ** 3
const nsPerMs = 1e6
/** As long as a kubelet would wait at most for a pull that makes progress. */
const pullTimeoutMs = 30 * 60_000

export interface ReadyImage extends LayoutImage {
  reference: string
}

/** One pull: who, what, when. The waves follow each other: one begins when all pulls of the last have ended. */
export interface Arrival {
  wave: number
  node: number
  image: number
  /** Since the wave began. */
  delayMs: number
}

export interface PhaseInit {
  nodes: readonly ContainerdNode[]
  images: readonly ReadyImage[]
  arrivals: readonly Arrival[]
  upstreamHost: Host
  /** What the registry was asked for so far. */
  requests: () => AccessLogEntry[]
  /** The mirror's process on a node, if it runs. */
  mirrorPid: (node: ContainerdNode) => number | undefined
  mirrorLog: ((node: ContainerdNode) => string) | undefined
  links: NonNullable<Result['links']>
  signal: AbortSignal
}

export async function measurePhase(init: PhaseInit): Promise<Phase> {
  const { nodes, images } = init
  const watches = new Map(nodes.map((node) => [node, new BlobWatch(node.contentPath)]))
  const hadBefore = new Map(
    nodes.map((node) => [
      node,
      blobsOf(images)
        .filter(({ digest }) => watches.get(node)?.has(digest))
        .map(({ digest }) => digest),
    ]),
  )
  const requestsBefore = init.requests().length
  const usageBefore = await readUsage(init)
  forgetPeaks(init)
  const cpu = new CpuSamples()
  const [startedMs, startedWallMs] = [performance.now(), Date.now()]
  try {
    const pulls = await runWaves(init, startedMs)
    const endedMs = performance.now()
    const usageAfter = await readUsage(init)
    const asked = init.requests().slice(requestsBefore)
    const answers = new Map(
      nodes.map((node) => [
        node,
        init.mirrorLog === undefined ? [] : mirrorAnswers(init.mirrorLog(node), startedWallMs),
      ]),
    )
    const described = pulls.map((pull) =>
      describePull(pull, init, startedMs, (node, blob) => {
        const had = hadBefore.get(node)?.includes(blob.digest) === true
        return describeBlob(
          blob,
          had,
          watches.get(node)?.arrivedMs(blob.digest),
          startedMs,
          asked.filter(({ client }) => client === node.host.ip),
          answers.get(node) ?? [],
        )
      }),
    )
    const lastByteMs = lastArrival(init, watches, hadBefore, startedMs)
    const imageBytes = total(blobsOf(images).map(({ size }) => size))
    const floorSeconds = floor(init.links, imageBytes, nodes.length)
    const deliveredBytes = described
      .filter(({ error }) => error === undefined)
      .reduce((sum, { blobs }) => sum + total(blobs.map(({ size }) => size)), 0)
    const mirrorCpuSeconds = usageAfter.mirrorCpuSeconds - usageBefore.mirrorCpuSeconds
    const hasMirror = init.mirrorLog !== undefined
    return {
      started: new Date(startedWallMs).toISOString(),
      duration: ns(endedMs - startedMs),
      pulls: described,
      ...(lastByteMs === undefined ? {} : { lastByte: ns(lastByteMs), stretch: lastByteMs / 1000 / floorSeconds }),
      floor: ns(floorSeconds * 1000),
      imageBytes,
      upstream: {
        linkBytes: usageAfter.upstreamSentBytes - usageBefore.upstreamSentBytes,
        blobBytes: total(
          asked
            .filter(({ method, path, status }) => method === 'GET' && status < 300 && path.includes('/blobs/'))
            .map(({ bytes }) => bytes),
        ),
        requests: countRequests(asked),
      },
      peerBytes: usageAfter.nodesSentBytes - usageBefore.nodesSentBytes,
      ...(hasMirror
        ? {
            mirror: {
              cpuSeconds: mirrorCpuSeconds,
              cpuSecondsPerGiB: deliveredBytes === 0 ? 0 : mirrorCpuSeconds / (deliveredBytes / GiB),
              peakRssBytes: nodes.flatMap((node) => peakRss(init.mirrorPid(node))),
            },
          }
        : {}),
      containerdCpuSeconds: usageAfter.containerdCpuSeconds - usageBefore.containerdCpuSeconds,
      cpu: {
        busyPercent: cpu.busyPercentUntil(startedMs + (lastByteMs ?? endedMs - startedMs)),
        stealPercent: cpu.stealPercent(),
      },
    }
  } finally {
    cpu.close()
    for (const watch of watches.values()) watch.close()
  }
}

// --- Pulls ---

interface DonePull {
  arrival: Arrival
  startedMs: number
  endedMs: number
  error?: string
}

async function runWaves({ nodes, images, arrivals, signal }: PhaseInit, startedMs: number): Promise<DonePull[]> {
  const done: DonePull[] = []
  const waves = [...new Set(arrivals.map(({ wave }) => wave))].sort((a, b) => a - b)
  for (const wave of waves) {
    const waveMs = wave === waves[0] ? startedMs : performance.now()
    const pulls = arrivals
      .filter((arrival) => arrival.wave === wave)
      .map(async (arrival) => {
        await sleepUntil(waveMs + arrival.delayMs, signal)
        const [node, image] = [nodes[arrival.node], images[arrival.image]]
        if (node === undefined || image === undefined) throw new Error('an arrival without a node or an image')
        const pullMs = performance.now()
        const error = await node.cri.pull(image.reference, pullTimeoutMs).then(() => undefined, String)
        done.push({
          arrival,
          startedMs: pullMs,
          endedMs: performance.now(),
          ...(error === undefined ? {} : { error }),
        })
      })
    await Promise.all(pulls)
    signal.throwIfAborted()
  }
  return done.sort((a, b) => a.arrival.wave - b.arrival.wave || a.arrival.node - b.arrival.node)
}

function sleepUntil(deadlineMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, Math.max(0, deadlineMs - performance.now()))
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer)
        resolve()
      },
      { once: true },
    )
  })
}

function describePull(
  { arrival, startedMs, endedMs, error }: DonePull,
  { nodes, images }: PhaseInit,
  phaseMs: number,
  describe: (node: ContainerdNode, blob: PulledBlob) => Blob,
): Pull {
  const [node, image] = [nodes[arrival.node], images[arrival.image]]
  if (node === undefined || image === undefined) throw new Error('a pull without a node or an image')
  const blobs = image.blobs.map((blob) => describe(node, blob))
  const arrived = blobs.flatMap(({ arrived: moment }) => (moment === undefined ? [] : [moment]))
  // Blobs may have come with another image: then this pull had no network time.
  const networkNs = Math.max(0, Math.max(0, ...arrived) - ns(startedMs - phaseMs))
  const durationNs = ns(endedMs - startedMs)
  return {
    node: node.host.name,
    wave: arrival.wave,
    image: image.reference,
    started: ns(startedMs - phaseMs),
    duration: durationNs,
    ...(error === undefined
      ? { network: Math.min(networkNs, durationNs), unpack: Math.max(0, durationNs - networkNs) }
      : { error }),
    blobs,
  }
}

function describeBlob(
  { digest, size }: PulledBlob,
  had: boolean,
  arrivedMs: number | undefined,
  phaseMs: number,
  askedByNode: readonly AccessLogEntry[],
  answers: readonly MirrorAnswer[],
): Blob {
  const upstreamBytes = total(
    askedByNode
      .filter(({ method, path, status }) => method === 'GET' && status < 300 && path.includes(digest))
      .map(({ bytes }) => bytes),
  )
  const answer = answers.find(({ key }) => key === digest)
  const source = had ? 'local' : upstreamBytes === 0 ? 'peer' : upstreamBytes < size ? 'both' : 'upstream'
  return {
    digest,
    size,
    ...(answer?.firstByteSincePhaseMs === undefined ? {} : { firstByte: ns(answer.firstByteSincePhaseMs) }),
    ...(arrivedMs === undefined ? {} : { arrived: ns(arrivedMs - phaseMs) }),
    ...(arrivedMs === undefined && !had ? {} : { source }),
  }
}

/** Undefined: a node lacks a layer in the end, or nothing was to fetch. */
function lastArrival(
  { nodes, images, arrivals }: PhaseInit,
  watches: ReadonlyMap<ContainerdNode, BlobWatch>,
  hadBefore: ReadonlyMap<ContainerdNode, readonly string[]>,
  startedMs: number,
): number | undefined {
  const moments = arrivals.flatMap(({ node: nodeIndex, image }) => {
    const node = nodes[nodeIndex]
    if (node === undefined) return []
    const layers =
      images[image]?.blobs.filter(
        ({ isLayer, digest }) => isLayer && hadBefore.get(node)?.includes(digest) !== true,
      ) ?? []
    return layers.map(({ digest }) => watches.get(node)?.arrivedMs(digest))
  })
  if (moments.length === 0 || moments.includes(undefined)) return undefined
  return Math.max(...moments.map(Number)) - startedMs
}

/** In seconds: no way of sharing can bring F bytes to N nodes faster over these links (U, r, d, u). */
export function floor(
  { upstream, upstreamSingle, nodeOut, nodeIn }: NonNullable<Result['links']>,
  imageBytes: number,
  nodes: number,
): number {
  return Math.max(
    imageBytes / Math.min(upstream, upstreamSingle),
    imageBytes / nodeIn,
    (nodes * imageBytes) / (upstream + nodes * nodeOut),
  )
}

/** Of all images, each blob once. */
function blobsOf(images: readonly ReadyImage[]): PulledBlob[] {
  return [...new Map(images.flatMap(({ blobs }) => blobs).map((blob) => [blob.digest, blob])).values()]
}

function ns(durationMs: number): number {
  return Math.max(0, Math.round(durationMs * nsPerMs))
}

function total(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0)
}
