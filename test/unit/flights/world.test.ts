/**
 * Cold batches at random: nodes that want one blob at once, while nodes die, messages are lost and the upstream
 * stumbles. FLIGHT_SEED repeats one schedule, FLIGHT_SCHEDULES says how many.
 */
import { afterAll, describe, expect, it } from 'vitest'
import { flightAliveMs, flightQuietLeaderMs, flightSlotsMax } from '../../../src/limits.ts'
import { FlightWorld, type SimulatedNode, blobBytesMax, digest } from '../../support/flight-world.ts'
import { type Random, seededRandom } from '../../support/random.ts'

const given = process.env['FLIGHT_SEED']
const firstSeed = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given)
const schedules = given === undefined ? Number(process.env['FLIGHT_SCHEDULES'] ?? 150) : 1
process.stderr.write(`flights in a simulated world: FLIGHT_SEED=${firstSeed} and the ${schedules - 1} after it\n`)

/** After the last fault. */
const calmMs = 90_000
const faultsMs = 20_000

const totals = { schedules: 0, fetches: 0, messages: 0, failedPulls: 0, slowestMs: 0, simulatedMs: 0 }
const startedMs = performance.now()
afterAll(() => {
  const perSecond = Math.round(totals.schedules / ((performance.now() - startedMs) / 1000))
  process.stderr.write(`flights in a simulated world: ${JSON.stringify(totals)}, ${perSecond} schedules per second\n`)
})

/** Fetches upstream that each may cause: of a new leader, and of nodes that do not agree for a while who coordinates. */
const faultCosts = { kill: 3, leader: 3, restart: 3, unplug: 4, outage: 2, garbage: 2, lie: 2, beside: 1 }

function pick<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random.next() * items.length)] as T
}

