/** One phase on real nodes: everybody pulls when it is their turn, and what that costs is read from outside. */
import { isDeepStrictEqual } from 'node:util'
import type { ContainerdNode } from '../../testbed/containerd-node.ts'
import type { Host } from '../../testbed/network.ts'
import type { AccessLogEntry } from '../../testbed/registry-process.ts'
import type { Blob, Phase, Pull, Result } from '../result/schema.ts'
import { BlobWatch } from './blob-watch.ts'
import type { Arrival } from '../scene/arrivals.ts'
import type { Timeline } from '../scene/timeline.ts'
import type { LayoutImage, PulledBlob } from './layout-image.ts'
import { type MirrorAnswer, mirrorAnswers } from './mirror-log.ts'
import { countRequests } from './requests.ts'
import { type DonePull, runWaves } from './waves.ts'
import { CpuSamples, forgetPeaks, peakRss, readUsage, usedBetween } from './usage.ts'

const GiB = 1024 ** 3
const nsPerMs = 1e6

export interface ReadyImage extends LayoutImage {
  reference: string
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
  /** Starts what happens beside the pulls; resolves when what is so from the begin is so. */
  startTimeline: () => Promise<Timeline>
  signal: AbortSignal
}

/** `missed`: what the scene wanted to happen beside the pulls, and did not. */
export async function measurePhase(init: PhaseInit): Promise<{ phase: Phase; missed: string[] }> {
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
  const timeline = await init.startTimeline()
  const [startedMs, startedWallMs] = [performance.now(), Date.now()]
  try {
    const pulls = await runWaves(init, startedMs)
    const endedMs = performance.now()
    const { events, missed } = await timeline.stop()
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
    const fetchedBytes = fetchedByEach(init, [...hadBefore.values()])
    const floorSeconds = fetchedBytes === undefined ? undefined : floor(init.links, fetchedBytes, nodes.length)
    const deliveredBytes = described
      .filter(({ error }) => error === undefined)
      .reduce((sum, { blobs }) => sum + total(blobs.map(({ size }) => size)), 0)
    const mirrorCpuSeconds = usedBetween(usageBefore.mirrorCpu, usageAfter.mirrorCpu)
    const containerdCpuSeconds = usedBetween(usageBefore.containerdCpu, usageAfter.containerdCpu)
    const hasMirror = init.mirrorLog !== undefined
    const phase: Phase = {
      started: new Date(startedWallMs).toISOString(),
      duration: ns(endedMs - startedMs),
      pulls: described,
      ...(lastByteMs === undefined ? {} : { lastByte: ns(lastByteMs) }),
      ...(floorSeconds === undefined ? {} : { floor: ns(floorSeconds * 1000) }),
      ...(lastByteMs === undefined || floorSeconds === undefined
        ? {}
        : { stretch: lastByteMs / 1000 / floorSeconds }),
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
              ...(mirrorCpuSeconds === undefined ? {} : { cpuSeconds: mirrorCpuSeconds }),
              ...(mirrorCpuSeconds === undefined || deliveredBytes === 0
                ? {}
                : { cpuSecondsPerGiB: mirrorCpuSeconds / (deliveredBytes / GiB) }),
              peakRssBytes: nodes.flatMap((node) => peakRss(init.mirrorPid(node))),
            },
          }
        : {}),
      ...(containerdCpuSeconds === undefined ? {} : { containerdCpuSeconds }),
      cpu: {
        busyPercent: cpu.busyPercentUntil(startedMs + (lastByteMs ?? endedMs - startedMs)),
        stealPercent: cpu.stealPercent(),
      },
      ...(events.length === 0 ? {} : { faults: events }),
    }
    return { phase, missed }
  } finally {
    await timeline.stop()
    cpu.close()
    for (const watch of watches.values()) watch.close()
  }
}

// --- What it was ---

function describePull(
  { arrival, startedMs, endedMs, error }: DonePull,
  { nodes, images }: PhaseInit,
  phaseMs: number,
  describe: (node: ContainerdNode, blob: PulledBlob) => Blob,
): Pull {
  const [node, image] = [nodes[arrival.node - 1], images[arrival.image - 1]]
  if (node === undefined || image === undefined) throw new Error('a pull without a node or an image')
  const blobs = image.blobs.map((blob) => describe(node, blob))
  const arrived = blobs.flatMap(({ arrived: moment }) => (moment === undefined ? [] : [moment]))
  // Blobs may have come with another image: then this pull had no network time.
  const networkNs = Math.max(0, Math.max(0, ...arrived) - ns(startedMs - phaseMs))
  const durationNs = ns(endedMs - startedMs)
  return {
    node: `n${arrival.node}`,
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
    const node = nodes[nodeIndex - 1]
    if (node === undefined) return []
    const layers =
      images[image - 1]?.blobs.filter(
        ({ isLayer, digest }) => isLayer && hadBefore.get(node)?.includes(digest) !== true,
      ) ?? []
    return layers.map(({ digest }) => watches.get(node)?.arrivedMs(digest))
  })
  if (moments.length === 0 || moments.includes(undefined)) return undefined
  return Math.max(...moments.map(Number)) - startedMs
}

/** Undefined: not all nodes fetch the same, or nothing. Then it depends on who has what how fast it can be. */
function fetchedByEach(
  { nodes, images, arrivals }: PhaseInit,
  hadBefore: readonly (readonly string[])[],
): number | undefined {
  const [had = [], ...others] = hadBefore
  const isSame = others.every((other) => isDeepStrictEqual(other, had))
  if (!isSame || arrivals.length !== nodes.length * images.length) return undefined
  const missing = blobsOf(images).filter(({ digest }) => !had.includes(digest))
  return missing.length === 0 ? undefined : total(missing.map(({ size }) => size))
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
