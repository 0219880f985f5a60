/**
 * What the kubelets' events say of pulls. How long one took is in the text of its Pulled event, measured on the node. Times
 * of events are cut to seconds, and come from the nodes' clocks: when a pull ended is when its event arrived here.
 */
import { parseDuration } from '../../lib/duration.ts'

/** What is read of an event. */
export interface PodEvent {
  metadata: { uid: string; creationTimestamp: string }
  involvedObject: { name: string }
  reason: string
  message: string
  source?: { host?: string }
  reportingInstance?: string
  firstTimestamp?: string | null
  eventTime?: string | null
}

export interface SeenEvent {
  event: PodEvent
  /** On this machine's clock. */
  arrivedMs: number
  /** It arrived while we watched: the moment says when it happened. */
  isNew: boolean
}

interface NodePull {
  node: string
  /** On this machine's clock. */
  startedMs: number
  durationMs: number
  error?: string
}

export interface Pulls {
  /** In the order in which they started. */
  pulls: NodePull[]
  /** Compressed size, where the kubelets tell. */
  imageBytes: number | undefined
  /** Why the figures of this phase are doubtful. */
  problems: string[]
  /** What else is worth knowing. */
  remarks: string[]
}

/** Events are cut to seconds, and take some time. */
const clockToleranceMs = 2_000
const lateMs = 3_000
/** Somebody took a pod away. */
const disturbances = new Set(['Evicted', 'Preempted', 'TaintManagerEviction', 'NodeNotReady', 'FailedKillPod'])

/** `events`: those of the phase. */
export function pullsOf(image: string, nodes: readonly string[], events: readonly SeenEvent[]): Pulls {
  const ofImage = events.filter(({ event }) => event.message.includes(`"${image}"`))
  const serverAheadMs = Math.min(...events.filter(({ isNew }) => isNew).map(aheadMs))
  const sizes: number[] = []
  const [pulls, problems, remarks]: [NodePull[], string[], string[]] = [[], [], []]
  for (const node of nodes) {
    const own = ofImage.filter(({ event }) => nodeOf(event) === node)
    const failures = own.filter(({ event }) => event.reason === 'Failed')
    const pulled = own.filter(({ event }) => event.reason === 'Pulled')
    const done = pulled.find(({ event }) => durationOf(event.message) !== undefined)
    if (pulled.some(({ event }) => event.message.includes('already present'))) {
      problems.push(done === undefined ? `${node} had the image already` : `the pod on ${node} was made twice`)
    }
    if (done !== undefined) {
      const [, size] = /Image size: (\d+) bytes/.exec(done.event.message) ?? []
      if (size !== undefined) sizes.push(Number(size))
    }
    const endedMs = (seen: SeenEvent) => momentOf(seen, serverAheadMs, remarks)
    const failure = failures[0]
    if (failure !== undefined) {
      const startedMs = endedMs(own.find(({ event }) => event.reason === 'Pulling') ?? failure)
      const durationMs = Math.max(0, endedMs(done ?? failures.at(-1) ?? failure) - startedMs)
      pulls.push({ node, startedMs, durationMs, error: failure.event.message })
    } else if (done !== undefined) {
      const durationMs = durationOf(done.event.message) ?? 0
      pulls.push({ node, startedMs: endedMs(done) - durationMs, durationMs })
    } else if (pulled.length === 0) {
      problems.push(`no event tells of the pull on ${node}`)
    }
  }
  for (const { event } of events) {
    if (disturbances.has(event.reason))
      problems.push(`${event.involvedObject.name}: ${event.reason}: ${event.message}`)
  }
  return {
    pulls: pulls.toSorted((a, b) => a.startedMs - b.startedMs),
    imageBytes: sizes.length === 0 ? undefined : Math.max(...sizes),
    problems,
    remarks: [...new Set([...remarks, ...clockRemarks(ofImage)])],
  }
}

/** Without the time that the pull waited for others of the node: `in 873.4ms (1.2s including waiting)`. */
function durationOf(message: string): number | undefined {
  const [, text] = /^Successfully pulled image ".*" in ([\d.]\S*)/.exec(message) ?? []
  return text === undefined ? undefined : parseDuration(text.replace(/\.$/, ''))
}

/** Which the tool waits for: of each node the end of its pull, however it ended. */
export function tellsEnd({ reason, message }: PodEvent, image: string): boolean {
  return (reason === 'Pulled' || reason === 'Failed') && message.includes(`"${image}"`)
}

export function nodeOf({ source, reportingInstance }: PodEvent): string {
  return source?.host ?? reportingInstance ?? ''
}

function momentOf(seen: SeenEvent, serverAheadMs: number, remarks: string[]): number {
  const isLate = !seen.isNew || aheadMs(seen) > serverAheadMs + lateMs
  if (!isLate) return seen.arrivedMs
  remarks.push(`an event of ${nodeOf(seen.event)} came late: when its pull started is known to the second only`)
  return createdMs(seen.event) + (Number.isFinite(serverAheadMs) ? serverAheadMs : 0)
}

/** How much later than the API server wrote it down an event arrived, and how far this clock is ahead of the server's. */
function aheadMs({ event, arrivedMs }: SeenEvent): number {
  return arrivedMs - createdMs(event)
}

function createdMs({ metadata }: PodEvent): number {
  return Date.parse(metadata.creationTimestamp)
}

function clockRemarks(events: readonly SeenEvent[]): string[] {
  return events.flatMap(({ event }) => {
    const writtenMs = Date.parse(event.eventTime ?? event.firstTimestamp ?? '')
    const differenceMs = writtenMs - createdMs(event)
    if (Number.isNaN(writtenMs) || Math.abs(differenceMs) <= clockToleranceMs) return []
    const seconds = Math.round(Math.abs(differenceMs) / 1000)
    return [
      `the clock of ${nodeOf(event)} is about ${seconds} s ${differenceMs > 0 ? 'ahead of' : 'behind'} the API server's`,
    ]
  })
}
