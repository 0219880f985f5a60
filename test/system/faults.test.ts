/**
 * Pulls during which something breaks, played with real containerd. `ROUNDS=5 SEED=7 bin/run vitest run --project system
 * faults` plays each fault five times, at moments that the seed decides; one round is the default. Ends with a table of
 * what each cost.
 */
import { open } from 'node:fs/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ContainerdNode } from '../../src/testbed/containerd-node.ts'
import {
  FaultBed,
  type Published,
  type Pulled,
  type PullerName,
  blobFile,
  frozen,
  layerBytes,
  layerOf,
  mendedAfter,
  metric,
} from '../support/fault-bed.ts'
import type { Lie } from '../support/liar-process.ts'
import { eventually } from '../support/daemons.ts'
import { Liars } from '../support/liars.ts'
import { Protocol } from '../support/fault-protocol.ts'

const rounds = Number(process.env['ROUNDS'] ?? 1)
const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e9))
/** What a fault may cost at most: the time in which a stall is noticed, and some seconds for the rest. */
const lostMsMax = 15_000
const lieBytes = 4 * 1024 * 1024
/** Went on in the same response. With parallel fetch all parts may be on their way, or in buffers, when the fault comes. */
const resumed = 'spegel_mirror_resumes_total{outcome="resumed"}'
const wrongBlobs = 'spegel_wrong_blobs_total'

interface MidBlobFault {
  name: string
  /** To the holder that is sending the blob. */
  strike: (serving: ContainerdNode) => Promise<void>
  /** Makes the holder whole again. */
  heal: (serving: ContainerdNode) => Promise<unknown>
  /** The mirror has to go on at the other holder. */
  breaks: boolean
  pullers: PullerName[]
}

const protocol = new Protocol()
let bed: FaultBed
/** On both holders, throughout. */
let main: Published

beforeAll(async () => {
  process.stderr.write(`faults: SEED=${seed} ROUNDS=${rounds}\n`)
  bed = await FaultBed.create(seed)
  main = await bed.publish(layerBytes)
  await bed.give(main, bed.holders)
  for (const name of ['plain', 'parallel'] as const) {
    for (let count = 0; count < Math.max(2, rounds); count++) {
      const pulled = await bed.pull(bed.pullers[name], main)
      if (pulled.error !== undefined) throw new Error(pulled.error)
      protocol.noteUndisturbed(name, pulled.ms)
      await bed.remove(bed.pullers[name], main)
    }
  }
})
afterAll(async () => {
  process.stderr.write(protocol.table())
  await bed.close()
})
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(`${await bed.cluster.complaints()}\n`)
})

const midBlobFaults: MidBlobFault[] = [
  {
    name: 'its mirror is killed',
    strike: (serving) => serving.stopDaemon('SIGKILL'),
    heal: (serving) => bed.restart(serving),
    breaks: true,
    pullers: ['plain', 'parallel'],
  },
  {
    name: 'its mirror is frozen',
    strike: (serving) => Promise.resolve(void serving.daemon.kill('SIGSTOP')),
    heal: (serving) => Promise.resolve(serving.daemon.kill('SIGCONT')),
    breaks: true,
    pullers: ['plain', 'parallel'],
  },
  {
    name: 'its cable is unplugged',
    strike: (serving) => serving.host.setCable(false),
    heal: (serving) => serving.host.setCable(true),
    breaks: true,
    pullers: ['plain', 'parallel'],
  },
  {
    name: 'its containerd is killed and started',
    strike: (serving) => serving.stopContainerd('SIGKILL'),
    heal: (serving) => serving.startContainerd(),
    breaks: false,
    pullers: ['plain'],
  },
  {
    name: 'the blob is removed there',
    strike: async (serving) =>
      void (await serving.ctr(bed.cluster.tools.ctr, ['content', 'rm', layerOf(main.image).digest])),
    heal: async (serving) => {
      await serving.cri.remove(main.reference)
      await serving.cri.pull(main.reference, 60_000)
    },
    breaks: false,
    pullers: ['plain'],
  },
  {
    name: 'the image is removed there, and its content collected',
    strike: (serving) => serving.cri.remove(main.reference),
    heal: (serving) => serving.cri.pull(main.reference, 60_000),
    breaks: false,
    pullers: ['plain'],
  },
]

