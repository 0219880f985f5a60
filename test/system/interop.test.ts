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

/** Until what the holder has comes whole and right out of the asker's mirror. */
async function finds(asker: InteropNode, holder: InteropNode, items: readonly Item[] = holder.items): Promise<void> {
  for (const item of items) await eventually(() => comes(asker, item), findMs)
}

async function comes(asker: InteropNode, { path, digest, bytes }: Item): Promise<void> {
  const { status, headers, body } = await asker.ask(path)
  expect(status, `${asker.host.name}: ${path}`).toBe(200)
  expect(headers['docker-content-digest']).toBe(digest)
  expect(body.equals(bytes)).toBe(true)
}

async function findEachOther(nodes: readonly InteropNode[]): Promise<void> {
  for (const [index, node] of nodes.entries()) await findsAndIsFound(node, nodes.slice(index + 1))
}

async function findsAndIsFound(node: InteropNode, others: readonly InteropNode[]): Promise<void> {
  for (const other of others) {
    await finds(node, other)
    await finds(other, node)
  }
}

/** Until the holder has announced all its keys to the other node, which then needs to ask nobody. */
async function announced(holder: InteropNode, to: InteropNode): Promise<void> {
  await eventually(async () => expect(await to.recordsOf(holder)).toBe(holder.keys.size), findMs)
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
  const withoutId = (first: InteropNode): Bootstrap => ({ kind: 'static', source: `${first.host.ip}:5001` })

  it.each([...bootstraps, ['an address', withoutId] as const])(
    'written in Go is found by ours by %s',
    async (_name, bootstrap) => {
      const { go, ours } = pair()
      await go.start({ kind: 'alone' })
      await ours.start(await bootstrap(go))
      await findEachOther([go, ours])
    },
  )

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
    await Promise.all([announced(go, ours), announced(ours, go)])
  })
})

describe('a swarm of two nodes written in Go and three of ours', () => {
  afterAll(() => world.stop())
  beforeAll(async () => {
    const [[go1, go2], [ours1, ours2, ours3]] = [world.go, world.ours]
    await ours1?.start({ kind: 'alone' })
    await go1?.start({ kind: 'http', source: ours1?.identityUrl ?? '' })
    await ours2?.start({ kind: 'http', source: go1?.identityUrl ?? '' })
    await go2?.start({ kind: 'http', source: ours2?.identityUrl ?? '' })
    await ours3?.start({ kind: 'http', source: go2?.identityUrl ?? '' })
  })

  it('has everything for everybody', async () => {
    await findEachOther(world.nodes)
  })

  it('knows each node by one address', async () => {
    for (const node of world.nodes) {
      const address = `/ip4/${node.host.ip}/tcp/5001`
      expect((await node.identity()).Addrs).toEqual([address])
      for (const go of world.go) if (go !== node) expect(await go.addressesOf(node)).toEqual([address])
    }
  })

  it('passes on parts of a blob, and its head', async () => {
    const { go, ours } = pair()
    for (const [asker, holder] of [
      [go, ours],
      [ours, go],
    ] as const) {
      const { path, bytes, digest } = holder.items.at(-1) ?? expect.unreachable()
      const size = bytes.length
      for (const [range, first, last] of [
        ['0-0', 0, 0],
        ['100000-299999', 100_000, 299_999],
        [`${size - 10}-`, size - 10, size - 1],
        ['-20', size - 20, size - 1],
      ] as const) {
        const { status, headers, body } = await asker.ask(path, { headers: { range: `bytes=${range}` } })
        expect(status, range).toBe(206)
        expect(headers['content-range']).toBe(`bytes ${first}-${last}/${size}`)
        expect(body.equals(bytes.subarray(first, last + 1)), range).toBe(true)
      }
      const { status, headers, body } = await asker.ask(path, { method: 'HEAD' })
      expect([status, headers['content-length'], headers['docker-content-digest']]).toEqual([
        200,
        String(size),
        digest,
      ])
      expect(body.length).toBe(0)
    }
  })

  it('asks peers as peers, who do not ask on, and has nothing that nobody has', async () => {
    const { go, ours } = pair()
    const byOurs = (await go.questions()).filter(({ by }) => by === ours.host.ip)
    expect(new Set(byOurs.map(({ mirrored }) => mirrored))).toEqual(new Set(['true']))
    for (const [asker, holder] of [
      [go, ours],
      [ours, go],
    ] as const) {
      for (const { path } of holder.items) {
        const { status } = await asker.ask(path, { headers: { 'X-Spegel-Mirrored': 'true' } })
        expect(status, path).toBe(404)
      }
      for (const path of ['nowhere/manifests/v1', `nowhere/blobs/sha256:${'0'.repeat(64)}`]) {
        expect((await asker.ask(path)).status, path).toBe(404)
      }
    }
  })

  it('hears of what comes later', async () => {
    for (const holder of Object.values(pair())) {
      const before = holder.items.length
      await holder.addImage(`later-${holder.host.name}`)
      const others = world.nodes.filter((node) => node !== holder)
      for (const asker of others) await finds(asker, holder, holder.items.slice(before))
    }
  })

  it.each([
    ['of ours', 'SIGTERM', () => pair().ours, () => pair().go],
    ['of ours', 'SIGKILL', () => pair().ours, () => pair().go],
    ['written in Go', 'SIGTERM', () => pair().go, () => pair().ours],
    ['written in Go', 'SIGKILL', () => pair().go, () => pair().ours],
  ] as const)('takes a node %s back after %s, with what it got meanwhile', async (_name, signal, node, other) => {
    const { ID } = await node().identity()
    const others = world.nodes.filter((candidate) => candidate !== node())
    const items = [...node().items]
    await node().stop(signal)
    for (const { path } of items) {
      for (const asker of others) expect((await asker.ask(path)).status, asker.host.name).toBe(404)
    }
    await node().addImage(`${node().host.name}-${signal.toLowerCase()}`)
    await node().start({ kind: 'http', source: other().identityUrl })
    expect((await node().identity()).ID).toBe(ID)
    await findsAndIsFound(node(), others)
  })
})

describe('hundreds of keys', () => {
  afterAll(() => world.stop())

  it('are announced both ways', async () => {
    const { go, ours } = pair()
    await Promise.all([go.addBlobs(500), ours.addBlobs(500)])
    await ours.start({ kind: 'alone' })
    await go.start({ kind: 'http', source: ours.identityUrl })
    await Promise.all([announced(go, ours), announced(ours, go)])
  })

  it('are found although nobody remembers that they were announced', async () => {
    const { go, ours } = pair()
    for (const node of world.nodes) {
      if (!node.running) await node.start({ kind: 'http', source: go.identityUrl })
    }
    // The only one that was told; Spegel's nodes tell those that come later at their next round, in 15 minutes.
    await ours.stop()
    await ours.start({ kind: 'http', source: go.identityUrl })
    for (const key of [...go.keys].slice(-100)) {
      await eventually(async () => {
        expect((await ours.ask(`any/blobs/${key}`, { method: 'HEAD' })).status, key).toBe(200)
      }, findMs)
    }
  })
})

it('gives our daemons nothing to complain of', async () => {
  expect(await world.complaints()).toEqual([])
})

function pair() {
  const [[go], [ours]] = [world.go, world.ours]
  if (go === undefined || ours === undefined) throw new Error('no pair')
  return { go, ours }
}
