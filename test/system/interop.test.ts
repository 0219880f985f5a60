/**
 * One swarm of our daemons and Spegel's nodes. For the latter stands a program in Go (test/interop/go-peer) over the
 * libraries and settings of Spegel, since Spegel's own Go module cannot be installed here.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { eventually } from '../support/daemons.ts'
import type { Bootstrap, InteropNode, Item } from '../support/interop-node.ts'
import { InteropWorld, swarmDomain } from '../support/interop-world.ts'

const findMs = 30_000

let world: InteropWorld

beforeAll(async () => {
  world = await InteropWorld.create({ go: 2, ours: 3 })
})
afterAll(() => world.close())
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(await world.lastWords())
})

/** Until everything that the holder has comes whole and right out of the asker's mirror. */
async function finds(asker: InteropNode, holder: InteropNode): Promise<void> {
  for (const item of holder.items) await eventually(() => comes(asker, item), findMs)
}

async function comes(asker: InteropNode, { path, digest, bytes }: Item): Promise<void> {
  const { status, headers, body } = await asker.ask(path)
  expect(status, `${asker.host.name}: ${path}`).toBe(200)
  expect(headers['docker-content-digest']).toBe(digest)
  expect(body.equals(bytes)).toBe(true)
}

async function findEachOther(nodes: readonly InteropNode[]): Promise<void> {
  for (const asker of nodes) {
    for (const holder of nodes) if (holder !== asker) await finds(asker, holder)
  }
}

describe('a first peer', () => {
  afterEach(() => world.stop())

  const withId = async (node: InteropNode) => {
    const { ID } = await node.identity()
    return `/ip4/${node.host.ip}/tcp/5001/p2p/${ID}`
  }
  const bootstraps: [string, (first: InteropNode) => Bootstrap | Promise<Bootstrap>][] = [
    ['a name with the addresses of all', () => ({ kind: 'dns', source: swarmDomain })],
    ['a URL', (first) => ({ kind: 'http', source: first.identityUrl })],
    ['an address with an id', async (first) => ({ kind: 'static', source: await withId(first) })],
  ]

  it.each([
    ...bootstraps,
    ['an address', (first: InteropNode): Bootstrap => ({ kind: 'static', source: `${first.host.ip}:5001` })] as const,
  ])('written in Go is found by ours by %s', async (_name, bootstrap) => {
    const { go, ours } = pair()
    await go.start({ kind: 'alone' })
    await ours.start(await bootstrap(go))
    await findEachOther([go, ours])
  })

  it('written in Go is found by ours by a URL that answers an array', async () => {
    const { go, ours } = pair()
    go.identityArray = true
    await go.start({ kind: 'alone' })
    go.identityArray = false
    await ours.start({ kind: 'http', source: go.identityUrl })
    await findEachOther([go, ours])
  })

  it.each(bootstraps)('of ours is found by one written in Go by %s', async (_name, bootstrap) => {
    const { go, ours } = pair()
    await ours.start({ kind: 'alone' })
    await go.start(await bootstrap(ours))
    await findEachOther([go, ours])
  })
})

function pair() {
  const [[go], [ours]] = [world.go, world.ours]
  if (go === undefined || ours === undefined) throw new Error('no pair')
  return { go, ours }
}