/**
 * Parts that are fetched side by side are ahead of what is written, and a sender that is killed leaves up to 4 MiB of each
 * to the kernel, which arrive all the same: of 50 MiB killed at 53 % nothing was missed.
 */
function momentFor(puller: PullerName): number {
  return puller === 'parallel' ? bed.moment(0.1, 0.3) : bed.moment()
}

const roundNumbers = Array.from({ length: rounds }, (_, index) => index + 1)

// What breaks a pull once in twenty breaks pulls: no second try.
describe.each(roundNumbers)('faults, round %i', { retry: 0 }, (round) => {
  // What earlier rounds taught the mirrors about their peers is forgotten.
  beforeAll(async () => {
    if (round > 1) await Promise.all(Object.values(bed.pullers).map((puller) => bed.restartAnew(puller)))
  })

  beforeEach(() => Promise.all(Object.values(bed.pullers).map((node) => bed.remove(node, main))))

  const cases = midBlobFaults.flatMap(({ pullers, ...fault }) => pullers.map((puller) => ({ ...fault, puller })))
  it.each(cases)('holder in mid-blob: $name ($puller fetch)', async ({ name, strike, heal, breaks, puller }) => {
    const node = bed.pullers[puller]
    const resumedBefore = await metric(node, resumed)
    const part = momentFor(puller)
    let struck: ContainerdNode | undefined
    let pulled: Pulled
    try {
      pulled = await bed.pullWith(node, main, part, async (serving) => {
        struck = serving
        await strike(serving)
      })
    } finally {
      if (struck !== undefined) await heal(struck)
    }
    const lostMs = protocol.note(`holder in mid-blob: ${name}`, puller, pulled, part)
    expect(pulled).toMatchObject({ error: undefined, upstreamPaths: [] })
    expect(lostMs).toBeLessThan(lostMsMax)
    if (breaks && puller === 'plain') expect(await metric(node, resumed)).toBeGreaterThan(resumedBefore)
    await struck?.waitReady()
  })

  it('a holder is frozen before the pull', async () => {
    const [first, second] = bed.holders
    const pulled = await frozen([(bed.random() < 0.5 ? first : second).daemon], () =>
      bed.pull(bed.pullers.plain, main),
    )
    const lostMs = protocol.note('holder frozen before the pull', 'plain', pulled)
    expect(pulled).toMatchObject({ error: undefined, upstreamPaths: [] })
    expect(lostMs).toBeLessThan(lostMsMax)
  })

  it('a holder is unplugged before the pull', async () => {
    const { host } = bed.holders[bed.random() < 0.5 ? 0 : 1]
    await host.setCable(false)
    const pulled = await mendedAfter(bed.pull(bed.pullers.plain, main), () => host.setCable(true))
    const lostMs = protocol.note('holder unplugged before the pull', 'plain', pulled)
    expect(pulled).toMatchObject({ error: undefined, upstreamPaths: [] })
    expect(lostMs).toBeLessThan(lostMsMax)
  })

  it('both holders are killed in mid-blob, one after the other: upstream gives the rest', async () => {
    const node = bed.pullers.plain
    const [part, later] = [bed.moment(0.1, 0.3), bed.moment(0.5, 0.7)]
    const pull = bed.pullWith(node, main, part, async (serving) => {
      await serving.stopDaemon('SIGKILL')
      await bed.received(node, main, later)
      await Promise.all(bed.holders.map((holder) => holder.stopDaemon('SIGKILL')))
    })
    const pulled = await mendedAfter(pull, () => Promise.all(bed.holders.map((holder) => bed.restart(holder))))
    const lostMs = protocol.note('both holders killed in mid-blob', 'plain', pulled, later)
    expectRestFromUpstream(pulled, later)
    expect(lostMs).toBeLessThan(lostMsMax)
  })

  it('its own mirror is killed in mid-blob: upstream gives the rest', async () => {
    const node = bed.pullers.plain
    const part = bed.moment()
    const pull = bed.pullWith(node, main, part, () => node.stopDaemon('SIGKILL'))
    const pulled = await mendedAfter(pull, () => bed.restart(node))
    const lostMs = protocol.note('own mirror killed in mid-blob', 'plain', pulled, part)
    expectRestFromUpstream(pulled, part)
    expect(lostMs).toBeLessThan(lostMsMax)
  })

  // containerd asks for the parts of a layer at one host only: what it loses there costs the pull, but not the next.
  it.each<[string, () => Promise<unknown>, () => Promise<unknown>]>([
    [
      'both holders are',
      () => Promise.all(bed.holders.map((holder) => holder.stopDaemon('SIGKILL'))),
      () => Promise.all(bed.holders.map((holder) => bed.restart(holder))),
    ],
    ['its own mirror is', () => bed.pullers.parallel.stopDaemon('SIGKILL'), () => bed.restart(bed.pullers.parallel)],
  ])('%s killed in mid-blob (parallel fetch): this pull or the next succeeds', async (name, strike, mend) => {
    const node = bed.pullers.parallel
    const part = momentFor('parallel')
    const pulls = async () => {
      const pulled = await bed.pullWith(node, main, part, async () => void (await strike()))
      protocol.note(`${name} killed in mid-blob`, 'parallel', pulled, part)
      if (pulled.error === undefined) return pulled
      await bed.forgotten(node, main)
      const next = await bed.pull(node, main)
      protocol.note(`${name} killed in mid-blob, next pull`, 'parallel', next)
      return next
    }
    const pulled = await mendedAfter(pulls(), mend)
    // Whether upstream gives anything depends on how many parts were here by then.
    expect(pulled.error).toBeUndefined()
  })

  it('its own containerd is killed in mid-blob: the mirror lives on, and the next pull goes through it', async () => {
    const node = bed.pullers.plain
    const { pid } = node.daemon
    const part = bed.moment()
    const broken = await bed.pullWith(node, main, part, () => node.stopContainerd('SIGKILL'))
    await node.startContainerd()
    expect(broken.error).toBeDefined()
    const pulled = await bed.pull(node, main)
    protocol.note('own containerd killed in mid-blob, next pull', 'plain', pulled, part)
    expect(pulled).toMatchObject({ error: undefined, upstreamPaths: [] })
    expect(node.daemon).toMatchObject({ pid, exitCode: null, signalCode: null })
    await bed.dropLeases(node)
  })

  it.each<PullerName>(['plain', 'parallel'])(
    'the only holder has wrong bytes (%s fetch): the second pull succeeds, through upstream',
    async (puller) => {
      const node = bed.pullers[puller]
      const published = await bed.publish(layerBytes / 5)
      await bed.give(published, [bed.holders[0]])
      await corrupt(bed.holders[0], layerOf(published.image).digest)
      const wrongBefore = await metric(node, wrongBlobs)
      const first = await bed.pull(node, published)
      protocol.note('only holder wrong, first pull', puller, first)
      expect(first.error).toMatch(/unexpected commit digest|failed commit|mismatch/i)
      await bed.forgotten(node, published)
      const second = await bed.pull(node, published)
      protocol.note('only holder wrong, second pull', puller, second)
      expect(second.error).toBeUndefined()
      expect(second.upstreamPaths).toContain(`/v2/${published.repository}/blobs/${layerOf(published.image).digest}`)
      expect(await metric(node, wrongBlobs)).toBe(wrongBefore + 1)
    },
  )

  it.each<PullerName>(['plain', 'parallel'])(
    'one of two holders has wrong bytes (%s fetch): the second pull succeeds',
    async (puller) => {
      const node = bed.pullers[puller]
      const [wrong, good] = bed.holders.toReversed() as [ContainerdNode, ContainerdNode]
      const published = await bed.publish(layerBytes / 5)
      await bed.give(published, bed.holders)
      await corrupt(wrong, layerOf(published.image).digest)
      // So that the wrong one is asked first.
      const release = await bed.occupy(good, published)
      const first = await mendedAfter(bed.pull(node, published), release)
      protocol.note('one of two holders wrong, first pull', puller, first)
      expect(first.error).toMatch(/unexpected commit digest|failed commit|mismatch/i)
      await bed.forgotten(node, published)
      const second = await bed.pull(node, published)
      protocol.note('one of two holders wrong, second pull', puller, second)
      expect(second.error).toBeUndefined()
      // The wrong layer is not mirrored, although the other holder has the right bytes.
      const layerPath = `/v2/${published.repository}/blobs/${layerOf(published.image).digest}`
      expect(new Set(second.upstreamPaths)).toEqual(new Set([layerPath]))
    },
  )
})

