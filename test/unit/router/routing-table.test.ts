import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PeerId } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { beforeEach, describe, expect, it } from 'vitest'
import { deadPeerMs, suspectPeerMs } from '../../../src/limits.ts'
import { kadId } from '../../../src/router/content-cid.ts'
import { RoutingTable, type TablePeer } from '../../../src/router/routing-table.ts'
import { ManualClock } from '../../support/manual-clock.ts'

/** DOUBLE of kad-dht's table: a list. */
class ListTable {
  readonly entries: { peerId: PeerId; kadId: Uint8Array }[] = []
  readonly kb = { toIterable: () => this.entries }
  readonly #listeners: (() => void)[] = []

  async add(peerId: PeerId): Promise<void> {
    this.entries.push({ peerId, kadId: kadId(peerId.toMultihash().bytes) })
    await this.#tell()
  }

  async remove(peerId: PeerId): Promise<void> {
    this.entries.splice(
      this.entries.findIndex((entry) => entry.peerId.equals(peerId)),
      1,
    )
    await this.#tell()
  }

  addEventListener(_event: string, listener: () => void): void {
    this.#listeners.push(listener)
  }

  async #tell(): Promise<void> {
    for (const listener of new Set(this.#listeners)) listener()
    await Promise.resolve()
  }
}

describe('a routing table', () => {
  let clock: ManualClock
  let table: RoutingTable
  let connected: boolean
  let peers: TablePeer[]
  let came: string[]
  const here = kadId(new Uint8Array(32))

  beforeEach(async () => {
    clock = new ManualClock()
    connected = true
    came = []
    const list = new ListTable()
    table = new RoutingTable(list, here, () => connected, clock)
    for (let count = 0; count < 3; count++) await list.add(peerIdFromPrivateKey(await generateKeyPair('Ed25519')))
    peers = table.closest(here)
    table.onAdd(({ id }) => came.push(id))
  })

  const [asked, holding] = [
    () => table.closestToAsk(here).map(({ id }) => id),
    () => table.closest(here).map(({ id }) => id),
  ]
  const fail = (at: number) => table.noteFailure(peers[at] ?? expect.unreachable())
  const ids = (...at: number[]) => at.map((index) => peers[index]?.id)

  it('spares a peer for a moment that is silent once, though it still holds records', async () => {
    await fail(0)
    expect(asked()).toEqual(ids(1, 2))
    expect(holding()).toEqual(ids(0, 1, 2))
    clock.advance(suspectPeerMs)
    expect(asked()).toEqual(ids(0, 1, 2))
  })

  it('takes a peer for dead that is silent again, and welcomes it back', async () => {
    await fail(0)
    clock.advance(suspectPeerMs)
    await fail(0)
    expect(holding()).toEqual(ids(1, 2))
    clock.advance(deadPeerMs)
    expect(holding()).toEqual(ids(0, 1, 2))
    expect(came).toEqual(ids(0))
  })

  it('forgives a peer that answered in between', async () => {
    await fail(0)
    table.noteAnswer(peers[0]?.id ?? '')
    await fail(0)
    expect(holding()).toEqual(ids(0, 1, 2))
  })

  it('drops a peer without a connection', async () => {
    connected = false
    await fail(1)
    expect(new Set(table.peers.map(({ id }) => id))).toEqual(new Set(ids(0, 2)))
  })

  it('asks all rather than nobody: when everybody is silent, it may be this node that stood still', async () => {
    for (const at of [0, 1, 2]) await fail(at)
    expect(asked()).toEqual(ids(0, 1, 2))
    for (const at of [0, 1, 2]) await fail(at)
    expect(asked()).toEqual(ids(0, 1, 2))
    expect(table.size).toBe(3)
  })

  it('takes a known peer that connects anew for one that was started again', () => {
    const [known] = peers
    table.noteConnection(known?.id ?? '')
    table.noteConnection('somebody else')
    expect(came).toEqual([known?.id])
  })
})
