import { describe, expect, it } from 'vitest'
import { type SeenEvent, pullsOf } from '../../../../src/benchmark/kubernetes/pull-events.ts'

const image = 'registry.test/benchmark:v1-10MB-4'
const startMs = Date.parse('2026-11-20T10:00:00Z')
let made = 0

/** As a kubelet sends it: it arrives a little after it was written down, with its time cut to seconds. */
function seen(
  node: string,
  reason: string,
  message: string,
  atMs: number,
  more: { arrivedMs?: number; isNew?: boolean; nodeClockMs?: number } = {},
): SeenEvent {
  const seconds = (ms: number) => `${new Date(ms).toISOString().slice(0, 19)}Z`
  made += 1
  return {
    event: {
      metadata: { uid: String(made), creationTimestamp: seconds(startMs + atMs) },
      involvedObject: { name: `pod-${node}` },
      reason,
      message,
      source: { host: node },
      firstTimestamp: seconds(startMs + atMs + (more.nodeClockMs ?? 0)),
    },
    arrivedMs: startMs + (more.arrivedMs ?? atMs + 20),
    isNew: more.isNew ?? true,
  }
}

const pulling = (node: string, atMs: number) => seen(node, 'Pulling', `Pulling image "${image}"`, atMs)
const pulled = (node: string, took: string, atMs: number, more = {}) =>
  seen(node, 'Pulled', `Successfully pulled image "${image}" in ${took}. Image size: 10489321 bytes.`, atMs, more)

describe('events of pulls', () => {
  it('say how long each took without waiting for others, and how large the image is', () => {
    const events = [
      pulling('n1', 0),
      pulled('n1', '873ms (1.2s including waiting)', 900),
      pulled('n2', '1m2.5s (1m2.5s including waiting)', 62_600),
      pulled('n3', '500µs', 100),
    ]
    const { pulls, imageBytes, problems, remarks } = pullsOf(image, ['n1', 'n2', 'n3'], events)
    expect(pulls).toEqual([
      { node: 'n1', startedMs: startMs + 920 - 873, durationMs: 873 },
      { node: 'n3', startedMs: startMs + 119.5, durationMs: 0.5 },
      { node: 'n2', startedMs: startMs + 120, durationMs: 62_500 },
    ])
    expect({ imageBytes, problems, remarks }).toEqual({ imageBytes: 10_489_321, problems: [], remarks: [] })
  })

  it('of kubelets that tell neither waiting nor size are understood', () => {
    const event = seen('n1', 'Pulled', `Successfully pulled image "${image}" in 5.25s`, 6_000)
    const { pulls, imageBytes } = pullsOf(image, ['n1'], [event])
    expect(pulls).toMatchObject([{ durationMs: 5_250 }])
    expect(imageBytes).toBeUndefined()
  })

  it('of other images are passed over', () => {
    const other = seen('n1', 'Pulled', 'Successfully pulled image "registry.test/benchmark:v1-10MB-41" in 1s', 0)
    expect(pullsOf(image, ['n1'], [other])).toMatchObject({
      pulls: [],
      problems: ['no event tells of the pull on n1'],
    })
  })

  it('tell that a node had the image, or that its pod was made twice', () => {
    const present = (node: string) =>
      seen(node, 'Pulled', `Container image "${image}" already present on machine and can be accessed by the pod`, 5)
    const events = [present('n1'), pulled('n2', '1s', 1_000), present('n2')]
    const { pulls, problems } = pullsOf(image, ['n1', 'n2'], events)
    expect(pulls.map(({ node }) => node)).toEqual(['n2'])
    expect(problems).toEqual(['n1 had the image already', 'the pod on n2 was made twice'])
  })

  it('tell that a pull failed, and how long it took until the next try went well', () => {
    const failure = `Failed to pull image "${image}": rpc error: code = NotFound`
    const events = [
      pulling('n1', 0),
      seen('n1', 'Failed', failure, 500),
      pulled('n1', '1s', 12_000),
      seen('n2', 'Failed', failure, 700),
    ]
    const { pulls } = pullsOf(image, ['n1', 'n2'], events)
    expect(pulls).toEqual([
      { node: 'n1', startedMs: startMs + 20, durationMs: 12_000, error: failure },
      { node: 'n2', startedMs: startMs + 720, durationMs: 0, error: failure },
    ])
  })

  it('tell of pods that were taken away', () => {
    const evicted = seen('n1', 'Evicted', 'The node was low on resource: memory.', 100)
    expect(pullsOf(image, ['n1'], [pulled('n1', '1s', 50), evicted]).problems).toEqual([
      'pod-n1: Evicted: The node was low on resource: memory.',
    ])
  })

  it('that come late or were missed are good to the second', () => {
    const events = [
      pulled('n1', '1s', 2_000),
      pulled('n2', '1s', 3_400, { arrivedMs: 9_000 }),
      pulled('n3', '1s', 3_400, { arrivedMs: 20_000, isNew: false }),
    ]
    const { pulls, remarks } = pullsOf(image, ['n1', 'n2', 'n3'], events)
    expect(pulls.map(({ startedMs }) => startedMs - startMs)).toEqual([1_020, 2_020, 2_020])
    expect(remarks).toEqual([
      'an event of n2 came late: when its pull started is known to the second only',
      'an event of n3 came late: when its pull started is known to the second only',
    ])
  })

  it('tell how far the clocks of nodes are off', () => {
    const events = [
      pulled('n1', '1s', 2_000, { nodeClockMs: 7_000 }),
      pulled('n2', '1s', 2_000, { nodeClockMs: -3_000 }),
      pulled('n3', '1s', 2_000, { nodeClockMs: 1_000 }),
    ]
    expect(pullsOf(image, ['n1', 'n2', 'n3'], events).remarks).toEqual([
      "the clock of n1 is about 7 s ahead of the API server's",
      "the clock of n2 is about 3 s behind the API server's",
    ])
  })
})
