/** The demo's story: what happens, what a user should see, and whether it was so. */
import type { PullResult, World } from './world.ts'

export interface Scene extends PullResult {
  node: number
  event: string
  expected: string
  asExpected: boolean
}

/** Plays the scenes in order; calls back after each. Rejects when a pull fails. */
export async function play(world: World, onScene: (scene: Scene) => void): Promise<Scene[]> {
  const scenes: Scene[] = []
  const scene = async (
    node: number,
    event: string,
    expected: string,
    isAsExpected: (result: PullResult) => boolean,
    midway?: () => Promise<void>,
    pulled: Promise<PullResult> = world.pull(node, midway),
  ) => {
    const result = await pulled
    const played = { node, event, expected, asExpected: isAsExpected(result), ...result }
    scenes.push(played)
    onScene(played)
  }
  const allFromPeers = ({ upstreamBytes, peerBytes }: PullResult) =>
    upstreamBytes === 0 && peerBytes >= world.imageBytes
  const allFromUpstream = ({ upstreamBytes, peerBytes }: PullResult) =>
    upstreamBytes >= world.imageBytes && peerBytes === 0

  // Not each node its own; on a slow machine one blob may be fetched twice.
  const isOneCopy = ({ upstreamBytes, peerBytes }: PullResult) =>
    upstreamBytes >= world.imageBytes && upstreamBytes < 1.5 * world.imageBytes && peerBytes > 1.5 * world.imageBytes

  for (const node of [1, 2, 3]) await world.startNode(node)
  if (world.pullTogether === undefined) {
    await scene(1, 'nobody has the image', 'all from upstream', allFromUpstream)
    await scene(2, 'node 1 has it', 'nothing from upstream', allFromPeers)
    await scene(3, 'nodes 1 and 2 have it', 'nothing from upstream', allFromPeers)
  } else {
    const together = world.pullTogether([1, 2, 3])
    const event = 'nobody has the image, 1 to 3 pull at once'
    await scene(1, event, 'one copy from upstream', isOneCopy, undefined, together)
  }
  await world.stopUpstream()
  await world.startNode(4)
  await scene(4, 'upstream is stopped, node 4 joins', 'still gets the image', allFromPeers)
  await world.startNode(5)
  let killed = 0
  await scene(
    5,
    'the serving peer is killed in mid-blob',
    'the pull goes on at another',
    (result) => killed > 0 && result.resumes > 0 && allFromPeers(result),
    async () => {
      for (const node of (await world.servingNodes()).slice(0, 1)) {
        killed += 1
        await world.killDaemon(node)
      }
    },
  )
  return scenes
}
