/**
 * Work whose result is not awaited. Expected failures are named where the work is started; every other error is a bug of ours:
 * it is published here, and the daemon logs it with its stack and counts it by task.
 */
import { channel } from 'node:diagnostics_channel'
import { isOperationalError, isProgrammerError } from './errors.ts'

/** Each is a label value of a metric. */
export const taskNames = [
  'announce',
  'blob_check',
  'blob_scan',
  'bootstrap',
  'containerd_events',
  'containerd_inventory',
  'delivery_check',
  'dht_stream',
  'flight_leader_check',
  'flight_report',
  'flight_watch',
  'http_request',
  'identity',
  'layout_index',
  'lookup',
  'membership',
  'peer_request',
  'shutdown',
  'tracker',
  'uncaught_exception',
  'unhandled_rejection',
] as const

export type TaskName = (typeof taskNames)[number]

export interface InternalError {
  task: TaskName
  error: unknown
  /** More for the log. */
  fields: Readonly<Record<string, unknown>>
}

const internalErrors = channel('spegel-ts:internal-error')

/** Calls back with each internal error of this process. Returns the function that ends that. */
export function onInternalError(callback: (internal: InternalError) => void): () => void {
  const listener = (message: unknown) => callback(message as InternalError)
  internalErrors.subscribe(listener)
  return () => {
    internalErrors.unsubscribe(listener)
  }
}

/** False if nobody listens: the caller has to let the error surface itself. */
export function reportInternalError(task: TaskName, error: unknown, fields: InternalError['fields'] = {}): boolean {
  if (!internalErrors.hasSubscribers) return false
  internalErrors.publish({ task, error, fields } satisfies InternalError)
  return true
}

export interface Expectations {
  /** Failures that are part of the work, and need no report. */
  expected?: (error: unknown) => boolean
  /** After it has aborted, failures are expected, but not those of a programmer. */
  signal?: AbortSignal
}

/** Resolves when the work has ended, however. Rejects only with an internal error that nobody listens to. */
export async function inBackground(
  task: TaskName,
  work: () => Promise<unknown>,
  { expected, signal }: Expectations = {},
): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (expected?.(error) === true) return
    if (signal?.aborted === true && !isProgrammerError(error)) return
    if (!reportInternalError(task, error)) throw error
  }
}

/** In a `catch` that goes on in any case, as with another peer: reports the error unless it is of the expected kind. */
export function surface(task: TaskName, error: unknown, isExpected = isOperationalError): void {
  if (isExpected(error) || reportInternalError(task, error)) return
  // Without a listener, it surfaces as an unhandled rejection.
  void Promise.reject(error instanceof Error ? error : new Error(String(error)))
}
