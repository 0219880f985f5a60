/**
 * Nodes of a Kubernetes cluster: a DaemonSet of the first image on all of them at once, then its rolling update to the
 * second. What is installed as a mirror stays as it is, but for hosts.toml, which is switched off for rounds without it.
 */
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { V1DaemonSet } from '@kubernetes/client-node'
import { writeBenchmarkImage } from '../../images/benchmark-image.ts'
import { pushImage } from '../../images/push.ts'
import { UserError } from '../../lib/errors.ts'
import type { Phase, Result } from '../result/schema.ts'
import type { ImageSet, ImageSource, Measured, MirrorSpec, PhaseOrder, Target } from '../target.ts'
import type { KubernetesClient } from './client.ts'
import { type MirrorCounters, growth } from './counters.ts'
import { takeDown } from './down.ts'
import { EventLog } from './event-log.ts'
import { type InstalledMirror, mirrorNodes, mirrorPath, readCounters, refuseForeignSecrets } from './mirror.ts'
import { makeNamespace, refuseSecond } from './namespace.ts'
import { type LeftOutNode, type MeasuredNode, type NodeObject, chooseNodes } from './nodes.ts'
import {
  type AgentPlan,
  type AgentState,
  agentDaemonSet,
  rolloutDaemonSet,
  rolloutName,
  updatePercent,
} from './objects.ts'
import { type Pulls, nodeOf, pullsOf, tellsEnd } from './pull-events.ts'
import { apply, cannotStart, removeDaemonSet, untilRolledOut } from './workloads.ts'

const GiB = 1024 ** 3
const nsPerMs = 1e6
const agentTimeoutMs = 10 * 60_000
/** As the Go tool. */
const rolloutTimeoutMs = 30 * 60_000
/** A pod may run before the event of its pull has arrived. */
const eventTimeoutMs = 10_000
/** Nodes without a mirror get everything from upstream. */
const noMirror: MirrorCounters = { toContainerdBytes: 0, toPeersBytes: undefined, cpuSeconds: undefined }

export interface KubernetesTargetInit {
  client: KubernetesClient
  namespace: string
  /** What is installed; undefined: nothing that we know. */
  installed: InstalledMirror | undefined
  mirrors: readonly MirrorSpec[]
  /** Where images that are made anew for every round are pushed; `env` says who we are there. */
  push: { repository: string; env: Readonly<Record<string, string | undefined>> } | undefined
  agentImage: string
  containerdSock: string
  nodes: readonly MeasuredNode[]
  say: (line: string) => void
}

export class KubernetesTarget implements Target {
  readonly kind = 'kubernetes'
  readonly #init: KubernetesTargetInit
  readonly #plan: Omit<AgentPlan, 'images'>
  readonly #closed = new AbortController()
  #isOpen = false
  #events: EventLog | undefined
  #images: Record<PhaseOrder['phase'], string> = { create: '', update: '' }
  /** Of the turn before. */
  #imagesBefore: readonly string[] = []

