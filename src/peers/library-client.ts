/** The same question through undici: for peers whose answers are right but not as we parse them. */
import type { Agent } from 'undici'
import { formatHostPort } from '../lib/address.ts'
import { surface } from '../lib/background.ts'
import { errorCode, isProgrammerError } from '../lib/errors.ts'
import { libraryConnectionsMax, peerConnectTimeoutMs, peerHeaderBytesMax, peerIdleConnectionMs } from '../limits.ts'
import type { Peer } from '../router/router.ts'
import type { WriteChunk } from '../store/store.ts'
import {
  PeerFailure,
  type PeerQuestion,
  type PeerResponse,
  type RangeRefused,
  checkAnswer,
  questionHeaders,
  questionPath,
} from './protocol.ts'

export interface LibraryClientConfig {
  registryPort: number
  stallTimeoutMs: number
}

export class LibraryClient {
  readonly #config: LibraryClientConfig
  #agent: Promise<Agent> | undefined

  constructor(config: LibraryClientConfig) {
    this.#config = config
  }

  /** `address` is where the peer answered before; `authorization` is what it accepts there. Rejects with PeerFailure, PeerBusy or the signal's reason. */
  async open(
    peer: Peer,
    address: string,
    authorization: string | undefined,
    question: PeerQuestion,
    signal: AbortSignal,
  ): Promise<PeerResponse | RangeRefused> {
    this.#agent ??= loadAgent(this.#config)
    const agent = await this.#agent
    // undici would end the body as well.
    const untilHeaders = new AbortController()
    const onAbort = () => untilHeaders.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
    const answer = await agent
      .request({
        origin: `http://${formatHostPort(address, this.#config.registryPort)}`,
        path: questionPath(question),
        method: question.method,
        signal: untilHeaders.signal,
        headers: { ...questionHeaders(question), ...(authorization === undefined ? {} : { authorization }) },
      })
      .catch((error: unknown) => {
        throw signal.aborted ? signal.reason : toFailure(error, 'headers')
      })
      .finally(() => signal.removeEventListener('abort', onAbort))
    const discard = () => answer.body.on('error', (error) => surface('peer_request', error)).destroy()
    try {
      const headers = new Map(
        Object.entries(answer.headers).map(([name, value]) => [
          name,
          Array.isArray(value) ? (value[0] ?? '') : (value ?? ''),
        ]),
      )
      const checked = checkAnswer(answer.statusCode, headers, question)
      if ('refusedSize' in checked) {
        discard()
        return { ...checked, peer }
      }
      const bodyBytes = Number(headers.get('content-length'))
      return { ...checked, peer, send: (write) => sendAnswer(answer.body, bodyBytes, write), discard }
    } catch (error) {
      discard()
      throw error
    }
  }

  async close(): Promise<void> {
    await (await this.#agent)?.destroy()
  }
}

/** Not before it is needed, which is seldom: undici costs every start 50 ms and 4 MiB. */
async function loadAgent({ stallTimeoutMs }: LibraryClientConfig): Promise<Agent> {
  const undici = await import('undici')
  return new undici.Agent({
    connections: libraryConnectionsMax,
    pipelining: 1,
    connect: { timeout: peerConnectTimeoutMs },
    keepAliveTimeout: peerIdleConnectionMs,
    keepAliveMaxTimeout: peerIdleConnectionMs,
    maxHeaderSize: peerHeaderBytesMax,
    headersTimeout: stallTimeoutMs,
    bodyTimeout: stallTimeoutMs,
  })
}

async function sendAnswer(body: AsyncIterable<Uint8Array>, bodyBytes: number, write: WriteChunk): Promise<void> {
  let leftBytes = bodyBytes
  const chunks = body[Symbol.asyncIterator]()
  try {
    for (;;) {
      const chunk = await chunks.next().catch((error: unknown) => {
        throw toFailure(error, 'body')
      })
      if (chunk.done === true) break
      leftBytes -= chunk.value.byteLength
      if (leftBytes < 0) throw new PeerFailure('body', 'the peer sent more than it announced')
      await write(chunk.value)
    }
  } finally {
    await chunks.return?.()
  }
  if (leftBytes > 0) throw new PeerFailure('body', `the peer sent ${leftBytes} bytes too few`, { retryable: true })
}

/** Errors of a programmer stay what they are. */
function toFailure(error: unknown, phase: 'headers' | 'body'): Error {
  if (isProgrammerError(error)) return error as Error
  const reason = errorCode(error) === 'UND_ERR_BODY_TIMEOUT' ? 'stall' : phase
  return new PeerFailure(reason, error instanceof Error ? error.message : String(error), { cause: error })
}
