/** What libp2p's peer store says of a peer that it does not know, or has forgotten. */
import { surface } from '../lib/background.ts'

/** For `.catch`. Addresses of a peer are never worth a failed lookup: any other error is reported, and nothing is known. */
export function ifUnknownPeer(error: unknown): undefined {
  surface('lookup', error, (reason) => reason instanceof Error && reason.name === 'NotFoundError')
}
