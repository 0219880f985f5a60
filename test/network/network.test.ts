/**
 * `spegel-ts benchmark network` as a user runs it, between hosts behind links of 1 Gbit, one of them a millisecond away;
 * iperf3 and sockperf measure the same links in the same run.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseCheckedJson } from '../../src/benchmark/checked-json.ts'
import { type Asker, httpAsker } from '../../src/benchmark/network/askers.ts'
import { closedLoop } from '../../src/benchmark/network/closed-loop.ts'
import { Latencies } from '../../src/benchmark/network/latencies.ts'
import { openLoop } from '../../src/benchmark/network/open-loop.ts'
import { type NetworkResult, networkResultSchema } from '../../src/benchmark/result/network-schema.ts'
import { type Host, Network } from '../../src/testbed/network.ts'
import { end, output, waitUntil } from '../../src/testbed/process.ts'
import { prepareDelayLine, prepareNetworkTools, prepareTools } from '../../src/testbed/tools.ts'

const program = join(import.meta.dirname, '../../bin/spegel-ts')
const say = (line: string) => process.stderr.write(`${line}\n`)
const rate = '1gbit'
/** One way. */
const delayMs = 1
const runTimeoutMs = 200_000
const [iperfPort, sockperfPort, agentPort] = [5201, 11_111, 5010]

