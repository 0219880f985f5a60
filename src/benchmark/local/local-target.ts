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
import { systemClock } from '../../lib/clock.ts'
import { textRandom } from '../../lib/random.ts'
import { arrivals, prepared } from '../scene/arrivals.ts'
import { faultyNode } from '../scene/faults.ts'
import type { Scene, ScenePhase } from '../scene/scene.ts'
import { ScriptedUpstream } from '../scene/scripted-upstream.ts'
import { startTimeline } from '../scene/timeline.ts'
import type { ImageSet, ImageSource, Measured, MirrorSpec, PhaseOrder, Target } from '../target.ts'
import { bedFolderPrefix, removeLeftoversOfBeds } from './down.ts'
import { writeHostsToml } from './hosts-toml.ts'
import { readLayoutImage } from './layout-image.ts'
import { MirrorFleet } from './mirrors.ts'
import type { Programs } from './programs.ts'
import { type ReadyImage, measurePhase } from './pull-phase.ts'

export interface LocalTargetInit {
  programs: Programs
  nodes: number
  /** As tc writes rates; undefined: not limited. */
  upstreamRate: string | undefined
  nodeRate: string | undefined
  /** TOML that each containerd reads beside its own; a path. */
  containerdConfig: string | undefined
  mirrors: readonly MirrorSpec[]
  /** What happens besides; it has as many images as the sets that are measured. */
  scene: Scene
  seed: string
  /** An existing folder for everything that nodes keep. */
  workFolder: string
  say: (line: string) => void
}

const hiddenRegistryPort = 5080
const holderTimeoutMs = 10 * 60_000
const holdersSettleMs = 2_000
const letterA = 97
const noNodes: NodeSet = { nodes: [], fleet: undefined }
const noLayer = { digest: '', size: 0 }

/** Each mirror has nodes of its own: what the others do with content must not cost time in its rounds. */
interface NodeSet {
  nodes: ContainerdNode[]
  fleet: MirrorFleet | undefined
}

