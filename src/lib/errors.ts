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

/** The `code` that Node and system calls put on errors (`ENOENT`, `ECONNREFUSED`), if there is one. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
