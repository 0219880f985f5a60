/** The cold batch with real containerd: nobody has the image, all pull it at once, one copy comes from upstream. */
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { awakeMs } from '../../src/testbed/awake-clock.ts'
import { Cluster, type ClusterInit } from '../../src/testbed/cluster.ts'
import type { ContainerdNode } from '../../src/testbed/containerd-node.ts'
import { writeImage } from '../../src/images/image.ts'
import { fetchFrom } from '../../src/testbed/fetch.ts'
import type { Host } from '../../src/testbed/network.ts'
import { end, logTo } from '../../src/testbed/process.ts'
import { type AccessLogEntry, type RegistryOptions, RegistryProcess } from '../../src/testbed/registry-process.ts'
import { eventually } from '../support/daemons.ts'
import { metric } from '../support/fault-bed.ts'
import { testCertificate } from '../support/tls.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 120_000
const nodes = 4
const tokenService = join(import.meta.dirname, '../support/token-service-process.ts')

interface Case {
  name: string
  containerd: ClusterInit['containerd']
  options: readonly string[]
  extraConfig?: string
}

const cases: Case[] = [
  { name: 'containerd 2.3, leases by redirect', containerd: 'containerdNew', options: [] },
  {
    name: 'containerd 2.3, leases by 404',
    containerd: 'containerdNew',
    options: ['--containerd-registry-config-path', '/nowhere'],
  },
  {
    name: 'containerd 2.3, parallel layer fetch',
    containerd: 'containerdNew',
    options: [],
    extraConfig: `[plugins."io.containerd.transfer.v1.local"]\n  concurrent_layer_fetch_buffer = ${4 * MiB}\n`,
  },
  { name: "the distribution's containerd", containerd: 'containerdOld', options: [] },
]

