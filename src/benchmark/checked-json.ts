/** JSON files that people write or keep: one clear error that names the file and the first thing that is wrong. */
import type { z } from 'zod'
import { UserError, errorMessage } from '../lib/errors.ts'

/** Throws a UserError. */
export function parseCheckedJson<Schema extends z.ZodType>(
  text: string,
  path: string,
  schema: Schema,
): z.output<Schema> {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch (error) {
    throw new UserError(`${path}: not JSON: ${errorMessage(error)}`)
  }
  const parsed = schema.safeParse(document)
  if (parsed.success) return parsed.data
  throw new UserError(`${path}: ${firstIssue(parsed.error)}`)
}

export function firstIssue(error: z.ZodError): string {
  const [issue] = error.issues
  return issue === undefined ? 'not valid' : `${issue.path.join('.') || 'top level'}: ${issue.message}`
}
