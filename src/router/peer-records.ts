/**
 * Bounds what libp2p keeps of peers (addresses, protocols). A peer with a new identity costs an attacker nothing, and libp2p
 * keeps each one for a day. Each remote address has a share; records of peers that this node only heard of share one. When a
 * share is full, the record that was written first is dropped, and comes back with the peer's next connection.
 */
import { peerIdFromCID, peerIdFromString } from '@libp2p/peer-id'
import { base32 } from 'multiformats/bases/base32'
import { CID } from 'multiformats/cid'
import { parsed } from '../lib/foreign.ts'
import { peerRecordShares } from '../limits.ts'
import { FairShare, type SharedItem } from './fair-share.ts'

interface PeerRecord extends SharedItem<PeerRecord> {
  readonly name: string
}

export class PeerRecords {
  readonly #records = new Map<string, PeerRecord>()
  readonly #shares: FairShare<PeerRecord>
  #selfName: string | undefined

  /** `onEvict` is called with the name of each record that has to go. */
  constructor(onEvict: (name: string) => void) {
    this.#shares = new FairShare(peerRecordShares, ({ name }) => {
      this.#records.delete(name)
      onEvict(name)
    })
  }

  get count(): number {
    return this.#shares.count
  }

  /** Notes a record that was written. Its name is the CID of the peer id, as libp2p writes it. */
  note(name: string, size: number, ipOfPeer: (peerId: string) => string): void {
    this.remove(name)
    if (name === this.#selfName) return
    const peerId = parsed(() => peerIdFromCID(CID.parse(name, base32)).toString()) ?? ''
    const record: PeerRecord = { name, size, share: undefined, node: undefined }
    this.#records.set(name, record)
    this.#shares.add(record, ipOfPeer(peerId), peerId)
  }

  /** The record of this node itself is kept in any case. */
  setSelf(peerId: string): void {
    this.#selfName = parsed(() => peerIdFromString(peerId).toCID().toString(base32))
    if (this.#selfName !== undefined) this.remove(this.#selfName)
  }

  remove(name: string): void {
    const record = this.#records.get(name)
    if (record !== undefined) this.#shares.remove(record)
    this.#records.delete(name)
  }
}