describe.each(cases)('a cold batch: $name', ({ containerd, options, extraConfig }) => {
  let cluster: Cluster
  let seen = 0
  let images = 0

  beforeAll(async () => {
    cluster = await Cluster.create({
      nodes,
      containerd,
      daemonOptions: () => options,
      ...(extraConfig === undefined ? {} : { extraConfig: () => extraConfig }),
    })
    await cluster.upstreamHost.setRate('200mbit')
  })
  afterAll(() => cluster.close())
  beforeEach(() => (seen = cluster.upstream.requests().length))
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') process.stderr.write(`${await cluster.complaints()}\n`)
  })

  const publish = (sizeMiB: number, layers: number) => {
    images += 1
    return cluster.publish(`cold-${images}:v1`, { sizeBytes: sizeMiB * MiB, layers, seed: `cold-${images}` })
  }
  const pull = (node: ContainerdNode, reference: string) =>
    node.cri.pull(reference, pullTimeoutMs).then(() => 'pulled', String)
  const asked = () => cluster.upstream.requests().slice(seen)
  const blobGets = () => asked().filter(({ method, path }) => method === 'GET' && path.includes('/blobs/'))

  it('fetches each blob from upstream once, and feeds all', async () => {
    const { reference, image } = await publish(48, 4)
    expect(await Promise.all(cluster.nodes.map((node) => pull(node, reference)))).toEqual(
      cluster.nodes.map(() => 'pulled'),
    )
    for (const { digest } of image.layers) expect(askers(blobGets(), digest), digest).toBe(1)
    const bytes = blobGets().reduce((sum, entry) => sum + entry.bytes, 0)
    // Parts that containerd asked for and left: what was on its way counts, with and without a mirror.
    expect(bytes).toBeLessThan((extraConfig === undefined ? 1.02 : 1.5) * 48 * MiB)
    await eventually(async () => {
      const lines = (await Promise.all(cluster.nodes.map((node) => node.daemonLines()))).flat()
      const layerLines = lines.filter(
        ({ msg, key }) => msg === 'flight' && image.layers.some(({ digest }) => digest === key),
      )
      expect(layerLines.filter(({ role }) => role === 'leading')).toHaveLength(4)
      expect(layerLines.filter(({ role }) => role === 'following').length).toBeGreaterThan(0)
    })
  })

  it('feeds who comes later from what is there', async () => {
    const { reference, image } = await publish(64, 1)
    const [first, ...others] = cluster.nodes
    if (first === undefined) throw new Error('there is no node')
    const pulled = pull(first, reference)
    await eventually(async () => {
      expect(await first.ingestBytes(image.layers[0]?.digest ?? '')).toBeGreaterThan(16 * MiB)
    })
    expect(await Promise.all([pulled, ...others.map((node) => pull(node, reference))])).toEqual(
      cluster.nodes.map(() => 'pulled'),
    )
    expect(askers(blobGets(), image.layers[0]?.digest ?? '')).toBe(1)
  })

  it('leads nobody for a request that is not of its own containerd', async () => {
    const { reference, image } = await publish(16, 1)
    const [first] = cluster.nodes
    const digest = image.layers[0]?.digest ?? ''
    const { host, pathname } = new URL(`http://${reference.replace(/:v1$/, '')}`)
    const url = `http://127.0.0.1:5000/v2${pathname}/blobs/${digest}?ns=${host}`
    if (first !== undefined) expect(await fetchFrom(first.host, url)).toMatchObject({ status: 404 })
    const startedMs = awakeMs()
    expect(await Promise.all(cluster.nodes.map((node) => pull(node, reference)))).toEqual(
      cluster.nodes.map(() => 'pulled'),
    )
    expect(askers(blobGets(), digest)).toBe(1)
    // Who waits for a leader that fetches nothing, waits for 10 s.
    expect(awakeMs() - startedMs).toBeLessThan(8_000)
  })

  it('does not wait long for a leader whose mirror is killed before it has a byte', async () => {
    // Of three, so that not all are coordinated by the mirror that is killed.
    const { reference, image } = await publish(6, 3)
    const [leader, ...others] = cluster.nodes
    if (leader === undefined) throw new Error('there is no node')
    const leases = async () => {
      const counts = await Promise.all(cluster.nodes.map((node) => metric(node, 'spegel_flight_leases_total')))
      return counts.reduce((sum, count) => sum + count, 0)
    }
    const leasesBefore = await leases()
    // The first MiB takes 8 s.
    await cluster.upstreamHost.setRate('1mbit')
    const pulled = pull(leader, reference)
    await eventually(async () => {
      // Its manifest and config, too.
      expect((await leases()) - leasesBefore).toBeGreaterThanOrEqual(2 + image.layers.length)
    })
    await leader.stopDaemon('SIGKILL')
    const killedMs = awakeMs()
    try {
      await cluster.upstreamHost.setRate('200mbit')
      expect(await Promise.all(others.map((node) => pull(node, reference)))).toEqual(others.map(() => 'pulled'))
      // Without the question whether it is there: 15 s.
      expect(awakeMs() - killedMs).toBeLessThan(10_000)
      // With parallel fetch all parts are asked for at its mirror.
      if (extraConfig === undefined) expect(await pulled).toBe('pulled')
    } finally {
      await leader.startDaemon(cluster.peers, options)
    }
  })

  it('goes on when the mirror of the leader is killed in mid-blob', async () => {
    const { reference, image } = await publish(64, 1)
    const layer = image.layers[0]?.digest ?? ''
    const pulls = cluster.nodes.map((node) => pull(node, reference))
    // Who has most: the access log tells of a request when it has ended.
    const leader = await eventually(async () => {
      const ingests = await Promise.all(cluster.nodes.map((node) => node.ingestBytes(layer)))
      expect(Math.max(...ingests)).toBeGreaterThan(20 * MiB)
      return cluster.nodes[ingests.indexOf(Math.max(...ingests))]
    })
    await leader?.stopDaemon('SIGKILL')
    try {
      const ended = await Promise.all(pulls)
      // With parallel fetch containerd asks for all parts at the host that gave the first: its own mirror, which is dead.
      const mayFail = extraConfig === undefined ? undefined : cluster.nodes.findIndex((node) => node === leader)
      expect(ended.filter((outcome, index) => outcome !== 'pulled' && index !== mayFail)).toEqual([])
    } finally {
      await leader?.startDaemon(cluster.peers, options)
    }
  })
})

