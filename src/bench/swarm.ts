/** The index: how fast keys are found in a larger swarm, and how fast a node's keys are known to the others. */
import { setTimeout as sleep } from 'node:timers/promises'
import { writeBlobs, startDaemons, waitForRecords } from './swarm-of-daemons.ts'
import type { Benchmark, BenchmarkOptions } from './benchmark.ts'
import { type BenchmarkOutput, type Figure, quantileFigures } from './result.ts'
import { alternate } from './rounds.ts'
import { SwarmMembers } from './swarm-members.ts'
import { Workplace } from './workplace.ts'

const large = { routers: 40, processes: 4, peersAtLeast: 30 }
const small = 8
const announcedKeys = 1_000
/** Plenty for one key each. */
const announceSeconds = 5
const blobsAtStart = 10_000

export const swarm: Benchmark = {
  name: 'swarm',
  summary: `look-ups among ${large.routers} routers, ${announcedKeys} keys to ${small - 1} peers, ${blobsAtStart} blobs at start`,
  run: runSwarm,
}

async function runSwarm(options: BenchmarkOptions): Promise<BenchmarkOutput> {
  const found = await lookUps(options)
  const announced = await announcements(options)
  const started = await fullStore(options)
  const seconds = (name: string, samples: number[], atMost: number): Figure => ({
    name,
    unit: 's',
    samples,
    target: { atMost },
  })
  return {
    method: `look-up: ${large.routers} routers in ${large.processes} processes, each has a key, each looks for all others' keys, one after the other. Keys: 1 router tells ${small - 1} others in processes of their own. Blobs: from the start of a daemon's process with ${blobsAtStart} blobs until ${small - 1} other daemons hold all its records.`,
    figures: [
      ...quantileFigures(
        `look-up among ${large.routers}`,
        found.values.map(({ ours }) => ours.times),
        { p50: undefined, p95: undefined, p99: undefined },
      ),
      {
        name: `keys not found among ${large.routers}`,
        unit: '',
        samples: found.values.map(({ ours }) => ours.missing),
        target: { atMost: 0 },
      },
      seconds(
        `${announcedKeys} keys to ${small - 1} peers`,
        announced.values.map(({ ours }) => ours.seconds),
        1,
      ),
      {
        name: `${announcedKeys} keys to ${small - 1} peers, CPU of all`,
        unit: 's',
        samples: announced.values.map(({ ours }) => ours.cpu),
      },
      seconds(
        `${blobsAtStart} blobs at start to ${small - 1} peers`,
        started.values.map(({ ours }) => ours.seconds),
        15,
      ),
      {
        name: `${blobsAtStart} blobs at start to ${small - 1} peers, CPU of the starting node`,
        unit: 's',
        samples: started.values.map(({ ours }) => ours.cpu),
      },
    ],
    conditions: [found, announced, started].flatMap(({ conditions }) => conditions),
    raw: { lookUps: found.values, announcements: announced.values, fullStore: started.values },
  }
}

async function lookUps({ rounds, say }: BenchmarkOptions) {
  const workplace = await Workplace.create(say)
  const { routers, processes, peersAtLeast } = large
  const members = await SwarmMembers.start(workplace, routers, processes, peersAtLeast)
  try {
    let round = 0
    return await alternate(
      `look-ups among ${routers}`,
      rounds,
      {
        ours: async () => {
          round += 1
          // New keys each round: what was looked up before is remembered for some seconds.
          const keys = members.ips.map((ip) => `reg.test/${ip}:round-${round}`)
          await members.all((ip, index) => ({ command: 'advertise', ip, keys: keys.slice(index, index + 1) }))
          await sleep(announceSeconds * 1000)
          const times: number[] = []
          for (const [index, ip] of members.ips.entries()) {
            const others = keys.filter((_, number) => number !== index)
            times.push(...(await members.send({ command: 'lookup', ip, keys: others })).times)
          }
          const known = times.filter((time) => time >= 0)
          return { times: known, missing: times.length - known.length }
        },
      },
      say,
    )
  } finally {
    await members.close()
    await workplace.close()
  }
}

async function announcements({ rounds, say }: BenchmarkOptions) {
  const workplace = await Workplace.create(say)
  const members = await SwarmMembers.start(workplace, small, small, small - 1)
  try {
    let round = 0
    return await alternate(
      `${announcedKeys} keys to ${small - 1} peers`,
      rounds,
      {
        ours: async () => {
          round += 1
          const keys = Array.from({ length: announcedKeys }, (_, number) => `reg.test/app-${number}:round-${round}`)
          const [sender = '', ...receivers] = members.ips
          const cpuBefore = members.cpuSeconds()
          const startedMs = performance.timeOrigin + performance.now()
          await members.send({ command: 'advertise', ip: sender, keys })
          const answers = await Promise.all(
            receivers.map((ip) => members.send({ command: 'wait', ip, peers: 0, records: round * announcedKeys })),
          )
          const seconds = (Math.max(...answers.map(({ atMs }) => atMs)) - startedMs) / 1000
          return { seconds, cpu: members.cpuSeconds() - cpuBefore }
        },
      },
      say,
    )
  } finally {
    await members.close()
    await workplace.close()
  }
}

async function fullStore({ rounds, seed, say }: BenchmarkOptions) {
  const workplace = await Workplace.create(say)
  try {
    const full = await workplace.newFolder()
    await writeBlobs(full, seed, blobsAtStart, 64)
    const empty: string[] = []
    for (let number = 1; number < small; number++) empty.push(await workplace.newFolder())
    return await alternate(
      `${blobsAtStart} blobs at start`,
      rounds,
      {
        ours: async () => {
          // New receivers each round: old records would count.
          const receivers = await startDaemons(workplace, empty)
          const startedMs = performance.now()
          const newcomer = await workplace.startDaemon({
            ip: workplace.address(small),
            layout: full,
            firstPeer: workplace.address(1),
          })
          try {
            await waitForRecords(
              receivers,
              receivers.map(() => blobsAtStart),
            )
            return { seconds: (performance.now() - startedMs) / 1000, cpu: newcomer.cpuSeconds() }
          } finally {
            await Promise.all([...receivers, newcomer].map((server) => workplace.stop(server)))
          }
        },
      },
      say,
    )
  } finally {
    await workplace.close()
  }
}
