/** The demo without root: daemons and an upstream registry as processes on loopback addresses, OCI layouts as stores. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { UserError } from '../lib/errors.ts'
import { writeImage } from '../images/image.ts'
import { end, logTo, waitUntil } from '../testbed/process.ts'
import { pullImage } from './client.ts'
import type { PullResult, World } from './world.ts'

const registryPort = 5000
const routerPort = 5001
const metricsPort = 9090
const registry = 'registry.demo'
const MiB = 1024 * 1024
/** A layer at this rate takes seconds, and is far larger than what sockets hold: time to be killed in. */
const slowBytesPerSecond = 12 * MiB

const mainProgram = fileURLToPath(new URL('../main.ts', import.meta.url))
const upstreamProgram = fileURLToPath(new URL('./upstream.ts', import.meta.url))

export async function loopbackWorld(): Promise<World> {
  if (process.platform !== 'linux') {
    throw new UserError('the demo uses addresses like 127.1.2.3, which only Linux has without set-up: run it there')
  }
  const folder = await mkdtemp(join(tmpdir(), 'spegel-ts-demo-'))
  // Anywhere in 127/8 that is unlikely to be in use.
  const network = `127.${100 + Math.floor(Math.random() * 100)}.${Math.floor(Math.random() * 256)}`
  const ipOf = (node: number) => `${network}.${node}`
  const upstreamIp = `${network}.250`
  const daemons = new Map<number, ChildProcess>()
  const image = await writeImage(join(folder, 'upstream'), {
    name: `${registry}/app:v1`,
    sizeBytes: 64 * MiB,
    layers: 2,
    seed: 'demo',
  })
  const imageBytes = [image.manifest, image.config, ...image.layers].reduce((sum, { size }) => sum + size, 0)
  const layoutOf = (node: number) => join(folder, `node-${node}`)

  const upstreamLog = join(folder, 'upstream.log')
  const upstream = spawn(
    process.execPath,
    [upstreamProgram, join(folder, 'upstream'), upstreamIp, String(registryPort)],
    {
      stdio: logTo(upstreamLog),
    },
  )
  const close = async () => {
    await Promise.all([...daemons.values(), upstream].map((child) => end(child)))
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await waitUntil('the upstream registry', () => answers(`http://${upstreamIp}:${registryPort}/v2/`), {
      timeoutMs: 20_000,
      child: upstream,
      log: upstreamLog,
    })
  } catch (error) {
    await close()
    throw error
  }

  return {
    description: 'daemons and a registry as processes on loopback addresses, OCI layouts as stores',
    image: `${registry}/app:v1`,
    imageBytes,
    async startNode(number) {
      await mkdir(layoutOf(number))
      const log = join(folder, `node-${number}.log`)
      const ip = ipOf(number)
      const args = [
        mainProgram,
        'registry',
        `--oci-layout=${layoutOf(number)}`,
        `--registry-addr=${ip}:${registryPort}`,
        `--router-addr=${ip}:${routerPort}`,
        `--metrics-addr=${ip}:${metricsPort}`,
        '--bootstrap-kind=static',
        ...(number === 1 ? [] : ['--static-bootstrap-peers', `${ipOf(1)}:${routerPort}`]),
      ]
      const child = spawn(process.execPath, args, { stdio: logTo(log) })
      daemons.set(number, child)
      await waitUntil(`node ${number}`, () => answers(`http://${ip}:${registryPort}/readyz`), {
        timeoutMs: 20_000,
        child,
        log,
      })
    },
    async pull(number, midway): Promise<PullResult> {
      const received = { mirror: 0, upstream: 0 }
      let reached: Promise<void> | undefined
      const resumesBefore = await metric(ipOf(number), 'spegel_mirror_resumes_total{outcome="resumed"}')
      const startedMs = performance.now()
      await pullImage({
        layout: layoutOf(number),
        hosts: [
          { origin: `http://${ipOf(number)}:${registryPort}`, kind: 'mirror' },
          { origin: `http://${upstreamIp}:${registryPort}`, kind: 'upstream' },
        ],
        registry,
        repository: 'app',
        tag: 'v1',
        bytesPerSecondMax: midway === undefined ? Infinity : slowBytesPerSecond,
        onBytes: (kind, bytes) => {
          received[kind] += bytes
          if (received.mirror > imageBytes / 3) reached ??= midway?.()
        },
      })
      const elapsedMs = performance.now() - startedMs
      await reached
      const resumes = (await metric(ipOf(number), 'spegel_mirror_resumes_total{outcome="resumed"}')) - resumesBefore
      return { upstreamBytes: received.upstream, peerBytes: received.mirror, resumes, elapsedMs }
    },
    async servingNodes() {
      const busy: number[] = []
      for (const [number, child] of daemons) {
        const running = child.exitCode === null && child.signalCode === null
        const sent = running ? await metric(ipOf(number), 'http_requests_inflight{handler="/v2/*"}') : 0
        if (sent > 0) busy.push(number)
      }
      // The last node is the one that pulls: its requests come from its own client.
      return busy.filter((number) => number !== Math.max(...daemons.keys()))
    },
    async killDaemon(number) {
      const child = daemons.get(number)
      if (child !== undefined) await end(child, 'SIGKILL')
    },
    stopUpstream: () => end(upstream),
    close,
  }

  async function metric(ip: string, name: string): Promise<number> {
    const response = await fetch(`http://${ip}:${metricsPort}/metrics`)
    const line = (await response.text()).split('\n').find((candidate) => candidate.startsWith(`${name} `))
    return Number(line?.slice(name.length) ?? 0)
  }
}

async function answers(url: string): Promise<boolean> {
  return (await fetch(url)).status === 200
}