describe('flights that are switched off', () => {
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await Cluster.create({
      nodes: 2,
      containerd: 'containerdNew',
      daemonOptions: () => ['--flights=false'],
    })
    await cluster.upstreamHost.setRate('100mbit')
  })
  afterAll(() => cluster.close())

  it('send every node upstream', async () => {
    const { reference, image } = await cluster.publish('off:v1', { sizeBytes: 16 * MiB, layers: 1, seed: 'off' })
    await Promise.all(cluster.nodes.map(({ cri }) => cri.pull(reference, pullTimeoutMs)))
    expect(askers(cluster.upstream.requests(), image.layers[0]?.digest ?? '')).toBe(2)
  })
})

/** An earlier version says nothing of flights in the swarm, and answers their messages 404: as one that has them off. */
describe('a cold batch with earlier versions among the nodes', () => {
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await Cluster.create({ nodes: 4, containerd: 'containerdNew' })
    await cluster.upstreamHost.setRate('100mbit')
    for (const node of earlier()) {
      await node.stopDaemon('SIGTERM')
      await node.startDaemon(cluster.peers, ['--flights=false'])
    }
    // Until here a node may have looked for one that was not started yet.
    for (const node of cluster.nodes) linesBefore.set(node, (await node.daemonLines()).length)
  })
  afterAll(() => cluster.close())
  const linesBefore = new Map<ContainerdNode, number>()
  const earlier = () => cluster.nodes.slice(2)
  const pull = (reference: string) => (node: ContainerdNode) => node.cri.pull(reference, pullTimeoutMs)

  it('feeds them as before, and never has them coordinate', async () => {
    const { reference, image } = await cluster.publish('mixed:v1', { sizeBytes: 32 * MiB, layers: 4, seed: 'mixed' })
    await Promise.all(cluster.nodes.slice(0, 2).map(pull(reference)))
    for (const { digest } of image.layers) expect(askers(cluster.upstream.requests(), digest), digest).toBe(1)
    await Promise.all(earlier().map(pull(reference)))
    for (const { digest } of image.layers) expect(askers(cluster.upstream.requests(), digest), digest).toBe(1)
    await expectNothingWrong()
  })

  it('is shared by those that have flights, while the others go upstream', async () => {
    const { reference, image } = await cluster.publish('mixed:v2', { sizeBytes: 32 * MiB, layers: 4, seed: 'both' })
    await Promise.all(cluster.nodes.map(pull(reference)))
    const wanted = 1 + earlier().length
    for (const { digest } of image.layers) {
      expect(askers(cluster.upstream.requests(), digest), digest).toBeLessThanOrEqual(wanted)
    }
    await expectNothingWrong()
  })

  /** Nobody was asked for a decision that he does not take, and nobody complained. */
  async function expectNothingWrong(): Promise<void> {
    for (const node of cluster.nodes) {
      const lines = (await node.daemonLines()).slice(linesBefore.get(node))
      expect(lines.filter(({ level }) => level !== 'INFO' && level !== 'DEBUG')).toEqual([])
    }
    for (const node of earlier()) {
      expect(await metric(node, 'spegel_flights_coordinated')).toBe(0)
    }
  }
})

/** How a registry knows who asks. */
interface Door {
  name: string
  /** On the registry's host. */
  options: (host: Host) => RegistryOptions
  /** What has to run beside the registry; prints what it was asked. */
  service?: (host: Host, log: string) => ChildProcess
}

