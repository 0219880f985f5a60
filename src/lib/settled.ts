/**
 * Resolves when the promise has settled, however: for a promise whose error is thrown where the same promise is awaited, or
 * where an earlier error is on its way already. Until then its rejection does not count as unhandled.
 */
export function settled(promise: Promise<unknown>): Promise<void> {
  return promise.then(ignore, ignore)
}

function ignore(): void {}