describe.each(roundNumbers)('holders that lie, round %i', { retry: 0 }, () => {
  const names: readonly Lie[] = [
    'answers 500',
    'answers 429',
    'answers nonsense',
    'sends endless headers',
    'never answers',
    'has manifests that are no manifests',
    'breaks off after 1,000 bytes each time',
    'sends other ranges than asked',
    'sends a byte per second',
    'says that the blob is shorter',
  ]
  /** Also on an honest holder. */
  const shared = new Map<Lie, Published>()
  const lonely = new Map<Lie, Published>()
  let liars: Liars
  let release: () => Promise<void>

  beforeAll(async () => {
    await bed.restartAnew(bed.pullers.plain)
    const [honest] = bed.holders
    const images = new Map<Lie, readonly Published[]>()
    for (const lie of names) {
      const both = [await bed.publish(lieBytes), await bed.publish(lieBytes)] as const
      images.set(lie, both)
      shared.set(lie, both[0])
      lonely.set(lie, both[1])
    }
    await bed.announced(2 * shared.size + lonely.size, async () => {
      await Promise.all([...shared.values()].map(({ reference }) => honest.cri.pull(reference, 120_000)))
      liars = await Liars.start(bed, images)
    })
    // So that liars are asked before it.
    release = await bed.occupy(honest, main)
  })
  afterAll(async () => {
    await release()
    await liars.close()
  })

  // Several at once: each waits for its own peer, and what is learned about one says nothing about the others.
  it.concurrent.each(names)(
    'one %s: beside an honest one nothing comes from upstream, alone upstream serves',
    async (lie) => {
      const [beside, alone] = [known(shared, lie), known(lonely, lie)]
      const asked = ({ repository }: Published) =>
        (liars.asked.get(lie) ?? []).filter((what) => what.includes(`/${repository}/`))
      expect(await pullPast(lie, beside, 'another is honest')).toMatchObject({ error: undefined, upstreamPaths: [] })
      // Told by another process, perhaps a moment later.
      await eventually(() => expect(asked(beside)).not.toEqual([]))
      const pulled = await pullPast(lie, alone, 'no other')
      expect(pulled.error).toBeUndefined()
      expect(pulled.upstreamPaths).toContain(`/v2/${alone.repository}/blobs/${layerOf(alone.image).digest}`)
      await eventually(() => expect(asked(alone)).not.toEqual([]))
    },
  )

  async function pullPast(lie: Lie, published: Published, others: string): Promise<Pulled> {
    const pulled = await bed.pull(bed.pullers.plain, published)
    protocol.note(`a holder ${lie}, ${others}`, 'plain', pulled)
    return pulled
  }
})

function known(images: ReadonlyMap<Lie, Published>, lie: Lie): Published {
  const published = images.get(lie)
  if (published === undefined) throw new Error(`no image for ${lie}`)
  return published
}

/** More than nothing, and less than what came before the fault. */
function expectRestFromUpstream(pulled: Pulled, part: number): void {
  expect(pulled.error).toBeUndefined()
  expect(pulled.upstreamBytes).toBeGreaterThan(0)
  expect(pulled.upstreamBytes).toBeLessThanOrEqual(layerOf(main.image).size * (1 - part))
}

/** Other bytes, of the same number, in the first part of a blob: the one that is asked for first. */
async function corrupt(node: ContainerdNode, digest: string): Promise<void> {
  const file = await open(blobFile(node, digest), 'r+')
  await file.write(Buffer.alloc(100), 0, 100, 1024 * 1024)
  await file.close()
}
