/** All that may happen to a flight of two and three nodes, one event after the other; and long random sequences of it. */
import { describe, expect, it } from 'vitest'
import { type Event, FlightModel, type Roles } from '../../support/flight-model.ts'
import { seededRandom } from '../../support/random.ts'
import { printedSeed } from '../../support/seed.ts'

const MiB = 2 ** 20
/** Leaders that died one after the other: a further lease after 10, 20 and 40 s; back-off, silence, failed sources. */
const finishMs = 150_000

/** Node 0 acts first, so it is one that is to yield. */
const oneLeads: Roles = (node) => (node === 1 ? { kind: 'leads', forMs: 100 } : { kind: 'yields' })
const nobodyLeads: Roles = () => ({ kind: 'yields' })

function replay(nodeCount: number, size: number, events: readonly Event[], roles?: Roles): FlightModel {
  const model = new FlightModel(nodeCount, size, roles)
  for (const event of events) model.play(event)
  return model
}

function said(events: readonly Event[]): string {
  return events.map(({ verb, node }) => (node === -1 ? verb : `${node} ${verb}`)).join(', ')
}

/** Depth first; a flight cannot be copied, so each sequence is played from its begin. */
function tryAll(
  nodeCount: number,
  size: number,
  depth: number,
  roles?: Roles,
): { sequences: number; slowestMs: number } {
  let [sequences, slowestMs] = [0, 0]
  const goOn = (events: readonly Event[]) => {
    sequences += 1
    try {
      const model = replay(nodeCount, size, events, roles)
      const possible = events.length < depth ? model.possible() : []
      model.checkNext()
      slowestMs = Math.max(slowestMs, replay(nodeCount, size, events, roles).finish(finishMs))
      for (const event of possible) {
        // Nodes are alike: the first that acts is node 0.
        if (event.node <= Math.max(-1, ...events.map(({ node }) => node)) + 1) goOn([...events, event])
      }
    } catch (error) {
      throw error instanceof Sequence ? error : new Sequence(`${said(events)}: ${String(error)}`)
    }
  }
  goOn([])
  return { sequences, slowestMs }
}

class Sequence extends Error {}

describe('every sequence of events', { timeout: 60_000 }, () => {
  it.each([
    { nodeCount: 2, depth: 6, size: 30 * MiB, leases: 'by redirect' },
    { nodeCount: 3, depth: 6, size: 30 * MiB, leases: 'by redirect' },
    { nodeCount: 3, depth: 5, size: 3 * MiB, leases: 'by redirect' },
    { nodeCount: 3, depth: 5, size: 3_000, leases: 'by redirect' },
    { nodeCount: 3, depth: 5, size: 30 * MiB, leases: 'by 404, one leads the image', roles: oneLeads },
    { nodeCount: 3, depth: 5, size: 3_000, leases: 'by 404, nobody who leads it asks', roles: nobodyLeads },
  ])(
    'of $nodeCount nodes up to $depth events keeps the rules, and all end ($size bytes, leases $leases)',
    (given) => {
      const startMs = performance.now()
      const { sequences, slowestMs } = tryAll(given.nodeCount, given.size, given.depth, given.roles)
      const tookMs = Math.round(performance.now() - startMs)
      process.stderr.write(
        `${given.nodeCount} nodes: ${sequences} sequences in ${tookMs} ms, slowest ${slowestMs} ms\n`,
      )
      expect(sequences).toBeGreaterThan(1_000)
    },
  )

  it('of up to 8 nodes, long and at random, keeps the rules, and all end', () => {
    const seed = printedSeed('flights')
    for (let run = 0; run < 1_500; run++) {
      const random = seededRandom(seed + run)
      const nodeCount = 2 + Math.floor(random.next() * 7)
      const size = [3_000, 3 * MiB, 30 * MiB][Math.floor(random.next() * 3)] ?? 0
      const roles = [undefined, oneLeads, nobodyLeads][Math.floor(random.next() * 3)]
      const model = new FlightModel(nodeCount, size, roles)
      const events: Event[] = []
      try {
        for (let step = 0; step < 60; step++) {
          const possible = model.possible().filter(({ verb }) => verb !== 'die' || random.next() < 0.1)
          const event = possible[Math.floor(random.next() * possible.length)]
          if (event === undefined) break
          events.push(event)
          model.play(event)
        }
        model.finish(finishMs)
        replay(nodeCount, size, events, roles).checkNext()
      } catch (error) {
        throw new Error(`run ${run} of seed ${seed}, ${nodeCount} nodes: ${said(events)}`, { cause: error })
      }
    }
  })
})
