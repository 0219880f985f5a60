import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import { type Asker, httpAsker } from '../../../../src/benchmark/network/askers.ts'
import { closedLoop } from '../../../../src/benchmark/network/closed-loop.ts'
import type { Latencies } from '../../../../src/benchmark/network/latencies.ts'
import { openLoop } from '../../../../src/benchmark/network/open-loop.ts'

const ms = (latencies: Latencies, percentile: number) => (latencies.percentileNs(percentile) ?? Number.NaN) / 1e6
const never = new Promise<never>(() => undefined)
const cleanUps: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

/** A real server in a thread of its own, which stops for 100 ms in each second. */
const stallingServer = `
const { createServer } = require('node:http')
const { parentPort } = require('node:worker_threads')
const body = Buffer.alloc(350)
const cell = new Int32Array(new SharedArrayBuffer(4))
const server = createServer((request, response) => response.writeHead(200, { 'content-length': 350 }).end(body))
server.listen(0, '127.0.0.1', () => {
  setInterval(() => Atomics.wait(cell, 0, 0, 100), 1000)
  parentPort.postMessage(server.address().port)
})`

async function askersOfStallingServer(count: number): Promise<Asker[]> {
  const worker = new Worker(stallingServer, { eval: true })
  cleanUps.push(() => worker.terminate())
  const [port] = (await once(worker, 'message')) as [number]
  const open = httpAsker(350)
  const askers = await Promise.all(
    Array.from({ length: count }, () => open({ host: '127.0.0.1', port }, new AbortController().signal)),
  )
  for (const asker of askers) cleanUps.push(() => asker.close())
  return askers
}

/** Answers so much later, one after the other. */
function slowAsker(delayMs: number): Asker {
  return { ask: (answered) => void setTimeout(answered, delayMs), close: () => undefined, lost: never }
}

describe('a constant rate', () => {
  it('shows a server that stops for 100 ms in each second to all requests that were due meanwhile', async () => {
    const askers = await askersOfStallingServer(16)
    const { latencies, reached, unanswered } = await openLoop(askers, {
      perSecond: 1_000,
      durationMs: 6_000,
      patienceMs: 1_000,
    })
    expect({ reached, unanswered, count: latencies.count }).toEqual({ reached: true, unanswered: 0, count: 6_000 })
    // A tenth of the requests is due while it stops, evenly: the share that waits longer than t is (100 ms − t) ÷ 1 s.
    expect(ms(latencies, 50)).toBeLessThan(10)
    for (const [percentile, expected] of [
      [92, 20],
      [95, 50],
      [99, 90],
      [99.5, 95],
    ] as const) {
      expect(ms(latencies, percentile), `p${percentile}`).toBeGreaterThan(expected - 8)
      expect(ms(latencies, percentile), `p${percentile}`).toBeLessThan(expected + 12)
    }
    expect(latencies.maxNs / 1e6).toBeGreaterThan(95)
  })

  it('is not what one connection that waits for its answers sees: it leaves the waiting out', async () => {
    const askers = await askersOfStallingServer(1)
    const { latencies } = await closedLoop(askers, { warmUpMs: 0, durationMs: 3_000 })
    expect(ms(latencies, 99)).toBeLessThan(10)
    expect(latencies.maxNs / 1e6).toBeGreaterThan(90)
  })

  it('that cannot be reached is said not to be, and what was not answered counts with its wait', async () => {
    const { reached, unanswered, answeredPerSecond, latencies } = await openLoop([slowAsker(10)], {
      perSecond: 400,
      durationMs: 500,
      patienceMs: 200,
    })
    expect(reached).toBe(false)
    expect(answeredPerSecond).toBeLessThan(105)
    expect(unanswered).toBeGreaterThan(100)
    expect(latencies.count).toBe(200)
    expect(latencies.maxNs / 1e6).toBeGreaterThan(190)
    expect(ms(latencies, 50)).toBeGreaterThan(190)
  })

  it('that is reached late is not reached', async () => {
    const { reached, unanswered } = await openLoop([slowAsker(10)], {
      perSecond: 150,
      durationMs: 400,
      patienceMs: 5_000,
    })
    expect({ reached, unanswered }).toEqual({ reached: false, unanswered: 0 })
  })

  it('tells how late the generator was, whose part that is', async () => {
    const { lag, latencies } = await openLoop(
      Array.from({ length: 8 }, () => slowAsker(5)),
      { perSecond: 200, durationMs: 500, patienceMs: 500 },
    )
    expect(lag.count).toBe(100)
    expect(ms(lag, 50)).toBeLessThan(2)
    expect(ms(latencies, 50)).toBeGreaterThanOrEqual(4)
    // The generator's thread is held up: requests are late by it, and say so.
    const held = openLoop([slowAsker(1), slowAsker(1)], { perSecond: 100, durationMs: 500, patienceMs: 500 })
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
    const { lag: heldLag } = await held
    expect(heldLag.maxNs / 1e6).toBeGreaterThan(150)
  })

  it('ends with the error of a connection that is lost', async () => {
    const lost = Promise.reject(new Error('gone'))
    lost.catch(() => undefined)
    const asker: Asker = { ask: () => undefined, close: () => undefined, lost }
    await expect(openLoop([asker], { perSecond: 10, durationMs: 1_000, patienceMs: 100 })).rejects.toThrow('gone')
  })
})