interface Bed {
  folder: string
  sets: ReadonlyMap<string, NodeSet>
  upstreamHost: Host
  registry: RegistryProcess
  /** In front of the registry, in scenes where upstream misbehaves. */
  scripted: ScriptedUpstream | undefined
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
    await removeLeftoversOfBeds([this.#init.workFolder])
    const folder = await mkdtemp(bedFolderPrefix(this.#init.workFolder))
    this.#cleanUps.push(() => rm(folder, { recursive: true, force: true }))
    // A mirror may run as somebody else than root.
    await chmod(folder, 0o755)
    const network = await Network.create()
    this.#cleanUps.push(() => network.close())
    const upstreamHost = await network.addHost('upstream')
    if (upstreamRate !== undefined) await upstreamHost.setRate(upstreamRate)
    const nodesOf = new Map<string, ContainerdNode[]>()
    for (const [index, { name }] of mirrors.entries()) {
      nodesOf.set(name, await this.#addNodes(network, folder, String.fromCodePoint(letterA + index)))
    }
    const all = [...nodesOf.values()].flat()
    for (const { host } of all) {
      if (nodeRate !== undefined) await Promise.all([host.setRate(nodeRate), host.setInRate(nodeRate)])
    }
    signal.throwIfAborted()
    say('measuring the links')
    const links = await measureLinks(
      upstreamHost,
      all.slice(0, this.#init.nodes).map(({ host }) => host),
    )
    const isScripted = this.#init.scene.upstream.length > 0
    const registryFolder = join(folder, 'registry')
    const options = isScripted ? { port: hiddenRegistryPort } : {}
    const registry = new RegistryProcess(upstreamHost, programs.registry, registryFolder, options)
    this.#cleanUps.push(() => registry.stop())
    await registry.start()
    const scripted = isScripted ? await ScriptedUpstream.start(upstreamHost, registry.url, folder) : undefined
    if (scripted !== undefined) this.#cleanUps.push(() => scripted.stop())
    const upstreamUrl = (scripted ?? registry).url
    signal.throwIfAborted()
    for (const node of all) this.#cleanUps.push(() => node.remove())
    await Promise.all(all.map((node) => node.startContainerd()))
    const sets = new Map<string, NodeSet>()
    for (const { name, command } of mirrors) {
      const nodes = nodesOf.get(name) ?? []
      const fleet = command === undefined ? undefined : new MirrorFleet({ name, command }, nodes, upstreamUrl)
      sets.set(name, { nodes, fleet })
      await Promise.all(nodes.map((node) => writeHostsToml(node.certsFolder, upstreamUrl, fleet?.registryPort)))
      if (fleet === undefined) continue
      this.#cleanUps.push(() => fleet.close())
      say(`starting ${name} on ${nodes.length} nodes`)
      await fleet.ensureRunning(signal)
    }
    this.#bed = { folder, sets, upstreamHost, registry, scripted, links }
    const first = all.slice(0, this.#init.nodes)
    const versions = await Promise.all(first.map((node) => node.runtimeVersion()))
    return { links, nodes: versions.map((runtime, index) => ({ name: `n${index + 1}`, runtime })) }
  }

  async prepare(images: ImageSet, salt: string): Promise<void> {
    const ready = async (sources: readonly ImageSource[]) => {
      const done: ReadyImage[] = []
      for (const source of sources) done.push(await this.#place(source, salt))
      return done
    }
    this.#ready = { create: await ready(images.create), update: await ready(images.update) }
  }

  async measure({ mirror, phase, round, images: { name } }: PhaseOrder, signal: AbortSignal): Promise<Measured> {
    const { sets, upstreamHost, registry, scripted, links } = this.#opened()
    const { nodes, fleet } = sets.get(mirror.name) ?? noNodes
    const { scene, seed } = this.#init
    const scenePhase = scene.phases[phase]
    if (scenePhase === undefined) throw new Error(`the scene has no ${phase}`)
    const upstream = scripted ?? registry
    await fleet?.ensureRunning(signal)
    const images = this.#ready[phase]
    const setUp = { nodes: nodes.length, images: images.length }
    await giveHolders(scenePhase, nodes, images)
    const random = textRandom(`${seed} ${name} ${phase} ${round}`)
    const plan = arrivals(phase, scenePhase, setUp, random)
    // A pull cannot be called back: without containerd it ends.
    const abort = () => void Promise.all(nodes.map((node) => node.stopContainerd('SIGKILL')))
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await measurePhase({
        nodes,
        images,
        arrivals: plan,
        upstreamHost,
        requests: () => upstream.requests(),
        mirrorPid: (node) => fleet?.pid(node),
        mirrorLog: fleet === undefined ? undefined : (node) => fleet.logOf(node),
        links,
        startTimeline: () =>
          startTimeline({
            scene,
            phase,
            plan,
            firstLayers: images.map(({ blobs }) => blobs.find(({ isLayer }) => isLayer) ?? noLayer),
            nodes: nodes.map((node, index) => ({
              ...faultyNode(node, fleet && mirrorOf(fleet, node), this.#init.nodeRate),
              name: `n${index + 1}`,
            })),
            upstream: scripted,
            clock: systemClock,
            random,
          }),
        signal,
      })
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  async clear(): Promise<void> {
    const { sets, registry } = this.#opened()
    const nodes = [...sets.values()].flatMap((set) => set.nodes)
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

  async #addNodes(network: Network, folder: string, letter: string): Promise<ContainerdNode[]> {
    const nodes: ContainerdNode[] = []
    const { programs, containerdConfig } = this.#init
    const { containerds } = programs
    const imports = containerdConfig === undefined ? [] : [containerdConfig]
    for (let number = 1; number <= this.#init.nodes; number++) {
      const containerd = containerds[(number - 1) % containerds.length]
      if (containerd === undefined) throw new Error('there is no containerd')
      const name = `${letter}${number}`
      const host = await network.addHost(name)
      nodes.push(new ContainerdNode({ host, containerd, folder: join(folder, name), imports }))
    }
    return nodes
  }

  async #place(source: ImageSource, salt: string): Promise<ReadyImage> {
    if (source.kind === 'reference') throw new Error('the local target has a registry of its own')
    const { folder, registry, scripted } = this.#opened()
    // A tag of its own for every turn: a mirror that remembers tags must not give what it had before.
    const turn = createHash('sha256').update(salt).digest('hex').slice(0, 8)
    const tag = `${source.reference.replaceAll(/[^\w.-]/g, '-').slice(-100)}-${turn}`
    const reference = `${new URL((scripted ?? registry).url).host}/benchmark:${tag}`
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

function mirrorOf(fleet: MirrorFleet, node: ContainerdNode) {
  return { pid: () => fleet.pid(node), start: () => fleet.start(node) }
}

/** Nodes that have an image before the phase. */
async function giveHolders(
  phase: ScenePhase,
  nodes: readonly ContainerdNode[],
  images: readonly ReadyImage[],
): Promise<void> {
  const holdings = prepared(phase, { nodes: nodes.length, images: images.length })
  for (const { node, image } of holdings) {
    const reference = images[image - 1]?.reference ?? ''
    await nodes[node - 1]?.cri.pull(reference, holderTimeoutMs)
  }
  // How a mirror learns of it, and when it has told the others, is its own affair.
  if (holdings.length > 0) await systemClock.sleep(holdersSettleMs)
}
