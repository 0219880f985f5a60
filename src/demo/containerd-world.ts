/** The demo with the real thing: containerd nodes in network namespaces, docker-registry as upstream, CRI pulls. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ContainerdNode } from '../testbed/containerd-node.ts'
import { fetchFrom } from '../testbed/fetch.ts'
import { writeImage } from '../images/image.ts'
import { Network } from '../testbed/network.ts'
import { RegistryProcess } from '../testbed/registry-process.ts'
import { prepareTools } from '../testbed/tools.ts'
import type { PullResult, World } from './world.ts'

const MiB = 1024 * 1024
const nodesMax = 5
const pullTimeoutMs = 60_000
/**
 * Slow enough to be killed in mid-blob: 16 MiB take 3.4 s, and what a killed process has given to the kernel, up to 4 MiB,
 * arrives all the same.
 */
const slowRate = '40mbit'
const midwayDelayMs = 600
const upstreamRate = '200mbit'

export async function containerdWorld(say: (line: string) => void): Promise<World> {
  const tools = await prepareTools(say)
  const folder = await mkdtemp(join(tmpdir(), 'spegel-ts-demo-'))
  const network = await Network.create()
  const nodes: ContainerdNode[] = []
  for (let number = 1; number <= nodesMax; number++) {
    const host = await network.addHost(`n${number}`)
    nodes.push(new ContainerdNode({ host, containerd: tools.containerdNew, folder: join(folder, `n${number}`) }))
  }
  const upstreamHost = await network.addHost('upstream')
  const upstream = new RegistryProcess(upstreamHost, tools.registry, join(folder, 'upstream'))
  const registry = new URL(upstream.url).host
  const reference = `${registry}/app:v1`
  const started: number[] = []
  const nodeOf = (number: number) => {
    const node = nodes[number - 1]
    if (node === undefined) throw new Error(`there is no node ${number}`)
    return node
  }
  const close = async () => {
    await Promise.all(nodes.map((node) => node.remove()))
    await upstream.stop()
    await network.close()
    await rm(folder, { recursive: true, force: true })
  }
  const metric = async (number: number, name: string) => {
    const { body } = await fetchFrom(nodeOf(number).host, 'http://127.0.0.1:9090/metrics')
    const line = body
      .toString()
      .split('\n')
      .find((candidate) => candidate.startsWith(`${name} `))
    return Number(line?.slice(name.length) ?? 0)
  }
  const totals = async (numbers: readonly number[]) => {
    const sum = async (name: string) => {
      const values = await Promise.all(numbers.map((number) => metric(number, name)))
      return values.reduce((total, value) => total + value, 0)
    }
    return {
      peerBytes: await sum('spegel_sent_bytes_total{source="peer",to="containerd"}'),
      resumes: await sum('spegel_mirror_resumes_total{outcome="resumed"}'),
    }
  }
  const pullOn = async (numbers: readonly number[], midway?: () => Promise<void>): Promise<PullResult> => {
    const before = await totals(numbers)
    const requestsBefore = upstream.requests().length
    if (midway !== undefined) for (const other of started) await nodeOf(other).host.setRate(slowRate)
    const startedMs = performance.now()
    const pulling = Promise.all(numbers.map((number) => nodeOf(number).cri.pull(reference, pullTimeoutMs)))
    if (midway !== undefined) {
      await new Promise((resolve) => setTimeout(resolve, midwayDelayMs))
      await midway()
    }
    await pulling
    const elapsedMs = performance.now() - startedMs
    const ips = new Set(numbers.map((number) => nodeOf(number).host.ip))
    const upstreamBytes = upstream
      .requests()
      .slice(requestsBefore)
      .filter(({ client, method }) => ips.has(client) && method === 'GET')
      .reduce((sum, { bytes }) => sum + bytes, 0)
    const after = await totals(numbers)
    return {
      upstreamBytes,
      peerBytes: after.peerBytes - before.peerBytes,
      resumes: after.resumes - before.resumes,
      elapsedMs,
    }
  }
  const layout = join(folder, 'image')
  try {
    const image = await writeImage(layout, { name: reference, sizeBytes: 48 * MiB, layers: 3, seed: 'demo' })
    await upstream.start()
    // Fast links would hide what is shared.
    await upstreamHost.setRate(upstreamRate)
    await upstream.place(layout, image, 'app', 'v1')
    const imageBytes = [image.manifest, image.config, ...image.layers].reduce((sum, { size }) => sum + size, 0)
    return {
      description: 'real containerd nodes in network namespaces, docker-registry as upstream',
      image: reference,
      imageBytes,
      async startNode(number) {
        const node = nodeOf(number)
        await node.startContainerd()
        await node.configure(upstream.url)
        await node.startDaemon(number === 1 ? [] : [`${nodeOf(1).host.ip}:5001`])
        started.push(number)
      },
      pull(number, midway) {
        return pullOn([number], midway)
      },
      pullTogether: (numbers) => pullOn(numbers),
      async servingNodes() {
        const busy: number[] = []
        for (const number of started.slice(0, -1)) {
          if ((await metric(number, 'http_requests_inflight{handler="/v2/*"}')) > 0) busy.push(number)
        }
        return busy
      },
      killDaemon: (number) => nodeOf(number).stopDaemon('SIGKILL'),
      stopUpstream: () => upstream.stop(),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
