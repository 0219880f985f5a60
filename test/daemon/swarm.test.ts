import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { Swarm } from '../support/swarm.ts'
import { eventually } from '../support/daemons.ts'

const size = 24
const processes = 4
const contentsPerDaemon = 6
/** As the requirement says: a node that joined this long ago finds everything. */
const joinedMs = 2_000

const ipOf = (number: number) => `127.90.0.${number}`
const contentsOf = (number: number) =>
  Array.from({ length: contentsPerDaemon }, (_, index) => `blob ${number}/${index}`)
const firstPeer = `${ipOf(1)}:5001`

/** Asks one daemon for what another has, as containerd would. */
async function finds(asker: number, holder: number): Promise<string[]> {
  const missing: string[] = []
  for (const content of contentsOf(holder)) {
    const url = `http://${ipOf(asker)}:5000/v2/x/blobs/${digestOf(Buffer.from(content))}`
    const response = await fetch(url)
    if (response.status !== 200 || (await response.text()) !== content)
      missing.push(`${asker} asked for "${content}"`)
  }
  return missing
}

async function knownPeers(number: number): Promise<number> {
  const metrics = await (await fetch(`http://${ipOf(number)}:9090/metrics`)).text()
  return Number(/^spegel_dht_peers (\d+)$/m.exec(metrics)?.[1])
}

describe(`a swarm of ${size} daemons in ${processes} processes`, () => {
  const swarm = new Swarm(processes)

  beforeAll(async () => {
    const numbers = Array.from({ length: size }, (_, index) => index + 1)
    await Promise.all(numbers.map((number) => swarm.start(ipOf(number), firstPeer, contentsOf(number))))
  }, 120_000)
  afterAll(() => swarm.close())

  it('finds every key that any of them has, from each of them', async () => {
    // All start at once: on two cores it takes some seconds until everybody has heard of everybody.
    for (let number = 1; number <= size; number++) {
      await eventually(async () => expect(await knownPeers(number)).toBeGreaterThanOrEqual(20), 60_000)
    }
    const pairs = Array.from({ length: size * size }, (_, index) => [
      Math.floor(index / size) + 1,
      (index % size) + 1,
    ])
    const missing: string[] = []
    await Promise.all(
      Array.from({ length: size }, async (_, lane) => {
        for (const [asker = 0, holder = 0] of pairs.slice(lane * size, (lane + 1) * size)) {
          missing.push(...(await finds(asker, holder)))
        }
      }),
    )
    expect(missing).toEqual([])
  }, 120_000)

  it('lets a node that joined 2 s ago find everything, and be found', async () => {
    const newcomer = size + 1
    await swarm.start(ipOf(newcomer), firstPeer, contentsOf(newcomer))
    await sleep(joinedMs)
    for (let holder = 1; holder <= size; holder++) expect(await finds(newcomer, holder)).toEqual([])
    for (const asker of [1, 7, 20]) expect(await finds(asker, newcomer)).toEqual([])
  })

  it('lets a node that came back without memory find everything, and be found', async () => {
    const number = 5
    await swarm.stop(ipOf(number))
    await swarm.start(ipOf(number), firstPeer, contentsOf(number))
    await sleep(joinedMs)
    for (let holder = 1; holder <= size; holder++) expect(await finds(number, holder)).toEqual([])
    for (const asker of [1, 7, 20]) expect(await finds(asker, number)).toEqual([])
  })

  it('forgets nodes that are gone, and finds what the others have', async () => {
    const gone = Array.from({ length: 10 }, (_, index) => size - index)
    const left = Array.from({ length: size - gone.length }, (_, index) => index + 1)
    await Promise.all(gone.map((number) => swarm.stop(ipOf(number))))
    for (const number of left) {
      // And the newcomer of before.
      await eventually(async () => expect(await knownPeers(number)).toBe(left.length), 60_000)
    }
    const missing = await Promise.all(
      left.map(async (asker) => (await Promise.all(left.map((holder) => finds(asker, holder)))).flat()),
    )
    expect(missing.flat()).toEqual([])
  }, 90_000)
})
