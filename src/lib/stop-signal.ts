/** Why a command was asked to stop: the reason of the `stop` signal that commands get. */
import { constants } from 'node:os'

export class StopSignal extends Error {
  override readonly name = 'StopSignal'
  /** By convention 128 and the number of the signal: 143 for SIGTERM, 130 for SIGINT. */
  readonly exitCode: number

  constructor(signal: 'SIGTERM' | 'SIGINT') {
    super(`stopped by ${signal}`)
    this.exitCode = 128 + constants.signals[signal]
  }
}

/** Whether the error only says that the signal aborted, as errors of Node and of libraries do in several ways. */
export function isAbort(error: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted || !(error instanceof Error)) return false
  return error === signal.reason || error.name === 'AbortError' || isAbort(error.cause, signal)
}
