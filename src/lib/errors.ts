/**
 * An error that the operator can mend. Its message is one line: what is wrong, where, and what to do.
 * Everything else that is thrown is a bug of ours, or an outcome that the caller handles.
 */
export class UserError extends Error {
  override readonly name = 'UserError'
}

/** The message of anything thrown, with the messages of its causes, on one line. */
export function errorMessage(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const nested = error instanceof AggregateError ? error.errors.map(errorMessage).join('; ') : ''
  const own = [error.message || error.name, nested].filter(Boolean).join(': ')
  const cause = error.cause === undefined ? '' : errorMessage(error.cause)
  return (cause === '' || own.includes(cause) ? own : `${own}: ${cause}`).replaceAll(/\s*\n\s*/g, ' ')
}

/** The stack, or the text of anything else that was thrown. */
export function errorStack(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}

/** The `code` that Node and system calls put on errors (`ENOENT`, `ECONNREFUSED`), if there is one. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** The file, directory or process does not exist. */
export function isNotFound(error: unknown): boolean {
  const code = errorCode(error)
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'ESRCH'
}

/** The system refused a call: what it names is missing, closed to us or of another kind, or a resource is used up. */
export function isSystemError(error: unknown): boolean {
  return errorCode(error) !== undefined && !isProgrammerError(error)
}

/** Thrown by the language or by an assertion: no state of the world brings it about. */
export function isProgrammerError(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(isProgrammerError)
  const isOfLanguage = error instanceof TypeError || error instanceof ReferenceError || error instanceof RangeError
  // Node puts a code on errors about arguments; libraries on those about what a peer sent.
  return isOfLanguage && (errorCode(error) ?? 'ERR_INVALID_ARG').startsWith('ERR_INVALID_ARG')
}

/** A failure that a correct program has to live with, such as a peer that is gone or an answer that is nonsense. */
export function isOperationalError(error: unknown): boolean {
  return error instanceof Error && !isProgrammerError(error)
}

/** For `.catch`: the fallback in place of an expected failure. Any other error goes on. */
export function expecting<T>(isExpected: (error: unknown) => boolean, fallback: T): (error: unknown) => T {
  return (error) => {
    if (isExpected(error)) return fallback
    throw error
  }
}
