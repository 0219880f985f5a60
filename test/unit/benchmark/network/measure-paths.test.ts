import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { type Agent, startAgent } from '../../../../src/benchmark/network/agent.ts'
import { checkAgent } from '../../../../src/benchmark/network/agents.ts'
import { type Path, measurePaths, turnsOf } from '../../../../src/benchmark/network/measure-paths.ts'
import { type Measurement, allMeasurements } from '../../../../src/benchmark/network/measurements.ts'
import { parsePaths } from '../../../../src/benchmark/network/run.ts'
import { type NetworkTurn, networkResultSchema } from '../../../../src/benchmark/result/network-schema.ts'

const agents: Agent[] = []
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent.close()
})
async function pathTo(name: string): Promise<Path> {
  const agent = await startAgent({ host: '127.0.0.1', port: 0 }, 'test')
  agents.push(agent)
  return { name, address: agent.address }
}
const never = new AbortController().signal
const settings = { durationMs: 100, connections: 4, random: Math.random }

describe('turns', () => {
  const paths = ['a', 'b', 'c'].map((name) => ({ name, address: { host: '127.0.0.1', port: 1 } }))

  it('give each path each place: what is first in one round is last in the next', () => {
    const turns = turnsOf(paths, allMeasurements, 2)
    expect(turns).toHaveLength(2 * 3 * allMeasurements.length)
    for (const measurement of allMeasurements) {
      const orders = [1, 2].map((round) =>
        turns
          .filter((turn) => turn.measurement === measurement && turn.round === round)
          .map(({ path, position }) => `${position}${path.name}`),
      )
      expect(new Set(orders.map((order) => order.join(' ')))).toEqual(new Set(['1a 2b 3c', '1c 2b 3a']))
    }
    // Within a round too, so that none is always the first after the others' load.
    const first = turns.filter(({ round, position }) => round === 1 && position === 1).map(({ path }) => path.name)
    expect(new Set(first)).toEqual(new Set(['a', 'c']))
  })

  it('measure one thing on all paths, one right after the other', () => {
    const kinds = turnsOf(paths, allMeasurements, 1).map(({ measurement }) => measurement)
    expect(kinds).toEqual(allMeasurements.flatMap((measurement) => [measurement, measurement, measurement]))
  })
})

describe('paths', () => {
  const measure = async (paths: readonly Path[], measurements: readonly Measurement[], signal = never) => {
    const told: NetworkTurn[] = []
    const turns = await measurePaths({
      paths,
      measurements,
      rounds: 1,
      settings,
      now: () => new Date(),
      onTurn: (turn) => void told.push(turn),
      signal,
    })
    expect(told).toEqual(turns)
    return turns
  }

  it('are measured in all ways, and what comes of it fits the schema', async () => {
    const paths = [await pathTo('a'), await pathTo('b')]
    const measurements = allMeasurements.filter(
      (measurement) => measurement.kind !== 'http-rate' || measurement.loadPercent === 30,
    )
    const turns = await measure(paths, measurements)
    expect(turns.filter(({ kind }) => kind === 'failed')).toEqual([])
    expect(networkResultSchema.shape.turns.parse(turns)).toEqual(turns)
    const ofSmallBodies = turns.filter((turn) => 'bodyBytes' in turn && turn.bodyBytes === 350)
    const maxima = ofSmallBodies.flatMap((turn) => (turn.kind === 'http-maximum' ? [turn.perSecond] : []))
    const wanted = ofSmallBodies.flatMap((turn) => (turn.kind === 'http-rate' ? [turn.wantedPerSecond] : []))
    expect([maxima.length, wanted.length]).toEqual([2, 2])
    // The same arrivals for both, of what the slower one can.
    for (const rate of wanted) expect(rate).toBeCloseTo(Math.min(...maxima) * 0.3, 6)
    for (const turn of turns) {
      if (turn.kind === 'throughput') expect(turn.bytesPerSecond).toBeGreaterThan(1e6)
      if (turn.kind === 'blob') expect(turn).toMatchObject({ bytes: 100 * 1024 ** 2 })
      if ('cpu' in turn) expect(turn.cpu.client).toBeGreaterThan(0)
    }
  })

  it('that break leave turns that failed, and the others go on', async () => {
    const [good, bad] = [await pathTo('good'), await pathTo('bad')]
    await agents.pop()?.close()
    const turns = await measure(
      [good, bad],
      [
        { kind: 'ping-pong', protocol: 'TCP' },
        { kind: 'throughput', streams: 2 },
      ],
    )
    expect(turns.map(({ kind, path }) => `${path} ${kind}`)).toEqual([
      'good ping-pong',
      'bad failed',
      'bad failed',
      'good throughput',
    ])
    expect(turns[1]).toMatchObject({ measurement: 'TCP ping-pong', error: expect.stringContaining('ECONNREFUSED') })
  })

  it('without a maximum have no rate to be measured at', async () => {
    const turns = await measure([await pathTo('a')], [{ kind: 'http-rate', bodyBytes: 350, loadPercent: 10 }])
    expect(turns).toMatchObject([{ kind: 'failed', error: 'its maximum could not be measured' }])
  })

  it('are left when it is broken off', async () => {
    const stop = new AbortController()
    const path = await pathTo('a')
    const measuring = measure([path], [{ kind: 'throughput', streams: 1 }], stop.signal)
    stop.abort(new Error('enough'))
    await expect(measuring).rejects.toThrow('enough')
  })
})

describe('--path', () => {
  it.each([
    ['a=10.0.0.7', { host: '10.0.0.7', port: 5010 }],
    ['a=10.0.0.7:80', { host: '10.0.0.7', port: 80 }],
    ['a=fd00::7', { host: 'fd00::7', port: 5010 }],
    ['a=[fd00::7]:80', { host: 'fd00::7', port: 80 }],
    ['a=localhost:80', { host: expect.stringMatching(/^(127\.0\.0\.1|::1)$/), port: 80 }],
  ])('%s is an address', async (text, address) => {
    expect(await parsePaths([text], '--path', 5010)).toEqual([{ name: 'a', address }])
  })

  it.each([
    [[], '--path is needed: write such as --path host='],
    [['10.0.0.7'], '"10.0.0.7" is not NAME=ADDRESS'],
    [['a=10.0.0.7:x'], '"10.0.0.7:x" is not an address'],
    [['a=10.0.0.7:0'], 'names no host or no port'],
    [['a=:80'], 'names no host or no port'],
    [['a=10.0.0.7', 'a=10.0.0.8'], 'two are called "a"'],
    [['a=nobody.invalid'], 'a: cannot find nobody.invalid'],
  ])('%j is refused', async (texts, message) => {
    await expect(parsePaths(texts, '--path', 5010)).rejects.toThrow(message)
  })

  it('to where no agent is, or another program, is refused', async () => {
    const nobody = await pathTo('a')
    await agents.pop()?.close()
    await expect(checkAgent('a', nobody.address, 0, never)).rejects.toThrow(
      /^path a: no agent at 127\.0\.0\.1:\d+ \(.*ECONNREFUSED.*\): start "spegel-ts benchmark network serve" there$/,
    )
    for (const [body, message] of [
      ['<html>', 'not JSON'],
      ['{"protocol":"spegel-ts-network/2"}', 'both ends must be of one version'],
    ] as const) {
      const server = createServer((_request, response) => response.end(body)).listen(0, '127.0.0.1')
      await once(server, 'listening')
      const { port } = server.address() as AddressInfo
      await expect(checkAgent('a', { host: '127.0.0.1', port }, 0, never)).rejects.toThrow(message)
      server.close()
    }
  })
})
