import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SaxesParser } from 'saxes'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { analyze } from '../../../../src/benchmark/analyze/analyze.ts'
import { Latencies } from '../../../../src/benchmark/network/latencies.ts'
import type { NetworkResult, NetworkTurn } from '../../../../src/benchmark/result/network-schema.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'analyze-network-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const started = '2026-01-02T03:04:05.000Z'

/** Evenly from the lowest to ten times as much. */
function latencies(lowestMs: number, count: number) {
  const all = new Latencies()
  for (let index = 1; index <= count; index++) all.recordMs(lowestMs * (1 + (9 * index) / count))
  return all.summary()
}

function turns(path: string, position: number, factor: number, round = 1): NetworkTurn[] {
  const common = { round, path, position, started }
  const cpu = { client: 0.5, server: 1 }
  return [
    { ...common, kind: 'ping-pong', protocol: 'TCP', messageBytes: 64, latencies: latencies(0.1 * factor, 1_000) },
    {
      ...common,
      kind: 'ping-pong',
      protocol: 'UDP',
      messageBytes: 64,
      latencies: latencies(0.1 * factor, 1_000),
      lostDatagrams: 2,
    },
    ...[1, 4].map((streams) => ({
      ...common,
      kind: 'throughput' as const,
      streams,
      bytesPerSecond: ((100 + streams) * 1e6) / factor,
      bytes: 2 ** 30,
      cpu,
    })),
    { ...common, kind: 'blob', bytes: 1e8, duration: 1e9 * factor, firstByte: 1e6, cpu },
    {
      ...common,
      kind: 'http-rate',
      bodyBytes: 350,
      connections: 32,
      loadPercent: 90,
      wantedPerSecond: 1000,
      answeredPerSecond: 1000 / factor,
      reached: factor === 1,
      unanswered: 0,
      latencies: latencies(0.2 * factor, 5_000),
      generatorLag: latencies(0.001, 5_000),
    },
  ]
}

function result(change: Partial<NetworkResult> = {}): NetworkResult {
  return {
    schema: 'spegel-ts/benchmark/network/v1',
    name: 'paths',
    started,
    updated: started,
    complete: true,
    tool: { version: '1.2.3', commit: 'abc', node: 'v24', command: ['benchmark', 'network', 'run'] },
    machine: { cpu: 'a', cores: 2, memoryBytes: 2 ** 30, kernel: '6', load: 0 },
    set: { target: 'addresses', rounds: 2, duration: 2e9, connections: 32 },
    paths: [
      { name: 'host', address: '10.0.0.1:5010', agent: '1.2.3' },
      { name: 'pod', address: '10.1.0.1:5010', agent: '1.2.3' },
    ],
    loopback: turns('loopback', 1, 0.1).slice(0, 4),
    turns: [1, 2].flatMap((round) => [...turns('host', 1, 1, round), ...turns('pod', 2, 2, round)]),
    ...change,
  }
}

async function analyzed(content: unknown): Promise<string> {
  const path = join(folder, 'result.json')
  writeFileSync(path, JSON.stringify(content))
  const texts: string[] = []
  await analyze({ paths: [path], outputDir: join(folder, 'out'), write: (text) => void texts.push(text) })
  return texts.join('')
}

