/**
 * Nodes on this machine: each a real containerd in a network namespace of its own, a real registry behind a shaped
 * link, and the mirrors under test beside them. Everything carries the pid of its maker (`benchmark local down`).
 */
import { createHash } from 'node:crypto'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError } from '../../lib/errors.ts'
import { writeBenchmarkImage } from '../../images/benchmark-image.ts'
import { ContainerdNode } from '../../testbed/containerd-node.ts'
import { measureLinks } from '../../testbed/link-rates.ts'
import { Network, type Host } from '../../testbed/network.ts'
import { RegistryProcess } from '../../testbed/registry-process.ts'
import type { Phase } from '../result/schema.ts'
import type { ImageSet, ImageSource, MirrorSpec, PhaseOrder, Target } from '../target.ts'
import { bedFolderPrefix, removeLeftoversOfBeds } from './down.ts'
import { writeHostsToml } from './hosts-toml.ts'
import { readLayoutImage } from './layout-image.ts'
import { MirrorFleet } from './mirrors.ts'
import type { Programs } from './programs.ts'
import { type Arrival, type ReadyImage, measurePhase } from './pull-phase.ts'

export interface LocalTargetInit {
  programs: Programs
  nodes: number
  /** As tc writes rates; undefined: not limited. */
  upstreamRate: string | undefined
  nodeRate: string | undefined
  mirrors: readonly MirrorSpec[]
  arrivals: (phase: PhaseOrder['phase'], images: number) => readonly Arrival[]
  say: (line: string) => void
}

interface Bed {
  folder: string
  network: Network
  nodes: ContainerdNode[]
  upstreamHost: Host
  registry: RegistryProcess
  fleets: ReadonlyMap<string, MirrorFleet>
  links: Awaited<ReturnType<typeof measureLinks>>
}

export class LocalTarget implements Target {
  readonly kind = 'local'
  readonly #init: LocalTargetInit
  readonly #cleanUps: (() => Promise<unknown>)[] = []
  #bed: Bed | undefined
  #ready: Record<PhaseOrder['phase'], ReadyImage[]> = { create: [], update: [] }

  constructor(init: LocalTargetInit) {
    this.#init = init
  }

  async open(signal: AbortSignal) {
    const { say, upstreamRate, nodeRate, programs, mirrors } = this.#init
    await removeLeftoversOfBeds()
    const folder = await mkdtemp(bedFolderPrefix())
    this.#cleanUps.push(() => rm(folder, { recursive: true, force: true }))
    // A mirror may run as somebody else than root.
    await chmod(folder, 0o755)
    const network = await Network.create()
    this.#cleanUps.push(() => network.close())
    const upstreamHost = await network.addHost('upstream')
    const nodes = await this.#addNodes(network, folder)
    if (upstreamRate !== undefined) await upstreamHost.setRate(upstreamRate)
    for (const { host } of nodes) {
      if (nodeRate !== undefined) await Promise.all([host.setRate(nodeRate), host.setInRate(nodeRate)])
    }
    signal.throwIfAborted()
    say(`measuring the links of ${nodes.length} nodes`)
    const links = await measureLinks(
      upstreamHost,
      nodes.map(({ host }) => host),
    )
    const registry = new RegistryProcess(upstreamHost, programs.registry, join(folder, 'registry'))
    this.#cleanUps.push(() => registry.stop())
    await registry.start()
    signal.throwIfAborted()
    for (const node of nodes) this.#cleanUps.push(() => node.remove())
    await Promise.all(nodes.map((node) => node.startContainerd()))
    const fleets = new Map<string, MirrorFleet>()
    for (const [index, { name, command }] of mirrors.entries()) {
      if (command === undefined) continue
      const fleet = new MirrorFleet({ name, command }, index, nodes, registry.url)
      fleets.set(name, fleet)
      this.#cleanUps.push(() => fleet.close())
      say(`starting ${name} on ${nodes.length} nodes`)
      await fleet.ensureRunning(signal)
    }
    this.#bed = { folder, network, nodes, upstreamHost, registry, fleets, links }
    const versions = await Promise.all(nodes.map((node) => node.runtimeVersion()))
    return { links, nodes: nodes.map(({ host }, index) => ({ name: host.name, runtime: versions[index] ?? '' })) }
  }

