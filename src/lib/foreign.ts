/** Bytes and text from peers, other programs and users, which may be anything. */

/**
 * What a parser makes of its input; undefined if the parser refuses it. Parsers throw errors of any class at nonsense, so
 * no error is told from another one here. `parse` must do nothing but call the parser.
 */
export function parsed<T>(parse: () => T): T | undefined {
  try {
    return parse()
  } catch {
    return undefined
  }
}

/** The fields of a JSON object; undefined if the text is something else. */
export function parseJsonObject(text: string): Record<string, unknown> | undefined {
  const value = parsed<unknown>(() => JSON.parse(text))
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined
}
