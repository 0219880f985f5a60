/** Everybody pulls when it is their turn. */
import type { ContainerdNode } from '../../testbed/containerd-node.ts'
import type { Arrival } from '../scene/arrivals.ts'

/** As long as a kubelet would wait at most for a pull that makes progress. */
const pullTimeoutMs = 30 * 60_000

export interface DonePull {
  arrival: Arrival
  startedMs: number
  endedMs: number
  error?: string
}

export interface WavesInit {
  /** In the order of their numbers, as images. */
  nodes: readonly ContainerdNode[]
  images: readonly { reference: string }[]
  arrivals: readonly Arrival[]
  signal: AbortSignal
}

/** `startedMs` is when the first wave begins; each other one begins when the one before has ended. */
export async function runWaves(
  { nodes, images, arrivals, signal }: WavesInit,
  startedMs: number,
): Promise<DonePull[]> {
  const done: DonePull[] = []
  const waves = [...new Set(arrivals.map(({ wave }) => wave))].sort((a, b) => a - b)
  for (const wave of waves) {
    const waveMs = wave === waves[0] ? startedMs : performance.now()
    const pulls = arrivals
      .filter((arrival) => arrival.wave === wave)
      .map(async (arrival) => {
        await sleepUntil(waveMs + arrival.atMs, signal)
        const [node, image] = [nodes[arrival.node - 1], images[arrival.image - 1]]
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
    const onAbort = () => {
      clearTimeout(timer)
      resolve()
    }
    signal.addEventListener('abort', onAbort, { once: true })
  })
}