describe('a cold batch', () => {
  it('without faults costs one fetch upstream, and all have the blob soon', async () => {
    for (const size of [300_000, 3 * 2 ** 20, blobBytesMax]) {
      const world = new FlightWorld(seededRandom(1), size, ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'])
      for (const node of world.nodes.values()) void node.pull()
      const isDone = () => [...world.nodes.values()].every(({ hasBlob }) => hasBlob)
      expect(await world.runUntil(isDone, 20_000)).toBe(true)
      expect({ fetches: world.upstreamFetches, wrongs: world.wrongs }).toEqual({ fetches: 1, wrongs: [] })
      world.close()
    }
  })

  it.each([
    { by404: false, awayMs: 16_000 },
    { by404: true, awayMs: 3_000 },
  ])(
    'loses no pull when upstream ends a body and refuses connections for long ($awayMs ms, leases by 404: $by404)',
    async ({ by404, awayMs }) => {
      const world = new FlightWorld(seededRandom(1), blobBytesMax, ['a', 'b', 'c'])
      world.leasesBy404 = by404
      Object.assign(world.upstream, { bytesPerMs: 4_000, cut: 1 })
      const nodes = [...world.nodes.values()]
      for (const node of nodes) void node.pull()
      expect(await world.runUntil(() => world.upstreamFetches === 1, 2_000)).toBe(true)
      Object.assign(world.upstream, { cut: 0, refusesUntilMs: Infinity })
      const leaderHas = () => Math.max(...nodes.map(({ downloads }) => downloads.latest?.haveBytes ?? 0))
      let lastBytes = -1
      for (let bytes = leaderHas(); bytes !== lastBytes; bytes = leaderHas()) {
        lastBytes = bytes
        await world.runUntil(() => false, 1_000)
      }
      expect(lastBytes).toBeGreaterThan(0)
      world.upstream.refusesUntilMs = world.clock.nowMs() + awayMs - 1_000
      expect(await world.runUntil(() => nodes.every(({ hasBlob }) => hasBlob), 40_000)).toBe(true)
      const failedPulls = nodes.reduce((sum, node) => sum + node.failedPulls, 0)
      expect({ failedPulls, wrongs: world.wrongs }).toEqual({ failedPulls: 0, wrongs: [] })
      // Who waits, while nothing moves for 10 s, may go upstream too.
      expect(world.upstreamFetches).toBeLessThanOrEqual(3)
      world.close()
    },
  )

  it.each(['killed', 'unplugged', 'started anew'] as const)(
    'does not wait long for a leader that is %s before it has a byte',
    async (how) => {
      const world = new FlightWorld(seededRandom(1), blobBytesMax, ['a', 'b', 'c', 'd'])
      // The coordinator lives: here it is not the leader.
      world.coordinatorsOf = () => ['d']
      world.upstream.firstByteMs = 8_000
      const nodes = [...world.nodes.values()]
      const [leader, ...others] = nodes
      if (leader === undefined) throw new Error('there is no node')
      void leader.pull()
      expect(await world.runUntil(() => world.upstreamFetches === 1, 2_000)).toBe(true)
      for (const node of others) void node.pull()
      await world.runUntil(() => false, 500)
      if (how === 'unplugged') leader.network = 'unplugged'
      else leader.kill()
      const restarted = how === 'started anew' ? world.start(leader.id) : undefined
      world.upstream.firstByteMs = 20
      const struckMs = world.clock.nowMs()
      expect(await world.runUntil(() => others.every(({ hasBlob }) => hasBlob), 15_000)).toBe(true)
      const fetchMs = blobBytesMax / world.upstream.bytesPerMs
      const foundMs = flightQuietLeaderMs + (how === 'unplugged' ? flightAliveMs : 0)
      expect(world.clock.nowMs() - struckMs).toBeLessThan(foundMs + fetchMs + 500)
      expect(restarted?.isDead ?? leader.isDead).toBe(how === 'killed')
      expect(world.upstreamFetches).toBe(2)
      expect(world.wrongs).toEqual([])
      world.close()
    },
  )

  it('loses one pull and not one after the other when upstream refuses connections from the start', async () => {
    const world = new FlightWorld(seededRandom(1), blobBytesMax, ['a', 'b', 'c', 'd', 'e', 'f'])
    world.upstream.refusesUntilMs = world.clock.nowMs() + 12_000
    const nodes = [...world.nodes.values()]
    for (const node of nodes) void node.pull()
    expect(await world.runUntil(() => nodes.every(({ hasBlob }) => hasBlob), 40_000)).toBe(true)
    const failedPulls = nodes.reduce((sum, node) => sum + node.failedPulls, 0)
    expect({ failedPulls, fetches: world.upstreamFetches, wrongs: world.wrongs }).toEqual({
      failedPulls: 1,
      fetches: 1,
      wrongs: [],
    })
    world.close()
  })

  it('without a coordinator is fed by a holder, however busy', async () => {
    const { world, nodes } = await oneHolderAmong(10)
    world.coordinatorsOf = () => []
    for (const node of nodes) void node.pull()
    expect(await world.runUntil(() => nodes.every(({ hasBlob }) => hasBlob), 20_000)).toBe(true)
    expect({ fetches: world.upstreamFetches, wrongs: world.wrongs }).toEqual({ fetches: 1, wrongs: [] })
    world.close()
  })

  it('of many who find one holder is fed by a few of them, not by the holder alone', async () => {
    const { world, nodes } = await oneHolderAmong(20)
    const [holder] = nodes
    for (const node of nodes) void node.pull()
    let mostFeeds = 0
    const isDone = () => {
      mostFeeds = Math.max(mostFeeds, holder?.feeds ?? 0)
      return nodes.every(({ hasBlob }) => hasBlob)
    }
    expect(await world.runUntil(isDone, 20_000)).toBe(true)
    expect({ fetches: world.upstreamFetches, wrongs: world.wrongs }).toEqual({ fetches: 1, wrongs: [] })
    // One that found it idle, those that asked in the same moment, and as many as the coordinator gives it.
    expect(mostFeeds).toBeGreaterThan(0)
    expect(mostFeeds).toBeLessThanOrEqual(1 + flightSlotsMax)
    world.close()
  })

  it('is not fetched again where a Service had another node ask, whose containerd kept what it got', async () => {
    const world = new FlightWorld(seededRandom(1), blobBytesMax, ['a', 'b'])
    world.knowsHolders = true
    const [a, b] = [...world.nodes.values()]
    void a?.pull()
    expect(await world.runUntil(() => a?.hasBlob === true, 20_000)).toBe(true)
    let isServed = false
    void b?.serveOther().then(() => (isServed = true))
    expect(await world.runUntil(() => isServed, 20_000)).toBe(true)
    void b?.pull()
    expect(await world.runUntil(() => b?.hasBlob === true, 20_000)).toBe(true)
    expect({ fetches: world.upstreamFetches, wrongs: world.wrongs }).toEqual({ fetches: 1, wrongs: [] })
    world.close()
  })

  it.each([100, 250, 10_000])(
    'by 404 is led by who leads the image, if it asks within 300 ms: after %s',
    async (afterMs) => {
      const ids = ['a', 'b', 'c', 'd', 'e']
      const world = new FlightWorld(seededRandom(1), blobBytesMax, ids)
      await world.leadImageBy404('e')
      const beginMs = world.clock.nowMs()
      for (const id of ids) world.clock.after(id === 'e' ? afterMs : 1, () => void world.nodes.get(id)?.pull())
      const isDone = () => ids.every((id) => world.nodes.get(id)?.hasBlob)
      expect(await world.runUntil(isDone, 20_000)).toBe(true)
      const fetches = world.log.filter((line) => line.endsWith('fetches upstream'))
      const [, ms, id] = /^(\d+) ms: (.)/.exec(fetches[0] ?? '') ?? []
      expect({ fetches: fetches.length, byLeader: id === 'e', wrongs: world.wrongs }).toEqual({
        fetches: 1,
        byLeader: afterMs < 300,
        wrongs: [],
      })
      expect(Number(ms) - beginMs).toBeLessThan(400)
      world.close()
    },
  )

  it('at random keeps bytes right, upstream spared, and ends', { timeout: 120_000 }, async () => {
    for (let number = 0; number < schedules; number++) await playSchedule(firstSeed + number)
  })
})

/** The first node has the blob, which all know. */
async function oneHolderAmong(count: number): Promise<{ world: FlightWorld; nodes: SimulatedNode[] }> {
  const ids = Array.from({ length: count }, (_value, index) => String.fromCharCode(97 + index))
  const world = new FlightWorld(seededRandom(1), blobBytesMax, ids)
  world.knowsHolders = true
  const nodes = [...world.nodes.values()]
  void nodes[0]?.pull()
  expect(await world.runUntil(() => nodes[0]?.hasBlob === true, 20_000)).toBe(true)
  return { world, nodes }
}

async function playSchedule(seed: number): Promise<void> {
  const random = seededRandom(seed)
  const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'].slice(0, 3 + Math.floor(random.next() * 6))
  const size = pick(random, [300_000, 5 * 2 ** 20, blobBytesMax, blobBytesMax])
  const world = new FlightWorld(random, size, ids)
  const { clock, upstream } = world
  /** Each may cost fetches upstream; nothing else may. */
  let excuses = 0
  const say = (what: string, costs: number) => {
    world.note(what)
    excuses += costs
  }
  world.knowsHolders = random.next() < 0.5
  if (random.next() < 0.3) {
    const leader = pick(random, ids)
    say(`leases by 404; the image is led by ${leader}`, 0)
    await world.leadImageBy404(leader)
  }
  if (random.next() < 0.3) {
    say('messages are lost, late and doubled', 2 * ids.length)
    world.faults = { lost: 0.03, late: 0.03, doubled: 0.1 }
  }
  if (random.next() < 0.2) {
    say('two views of who coordinates', 2)
    const views = [ids.slice(0, 3), ids.toReversed().slice(0, 3)]
    const sides = new Map(ids.map((id) => [id, pick(random, views)]))
    world.coordinatorsOf = (id) => sides.get(id) ?? []
  }
  if (random.next() < 0.3) {
    upstream.firstByteMs = pick(random, [100, 3_000, 15_000])
    // A small blob is waited for one second, since a further copy of it is cheap.
    const isLate = upstream.firstByteMs > (size < 2 ** 20 ? 900 : 14_000)
    say(`upstream: first byte after ${upstream.firstByteMs} ms`, isLate ? ids.length : 0)
  }
  if (random.next() < 0.4) upstream.bytesPerMs = pick(random, [1_000, 2_000, 50_000])
  if (random.next() < 0.2) {
    say('upstream: cuts', 4 * ids.length)
    upstream.cut = 0.5
  }
  const pull = (id: string, delayMs: number) => {
    clock.after(delayMs, () => void world.nodes.get(id)?.pull())
  }
  for (const id of ids) pull(id, random.next() < 0.7 ? random.next() * 50 : random.next() * 5_000)

  for (let count = Math.floor(random.next() * 5); count > 0; count--) {
    const [id, atMs] = [pick(random, ids), random.next() * (faultsMs / 4)]
    const fault = pick(random, Object.keys(faultCosts) as (keyof typeof faultCosts)[])
    clock.after(atMs, () => {
      const leader = ids.find((other) => (world.nodes.get(other)?.downloads.latest?.haveBytes ?? 0) > 0) ?? id
      const name = fault === 'leader' ? leader : id
      const node = world.nodes.get(name)
      if (node === undefined || node.isDead) return
      // A small blob is waited for one second: whoever waited for this node goes then.
      say(`${fault} ${name}`, size < 2 ** 20 ? Math.max(ids.length, faultCosts[fault]) : faultCosts[fault])
      if (fault === 'kill' || fault === 'leader') {
        node.kill()
      } else if (fault === 'unplug') {
        node.network = 'unplugged'
        clock.after(random.next() * faultsMs * 0.7, () => {
          if (!node.isDead) node.network = 'up'
        })
      } else if (fault === 'restart') {
        world.start(name)
        pull(name, 500)
      } else if (fault === 'outage') {
        upstream.refusesUntilMs = clock.nowMs() + random.next() * 8_000
      } else if (fault === 'garbage') {
        node.collectGarbage()
      } else if (fault === 'beside') {
        void node.askBeside()
      } else {
        for (const other of world.coordinatorsOf(name)) {
          const query = `node=liar&at=10.9.9.9&have=${size}&size=${size}`
          void world.nodes
            .get(other)
            ?.flights.answer(
              `/spegel-ts/flights/v1/${digest}/complete?${query}`,
              '10.9.9.9',
              new AbortController().signal,
            )
        }
      }
    })
  }
  await world.runUntil(() => false, faultsMs)
  world.faults = { lost: 0, late: 0, doubled: 0 }
  upstream.cut = 0
  upstream.firstByteMs = Math.min(upstream.firstByteMs, 3_000)
  upstream.refusesUntilMs = 0
  for (const node of world.nodes.values()) if (node.network === 'unplugged') node.network = 'up'
  const calmSinceMs = clock.nowMs()
  const wanting = () =>
    [...world.nodes.values()].filter((node) => !node.isDead && node.downloads.latest !== undefined)
  const isDone = await world.runUntil(() => wanting().every(({ hasBlob }) => hasBlob), calmMs)
  const pending = wanting()
    .filter(({ hasBlob }) => !hasBlob)
    .map(({ id, downloads }) => `${id} has ${downloads.latest?.haveBytes}`)
  const nodes = [...world.nodes.values()]
  const seconds = clock.nowMs() / 1000
  world.close()

  const story = `FLIGHT_SEED=${seed}: ${ids.length} nodes, ${size} bytes\n${world.log.join('\n')}\n`
  expect({ wrongs: world.wrongs, isDone, pending }, story).toEqual({ wrongs: [], isDone: true, pending: [] })
  expect(world.upstreamFetches, `${story}fetches upstream`).toBeLessThanOrEqual(1 + excuses)
  const mostMessages = Math.max(...nodes.map(({ messages }) => messages))
  expect(mostMessages, `${story}messages of one node`).toBeLessThanOrEqual(60 + 5 * seconds)
  totals.schedules += 1
  totals.fetches += world.upstreamFetches
  totals.messages += world.messages
  totals.failedPulls += nodes.reduce((sum, { failedPulls }) => sum + failedPulls, 0)
  totals.slowestMs = Math.max(totals.slowestMs, Math.round(clock.nowMs() - calmSinceMs))
  totals.simulatedMs += Math.round(clock.nowMs())
}
