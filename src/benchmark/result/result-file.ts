/** Results on disk: one file in a folder, replaced as a whole after every round. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { z } from 'zod'
import { writeFileAtomic } from '../../lib/atomic-file.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { type Result, resultSchema } from './schema.ts'

const resultFileName = 'result.json'

export async function writeResult(folder: string, result: Result): Promise<void> {
  await writeFileAtomic(join(folder, resultFileName), `${JSON.stringify(result, undefined, 1)}\n`, 0o644)
}

/** Undefined: there is no result in the folder. Throws a UserError when there is something else. */
export async function readResult(folder: string): Promise<Result | undefined> {
  const path = join(folder, resultFileName)
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new UserError(`${path}: ${errorMessage(error)}`)
  })
  return text === undefined ? undefined : parseResult(text, path)
}

/** Throws a UserError that names the file and the first thing that is wrong in it. */
export function parseResult(text: string, path: string): Result {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch (error) {
    throw new UserError(`${path}: not JSON: ${errorMessage(error)}`)
  }
  const parsed = resultSchema.safeParse(document)
  if (parsed.success) return parsed.data
  throw new UserError(`${path}: ${firstIssue(parsed.error)}`)
}

export function firstIssue(error: z.ZodError): string {
  const [issue] = error.issues
  return issue === undefined ? 'not valid' : `${issue.path.join('.') || 'top level'}: ${issue.message}`
}