describe('benchmark network', () => {
  let tools: Awaited<ReturnType<typeof prepareNetworkTools>>
  let network: Network | undefined
  let client: Host
  let hosts: Host[]
  let folder: string
  const agents: ChildProcess[] = []
  const others: ChildProcess[] = []

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'spegel-ts-network-'))
    await prepareTools((line) => say(`set-up: ${line}`))
    tools = await prepareNetworkTools((line) => say(`set-up: ${line}`))
    const delayLine = await prepareDelayLine((line) => say(`set-up: ${line}`))
    network = await Network.create()
    client = await network.addHost('client')
    const far = await network.addHost('far')
    hosts = [await network.addHost('near'), far]
    for (const host of [client, ...hosts]) await host.setRate(rate)
    await far.setDelay(delayLine, delayMs)
    for (const host of hosts) {
      agents.push(await listening(host.spawn(program, ['benchmark', 'network', 'serve'])))
      others.push(
        host.spawn(tools.iperf3, ['-s', '-p', String(iperfPort)], { env: tools.env, stdio: 'ignore' }),
        sockperf(host, 'server', host, []),
        sockperf(host, 'server', host, ['--tcp']),
      )
      await waitUntil('iperf3 and sockperf', () => isServing(host), { timeoutMs: 10_000 })
    }
  })
  afterAll(async () => {
    for (const child of [...others, ...agents]) await end(child)
    await network?.close()
    await rm(folder, { recursive: true, force: true })
  })

  function sockperf(from: Host, mode: string, to: Host, more: readonly string[]): ChildProcess {
    return from.spawn(tools.sockperf, [mode, '-i', to.ip, '-p', String(sockperfPort), ...more], {
      stdio: ['ignore', mode === 'server' ? 'ignore' : 'pipe', 'ignore'],
    })
  }

  /** sockperf has the same port over TCP and UDP. */
  async function isServing(host: Host): Promise<boolean> {
    const listeners = await output(host.spawn('ss', ['-Hltun']))
    return listeners.includes(`:${iperfPort} `) && listeners.split(`:${sockperfPort} `).length === 3
  }

  /** µs, there and back. */
  async function sockperfMedian(host: Host, protocol: 'TCP' | 'UDP'): Promise<number> {
    const more = ['-t', '3', '--msg-size', '64', '--full-rtt', ...(protocol === 'TCP' ? ['--tcp'] : [])]
    const printed = await output(sockperf(client, 'ping-pong', host, more))
    return Number(/percentile 50\.000 =\s+([\d.]+)/.exec(printed)?.[1])
  }

  /** Bytes of payload per second, from the host to the client. */
  async function iperfRate(host: Host, streams: number): Promise<number> {
    const args = ['-c', host.ip, '-p', String(iperfPort), '-R', '-J', '-O', '1', '-t', '3', '-P', String(streams)]
    const { end: summary } = JSON.parse(await output(client.spawn(tools.iperf3, args, { env: tools.env }))) as {
      end: { sum_received: { bits_per_second: number } }
    }
    return summary.sum_received.bits_per_second / 8
  }

  async function measure(...more: string[]): Promise<NetworkResult> {
    const paths = hosts.map(({ name, ip }) => `${name}=${ip}`)
    const args = ['benchmark', 'network', 'run', '--result-dir', folder, '--path', ...paths, ...more]
    const child = client.spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    expect(await output(child)).toContain(`benchmark analyze --path ${folder}`)
    const path = join(folder, 'result.json')
    return parseCheckedJson(await readFile(path, 'utf8'), path, networkResultSchema)
  }

  it(
    'agrees with iperf3 and sockperf',
    async () => {
      const [near, distant] = hosts as [Host, Host]
      // Before and after, since the machine is not the same all the time.
      const peers = async () => ({
        tcp: [await sockperfMedian(near, 'TCP'), await sockperfMedian(distant, 'TCP')],
        udp: [await sockperfMedian(near, 'UDP'), await sockperfMedian(distant, 'UDP')],
        rates: [await iperfRate(near, 1), await iperfRate(near, 4), await iperfRate(distant, 4)],
      })
      const before = await peers()
      const result = await measure('--rounds', '2', '--duration', '500ms')
      const after = await peers()
      expect(result.turns.filter(({ kind }) => kind === 'failed')).toEqual([])

      for (const [protocol, key] of [
        ['TCP', 'tcp'],
        ['UDP', 'udp'],
      ] as const) {
        const own = [median(result, 'near', protocol), median(result, 'far', protocol)]
        const instrument = median({ ...result, turns: result.loopback }, 'loopback', protocol)
        const theirs = [0, 1].map((index) => mean([before[key][index], after[key][index]]))
        const [ownDifference, theirDifference] = [difference(own), difference(theirs)]
        say(
          `${protocol}: near ${text(own[0])} (sockperf ${text(theirs[0])}), far ${text(own[1])} (${text(theirs[1])}), difference ${text(ownDifference)} (${text(theirDifference)}) µs; over loopback the instrument itself sees ${text(instrument)} µs`,
        )
        // The delay line holds each frame back by so much, there and back.
        expect(ownDifference).toBeGreaterThan(2 * delayMs * 1000)
        expect(Math.abs(ownDifference / theirDifference - 1)).toBeLessThan(0.15)
      }
      for (const [index, [path, streams]] of (
        [
          ['near', 1],
          ['near', 4],
          ['far', 4],
        ] as const
      ).entries()) {
        const own = throughput(result, path, streams)
        const theirs = mean([before.rates[index], after.rates[index]])
        say(`${path}, ${streams} streams: ${text((own * 8) / 1e6)} Mbit/s (iperf3 ${text((theirs * 8) / 1e6)})`)
        expect(Math.abs(own / theirs - 1)).toBeLessThan(0.1)
        // The link carries no more; with headers 1,000.
        expect(own * 8).toBeLessThan(1000e6)
      }
    },
    runTimeoutMs,
  )

  it('is read by analyze', async () => {
    const printed = await output(spawn(program, ['benchmark', 'analyze', '--path', folder]))
    expect(printed).toMatch(/near: a 1 GB image takes at least (8\.[89]|9\.\d)\d* s: the path carries/)
    expect(printed).toMatch(/TCP ping-pong +the instrument itself/)
    expect(printed).toMatch(/TCP ping-pong +far /)
  })

  it('ends cleanly, on both sides', async () => {
    const [near] = hosts as [Host, Host]
    const args = ['benchmark', 'network', 'run', '--result-dir', folder, '--path', `near=${near.ip}`]
    const child = client.spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr?.on('data', (data: Buffer) => (said += data.toString()))
    await waitUntil('a measurement', () => Promise.resolve(said.includes('1 of ')), { timeoutMs: 60_000, child })
    await end(child, 'SIGINT')
    expect(`${child.exitCode} ${said.trimEnd().split('\n').at(-1)}`).toBe(
      `1 spegel-ts: broken off: what was measured until then is in ${folder}/result.json`,
    )
    const path = join(folder, 'result.json')
    const result = parseCheckedJson(await readFile(path, 'utf8'), path, networkResultSchema)
    expect(result.complete).toBe(false)
    expect(result.turns.length).toBeGreaterThan(0)
    // Its own agent has ended with it.
    const left = await output(client.spawn('ss', ['-Hltn']))
    expect(left).toBe('')
    for (const agent of agents) {
      await end(agent)
      expect(agent.exitCode).toBe(0)
    }
  })
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