  constructor(init: KubernetesTargetInit) {
    const { agentImage, nodes, containerdSock, installed, mirrors } = init
    this.#init = init
    const isSwitched = installed !== undefined && mirrors.some(({ name }) => name === 'none')
    this.#plan = {
      image: agentImage,
      hostnames: nodes.map(({ hostname }) => hostname),
      containerdSock,
      mirror: isSwitched ? mirrorPath(installed) : undefined,
    }
  }

  async open(signal: AbortSignal): Promise<{ links: undefined; nodes: Result['set']['nodes'] }> {
    const { client, namespace, nodes, installed, say } = this.#init
    if (installed !== undefined && this.#plan.mirror !== undefined) refuseForeignSecrets(installed, namespace)
    await refuseSecond(client, namespace, signal)
    // From here on there is something to take down.
    this.#isOpen = true
    await makeNamespace(client, namespace, say, signal)
    this.#events = await EventLog.open(client, namespace, say, this.#closed.signal)
    return {
      links: undefined,
      nodes: nodes.map(({ name, runtime, instanceType, cpu, memory }) => ({
        name,
        runtime,
        ...(instanceType === undefined ? {} : { instanceType }),
        ...(cpu === undefined ? {} : { cpu }),
        ...(memory === undefined ? {} : { memory }),
      })),
    }
  }

  async prepare({ create, update }: ImageSet, salt: string): Promise<void> {
    const [first, second] = [create[0], update[0]]
    if (first === undefined || second === undefined) throw new Error('an image set without images')
    this.#imagesBefore = Object.values(this.#images).filter(Boolean)
    this.#images = { create: await this.#place(first, salt), update: await this.#place(second, salt) }
  }

  async measure({ mirror, phase }: PhaseOrder, signal: AbortSignal): Promise<Measured> {
    const { client, namespace, nodes, say } = this.#init
    if (phase === 'create') await this.#prepareNodes(mirror, signal)
    const image = this.#images[phase]
    const events = this.#opened()
    const before = await this.#counters()
    const isOff = mirror.command === undefined
    const seenBefore = events.count
    say(`${phase}: ${image} with ${mirror.name}`)
    const changedMs = Date.now()
    const rollout = rolloutDaemonSet(namespace, image, this.#plan.hostnames)
    const applied = await apply(client, rollout)
    const { atMs } = await untilRolledOut(client, applied, { timeoutMs: rolloutTimeoutMs, signal })
    await events.until(
      () => nodes.every(({ name }) => hasEnded(events.since(seenBefore), name, image)),
      eventTimeoutMs,
    )
    const names = nodes.map(({ name }) => name)
    const waveSize = phase === 'create' ? names.length : waveSizeOf(names.length)
    const pulls = pullsOf(image, names, events.since(seenBefore))
    const after = await this.#counters()
    const counted = growth(before, after)
    const given = isOff ? (counted.toContainerdBytes ?? 0) : 0
    const replaced = [...before.keys()].filter((uid) => !after.has(uid)).length
    return {
      phase: describePhase(
        { image, pulls, changedMs, rolledOutMs: atMs, waveSize },
        isOff ? { ...noMirror, toContainerdBytes: given } : counted,
      ),
      missed: [
        ...pulls.problems.map((problem) => `${phase}: ${problem}`),
        ...(given === 0 ? [] : [`${phase}: the mirror gave ${given} bytes, though it was off`]),
        ...(replaced === 0 ? [] : [`${phase}: ${replaced} pods of the mirror were replaced`]),
      ],
    }
  }

  /** The agents of the next turn remove the images. */
  async clear(): Promise<void> {
    await removeDaemonSet(this.#init.client, this.#init.namespace, rolloutName)
  }

  async close(): Promise<void> {
    const { client, namespace, say } = this.#init
    this.#closed.abort()
    if (!this.#isOpen) return
    this.#isOpen = false
    for (const line of await takeDown(client, namespace)) say(line)
  }

  /** No node has an image of the measurement; hosts.toml is as the mirror's turn wants it. */
  async #prepareNodes({ name }: MirrorSpec, signal: AbortSignal): Promise<void> {
    const { client, namespace, installed, say } = this.#init
    const isOff = name === 'none'
    const hosts: AgentState['hosts'] =
      this.#plan.mirror === undefined || installed === undefined
        ? 'untouched'
        : isOff
          ? { off: installed.writer }
          : { on: installed.writer }
    const images = [...new Set([...this.#imagesBefore, ...Object.values(this.#images)])]
    const object = agentDaemonSet(namespace, { ...this.#plan, images }, { turn: crypto.randomUUID(), hosts })
    const applied: V1DaemonSet = await apply(client, object)
    const { pods } = await untilRolledOut(client, applied, {
      timeoutMs: agentTimeoutMs,
      signal,
      isHopeless: cannotStart,
    })
    const state = hosts === 'untouched' ? '' : `, and hosts.toml is ${isOff ? 'without' : 'with'} the mirror`
    say(`images are cleared on ${pods} nodes${state}`)
  }

  /** A reference that pods can pull. */
  async #place(source: ImageSource, salt: string): Promise<string> {
    if (source.kind === 'reference') return source.reference
    const { push, say } = this.#init
    if (source.kind === 'layout' || push === undefined) throw new Error('nowhere to push an image')
    // A tag of its own for every turn: neither mirrors nor what lies before the registry can know it.
    const turn = createHash('sha256').update(salt).digest('hex').slice(0, 8)
    const url = `${push.repository}:${source.reference}-${turn}`
    const reference = url.replace(/^https?:\/\//, '')
    const layout = await mkdtemp(join(tmpdir(), 'spegel-ts-push-'))
    try {
      const { sizeBytes, layers, sharedLayers } = source
      const seed = `${salt}/${source.reference}`
      const image = await writeBenchmarkImage(layout, { name: reference, sizeBytes, layers, seed, sharedLayers })
      await pushImage({ layout, image, url, env: push.env })
    } finally {
      await rm(layout, { recursive: true })
    }
    say(`pushed ${reference}`)
    return reference
  }

  async #counters(): Promise<Map<string, MirrorCounters>> {
    const { client, installed } = this.#init
    return installed === undefined ? new Map() : readCounters(client, installed)
  }

  #opened(): EventLog {
    if (this.#events === undefined) throw new Error('the cluster is not open')
    return this.#events
  }
}

export function waveSizeOf(nodes: number): number {
  return Math.ceil((nodes * updatePercent) / 100)
}

/** The nodes that can be measured. Throws a UserError when there are none. */
export async function readNodes(
  client: KubernetesClient,
  installed: InstalledMirror | undefined,
): Promise<{ nodes: MeasuredNode[]; leftOut: LeftOutNode[] }> {
  const { items } = await client.ask<{ items: NodeObject[] }>({ path: '/api/v1/nodes' })
  const { nodes, leftOut } = chooseNodes(items)
  const mirrored = installed === undefined ? undefined : await mirrorNodes(client, installed)
  const without = nodes.filter(({ name }) => mirrored?.has(name) === false)
  const left = [...leftOut, ...without.map(({ name }) => ({ name, why: 'no mirror is ready on it' }))]
  const measured = nodes.filter((node) => !without.includes(node))
  if (measured.length === 0) {
    throw new UserError(
      `no node can be measured: ${left.map(({ name, why }) => `${name}: ${why}`).join('; ') || 'the cluster has none'}`,
    )
  }
  return { nodes: measured, leftOut: left }
}

function hasEnded(events: ReturnType<EventLog['since']>, node: string, image: string): boolean {
  return events.some(({ event }) => nodeOf(event) === node && tellsEnd(event, image))
}

/** Pure. `mirror`: what the mirrors did meanwhile. */
export function describePhase(
  {
    image,
    pulls: { pulls, imageBytes = 0, remarks },
    changedMs,
    rolledOutMs,
    waveSize,
  }: { image: string; pulls: Pulls; changedMs: number; rolledOutMs: number; waveSize: number },
  { toContainerdBytes, toPeersBytes, cpuSeconds }: MirrorCounters,
): Phase {
  const startedMs = Math.min(...pulls.map((pull) => pull.startedMs), pulls.length === 0 ? changedMs : Infinity)
  const endedMs = Math.max(...pulls.map((pull) => pull.startedMs + pull.durationMs), startedMs)
  const deliveredBytes = pulls.filter(({ error }) => error === undefined).length * imageBytes
  // What the nodes have now, and no mirror gave them.
  const isKnown = imageBytes > 0 && toContainerdBytes !== undefined
  return {
    started: new Date(startedMs).toISOString(),
    duration: ns(endedMs - startedMs),
    rollout: ns(rolledOutMs - changedMs),
    pulls: pulls.map(({ node, startedMs: ownMs, durationMs, error }, index) => ({
      node,
      wave: 1 + Math.floor(index / waveSize),
      image,
      started: ns(ownMs - startedMs),
      duration: ns(durationMs),
      ...(error === undefined ? {} : { error }),
      blobs: [],
    })),
    imageBytes,
    upstream: isKnown ? { blobBytes: Math.max(0, Math.round(deliveredBytes - toContainerdBytes)) } : {},
    ...(toPeersBytes === undefined ? {} : { peerBytes: toPeersBytes }),
    ...(cpuSeconds === undefined
      ? {}
      : {
          mirror: {
            cpuSeconds,
            ...(deliveredBytes === 0 ? {} : { cpuSecondsPerGiB: cpuSeconds / (deliveredBytes / GiB) }),
            peakRssBytes: [],
          },
        }),
    ...(remarks.length === 0 ? {} : { remarks }),
  }
}

function ns(durationMs: number): number {
  return Math.max(0, Math.round(durationMs * nsPerMs))
}