describe('a result about the network', () => {
  it('is a table by path and percentile, with the factor to the first path', async () => {
    const printed = await analyzed(result())
    const row = (start: RegExp) =>
      printed
        .split('\n')
        .find((line) => start.test(line))
        ?.split(/ {2,}/) ?? []
    // 2,000 samples: ten above p99.5, two above p99.9.
    expect(row(/^TCP ping-pong +host/)).toEqual([
      'TCP ping-pong',
      'host',
      '550',
      '955',
      '991',
      '996',
      '–',
      '–',
      '–',
      '1000',
      '–',
      '–',
      '–',
    ])
    expect(row(/^TCP ping-pong +pod/)).toEqual([
      'TCP ping-pong',
      'pod',
      '1101',
      '1911',
      '1982',
      '1992',
      '–',
      '–',
      '–',
      '2000',
      '550',
      '2.00',
      '2.00',
    ])
    expect(row(/^TCP ping-pong +the instrument itself/)[2]).toBe('55.0')
    expect(row(/^90 % +pod/).slice(0, 4)).toEqual(['90 %', 'pod', '1000/s', '500/s, rate not reached in 2 of 2'])
    // 10,000 samples in two rounds.
    expect(row(/^90 % +host/)[8]).not.toBe('–')
    expect(row(/^90 % +host/)[9]).toBe('–')
    expect(row(/^throughput, 4 streams +pod +[\d.]+ Mbit/).at(-1)).toBe('0.500')
    expect(row(/^throughput, 4 streams +pod +GiB/)).toEqual(['throughput, 4 streams', 'pod', 'GiB', '0.500', '1.00'])
    expect(printed).toContain('Datagrams that were lost: 8.')
    expect(printed).toContain('Failed measurements: none of 24')
  })

  it('says what it means for the mirror', async () => {
    const printed = await analyzed(result())
    // 2^30 bytes at 104 and at 52 MB/s.
    expect(printed).toContain(
      'host: a 1 GB image takes at least 10.3 s: the path carries 832 Mbit/s (4 streams). No mirror is faster.',
    )
    expect(printed).toContain(
      'pod: a 1 GB image takes at least 20.6 s: the path carries 416 Mbit/s (4 streams), 0.500 × host. No mirror is faster.',
    )
    const slowInstrument = await analyzed(result({ loopback: turns('loopback', 1, 0.9).slice(0, 4) }))
    expect(slowInstrument).toContain(
      'the instrument itself reaches 924 Mbit/s on this machine, so the path may carry',
    )
  })

  it('becomes a report with percentile plots on logarithmic scales', async () => {
    await analyzed(result())
    const files = readdirSync(join(folder, 'out'))
    for (const name of ['percentiles-ping-pong', 'percentiles-http-350']) {
      expect(files).toEqual(expect.arrayContaining([`${name}.svg`, `${name}.png`]))
      const svg = readFileSync(join(folder, 'out', `${name}.svg`), 'utf8')
      new SaxesParser().write(svg).close()
      for (const label of ['host', 'pod', '90 %', '99 %']) expect(svg).toContain(label)
    }
    const html = readFileSync(join(folder, 'out', 'report.html'), 'utf8')
    new SaxesParser().write(html.replace('<!DOCTYPE html>', '')).close()
    expect(html).toContain('Every measurement, in the order of time')
  })

  it('tells what failed, first', async () => {
    const failed: NetworkTurn = {
      round: 1,
      path: 'pod',
      position: 2,
      started,
      kind: 'failed',
      measurement: 'UDP ping-pong',
      error: 'filtered',
    }
    const printed = await analyzed(result({ turns: [...turns('host', 1, 1), failed] }))
    expect(printed).toMatch(/Failed measurements: 1 of 7\n {2}pod, round 1, UDP ping-pong: filtered\n/)
  })

  it.each<[string, Partial<NetworkResult> | object, RegExp]>([
    [
      'a broken histogram',
      result({
        turns: turns('host', 1, 1).map((turn) =>
          'latencies' in turn ? { ...turn, latencies: { ...turn.latencies, histogram: 'AAAA' } } : turn,
        ),
      }),
      /a histogram cannot be read \(.*\): measure again/,
    ],
    ['no paths', result({ paths: [] }), /paths: .*measure again/],
    ['another version', { ...result(), schema: 'spegel-ts/benchmark/network/v9' }, /network\/v9, this version reads/],
  ])('with %s is refused', async (_name, content, message) => {
    await expect(analyzed(content)).rejects.toThrow(message)
  })
})