  async prepare(images: ImageSet, salt: string): Promise<void> {
    const ready = async (sources: readonly ImageSource[]) => {
      const done: ReadyImage[] = []
      for (const source of sources) done.push(await this.#place(source, salt))
      return done
    }
    this.#ready = { create: await ready(images.create), update: await ready(images.update) }
  }

  async measure({ mirror, phase }: PhaseOrder, signal: AbortSignal): Promise<Phase> {
    const { nodes, upstreamHost, registry, fleets, links } = this.#opened()
    const fleet = fleets.get(mirror.name)
    await fleet?.ensureRunning(signal)
    await Promise.all(nodes.map((node) => writeHostsToml(node.certsFolder, registry.url, fleet?.registryPort)))
    const images = this.#ready[phase]
    // A pull cannot be called back: without containerd it ends.
    const abort = () => void Promise.all(nodes.map((node) => node.stopContainerd('SIGKILL')))
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await measurePhase({
        nodes,
        images,
        arrivals: this.#init.arrivals(phase, images.length),
        upstreamHost,
        requests: () => registry.requests(),
        mirrorPid: (node) => fleet?.pid(node),
        mirrorLog: fleet === undefined ? undefined : (node) => fleet.logOf(node),
        links,
        signal,
      })
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  async clear(): Promise<void> {
    const { nodes, registry } = this.#opened()
    const images = [...this.#ready.create, ...this.#ready.update]
    await Promise.all(
      nodes.map(async ({ cri }) => {
        for (const { reference } of images) await cri.remove(reference).catch(() => undefined)
      }),
    )
    await registry.clear()
  }

  async close(): Promise<void> {
    const problems: unknown[] = []
    for (const cleanUp of this.#cleanUps.splice(0).toReversed()) {
      await cleanUp().catch((error: unknown) => problems.push(error))
    }
    if (problems.length > 0) throw new AggregateError(problems, `cleaning up: ${problems.map(String).join('; ')}`)
  }

  async #addNodes(network: Network, folder: string): Promise<ContainerdNode[]> {
    const nodes: ContainerdNode[] = []
    const { containerds } = this.#init.programs
    for (let number = 1; number <= this.#init.nodes; number++) {
      const containerd = containerds[(number - 1) % containerds.length]
      if (containerd === undefined) throw new Error('there is no containerd')
      const name = `n${number}`
      nodes.push(new ContainerdNode({ host: await network.addHost(name), containerd, folder: join(folder, name) }))
    }
    return nodes
  }

  async #place(source: ImageSource, salt: string): Promise<ReadyImage> {
    const { folder, registry } = this.#opened()
    // A tag of its own for every turn: a mirror that remembers tags must not give what it had before.
    const turn = createHash('sha256').update(salt).digest('hex').slice(0, 8)
    const tag = `${source.reference.replaceAll(/[^\w.-]/g, '-').slice(-100)}-${turn}`
    const reference = `${new URL(registry.url).host}/benchmark:${tag}`
    const layout = source.kind === 'layout' ? source.layout : join(folder, 'layout')
    if (source.kind === 'generated') {
      const { sizeBytes, layers, sharedLayers } = source
      const seed = `${salt}/${source.reference}`
      await writeBenchmarkImage(layout, { name: reference, sizeBytes, layers, seed, sharedLayers, sharedSeed: salt })
    }
    const image = await readLayoutImage(layout)
    await registry.place(layout, { target: { digest: image.target, mediaType: '', size: 0 } }, 'benchmark', tag)
    if (source.kind === 'generated') await rm(layout, { recursive: true })
    return { ...image, reference }
  }

  #opened(): Bed {
    if (this.#bed === undefined) throw new UserError('the local target is not open')
    return this.#bed
  }
}
