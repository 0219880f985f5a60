/**
 * Waits until a stream takes more. libp2p's own `onDrain` (3.3) keeps the promise of the first time and resolves at once
 * ever after: a peer that stops reading would make our buffer grow without end.
 */
import type { Stream } from '@libp2p/interface'

export function drained(stream: Stream, signal?: AbortSignal): Promise<void> {
  if (!stream.writableNeedsDrain) return Promise.resolve()
  return new Promise((resolve, reject) => {
    const end = (settle: () => void) => {
      stream.removeEventListener('drain', onDrain)
      stream.removeEventListener('close', onClose)
      signal?.removeEventListener('abort', onAbort)
      settle()
    }
    const onDrain = () => end(resolve)
    const onClose = () => end(() => reject(new Error('the stream was closed')))
    const onAbort = () => end(() => reject(signal?.reason as Error))
    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', onClose)
    signal?.addEventListener('abort', onAbort)
    if (signal?.aborted === true) onAbort()
  })
}
