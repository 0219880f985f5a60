/** Is a node there, and does it still take part? Frozen or unplugged it says nothing, and its connections look well. */
import { surface } from '../lib/background.ts'
import type { Clock } from '../lib/clock.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { flightAliveMs } from '../limits.ts'
import type { Digest } from '../oci/digest.ts'
import type { PeerClient } from '../peers/client.ts'
import { PeerFailure } from '../peers/protocol.ts'
import { type FlightNode, alivePath, parseAnswer } from './protocol.ts'

/** False also for one that was started anew, and knows nothing of the blob. Rejects with the signal's reason. */
export async function isAlive(
  { client, clock }: { client: Pick<PeerClient, 'post'>; clock: Clock },
  node: FlightNode,
  digest: Digest,
  signal: AbortSignal,
): Promise<boolean> {
  using patience = awakeTimeout(clock, flightAliveMs)
  try {
    const answer = await client.post(node, alivePath(digest), AbortSignal.any([signal, patience.signal]))
    return parseAnswer(answer)?.kind !== 'gone'
  } catch (error) {
    signal.throwIfAborted()
    surface('flight_leader_check', error)
    return error instanceof PeerFailure && (error.reason === 'status' || error.reason === 'not-found')
  }
}