const tokenPort = 5081
const secret = { username: 'me', password: 'secret' }
const doors: Door[] = [
  { name: 'a password', options: () => ({ htpasswd }) },
  {
    name: 'a token service',
    options: ({ ip }) => ({
      tokens: { url: `http://${ip}:${tokenPort}/token`, service: 'testbed', certificate: testCertificate },
    }),
    service: (host, log) => {
      const args = [tokenService, String(tokenPort), secret.username, secret.password, 'testbed']
      return host.spawn(process.execPath, args, { stdio: logTo(log) })
    },
  },
]

describe.each(doors)('a registry with $name', ({ options, service }) => {
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await Cluster.create({ nodes: 2, containerd: 'containerdNew' })
  })
  afterAll(() => cluster.close())

  it('is asked by containerd with the pull secret; mirrors never see it', async () => {
    const folder = join(cluster.folder, 'private')
    const { client } = cluster
    const registry = new RegistryProcess(client, cluster.tools.registry, folder, options(client))
    const tokenLog = join(cluster.folder, 'tokens')
    const helpers = service === undefined ? [] : [service(client, tokenLog)]
    await registry.start()
    await client.setRate('100mbit')
    const reference = `${new URL(registry.url).host}/private:v1`
    const layout = join(cluster.folder, 'private-image')
    const image = await writeImage(layout, { name: reference, sizeBytes: 16 * MiB, layers: 2, seed: 'private' })
    await registry.place(layout, image, 'private', 'v1')
    // What containerd says to the mirror passes a listener.
    const heard = cluster.nodes.map((node) => join(node.folder, 'heard'))
    for (const [index, node] of cluster.nodes.entries()) {
      const args = ['-e', listener, '5005', '5000', heard[index] ?? '']
      helpers.push(node.host.spawn(process.execPath, args, { stdio: 'ignore' }))
    }
    try {
      for (const [index, node] of cluster.nodes.entries()) {
        await node.configure(registry.url, [], 'http://127.0.0.1:5005')
        await eventually(() => expect(existsSync(heard[index] ?? '')).toBe(true))
      }
      const refused = await Promise.all(cluster.nodes.map((node) => pull(node, reference)))
      expect(refused).not.toContain('pulled')
      await Promise.all(cluster.nodes.map(({ cri }) => cri.pull(reference, pullTimeoutMs, secret)))
      for (const { digest } of image.layers) expect(askers(registry.requests(), digest)).toBe(1)
      if (service !== undefined) expect(await readFile(tokenLog, 'utf8')).toContain('given repository:private:pull')
      for (const path of heard) {
        const text = await readFile(path, 'latin1')
        expect(text).toContain(`GET /v2/private/blobs/${image.layers[0]?.digest}`)
        expect(text.toLowerCase()).not.toContain('authorization')
      }
    } finally {
      for (const child of helpers) await end(child)
      await registry.stop()
    }
  })

  const pull = (node: ContainerdNode, reference: string) =>
    node.cri.pull(reference, pullTimeoutMs).then(() => 'pulled', String)
})

/** The user `me` with the password `secret`. */
const htpasswd = 'me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n'

/** Passes a port's connections on to another, and keeps what clients say. */
const listener = `
const [from, to, file] = process.argv.slice(1)
const { appendFileSync, writeFileSync } = require('node:fs')
const { connect, createServer } = require('node:net')
createServer((client) => {
  const server = connect(Number(to), '127.0.0.1')
  client.on('data', (data) => appendFileSync(file, data))
  client.pipe(server).pipe(client)
  for (const socket of [client, server]) socket.on('error', () => undefined)
}).listen(Number(from), '127.0.0.1', () => writeFileSync(file, ''))`

/** How many nodes asked for it, and were answered. */
function askers(entries: readonly AccessLogEntry[], digest: string): number {
  return new Set(
    entries
      .filter(({ method, path, status }) => method === 'GET' && status < 300 && path.includes(digest))
      .map(({ client }) => client),
  ).size
}