describe('a server that stops for 100 ms in each second', () => {
  let worker: Worker
  let port: number
  const opened: Asker[] = []
  beforeAll(async () => {
    worker = new Worker(stallingServer, { eval: true })
    ;[port] = (await once(worker, 'message')) as [number]
  })
  afterAll(async () => {
    for (const asker of opened) asker.close()
    await worker.terminate()
  })
  const open = async () => {
    const asker = await httpAsker(350)({ host: '127.0.0.1', port }, new AbortController().signal)
    opened.push(asker)
    return asker
  }
  const ms = (latencies: Latencies, percentile: number) => (latencies.percentileNs(percentile) ?? Number.NaN) / 1e6

  // Again when the machine itself stopped meanwhile: that only adds to latencies.
  it('is seen at a constant rate as it is computed', { retry: 3 }, async () => {
    const askers = await Promise.all(Array.from({ length: 16 }, open))
    const times = { perSecond: 1_000, durationMs: 6_000, patienceMs: 1_000 }
    const { latencies, reached } = await openLoop(askers, times)
    expect({ reached, count: latencies.count }).toEqual({ reached: true, count: 6_000 })
    const seen = [92, 95, 99, 99.5].map((percentile) => ms(latencies, percentile))
    say(`p92, p95, p99, p99.5 of a server that stops: ${seen.map(text).join(', ')} ms; computed 20, 50, 90, 95 ms`)
    // The share that waits longer than t is (100 ms − t) ÷ 1 s.
    for (const [index, expected] of [20, 50, 90, 95].entries()) {
      expect(Math.abs((seen[index] ?? Number.NaN) - expected)).toBeLessThan(10)
    }
    expect(ms(latencies, 50)).toBeLessThan(5)
  })

  it(
    'is not seen by a connection that waits for its answers, which leaves the waiting out',
    { retry: 3 },
    async () => {
      const { latencies } = await closedLoop([await open()], { warmUpMs: 0, durationMs: 3_000 })
      expect(ms(latencies, 99)).toBeLessThan(10)
      expect(latencies.maxNs / 1e6).toBeGreaterThan(90)
    },
  )
})

async function listening(child: ChildProcess): Promise<ChildProcess> {
  let said = ''
  child.stdout?.on('data', (data: Buffer) => (said += data.toString()))
  await waitUntil('the agent', () => Promise.resolve(said === `listening on [::]:${agentPort}\n`), {
    timeoutMs: 20_000,
    child,
  })
  return child
}

/** µs, all rounds together. */
function median({ turns }: Pick<NetworkResult, 'turns'>, path: string, protocol: 'TCP' | 'UDP'): number {
  const summaries = turns.flatMap((turn) =>
    turn.kind === 'ping-pong' && turn.path === path && turn.protocol === protocol ? [turn.latencies] : [],
  )
  return (Latencies.merged(summaries).percentileNs(50) ?? Number.NaN) / 1000
}

function throughput({ turns }: NetworkResult, path: string, streams: number): number {
  return mean(
    turns.flatMap((turn) =>
      turn.kind === 'throughput' && turn.path === path && turn.streams === streams ? [turn.bytesPerSecond] : [],
    ),
  )
}

function difference([near = Number.NaN, distant = Number.NaN]: readonly number[]): number {
  return distant - near
}

function mean(values: readonly (number | undefined)[]): number {
  return values.reduce((sum: number, value) => sum + (value ?? Number.NaN), 0) / values.length
}

function text(value: number | undefined): string {
  return (value ?? Number.NaN).toFixed(1)
}
