/** Results on disk: one file in a folder, replaced as a whole after every round. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../../lib/atomic-file.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { parseCheckedJson } from '../checked-json.ts'
import type { NetworkResult } from './network-schema.ts'
import { type Result, resultSchema } from './schema.ts'

const resultFileName = 'result.json'

export async function writeResult(folder: string, result: Result | NetworkResult): Promise<void> {
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
  return parseCheckedJson(text, path, resultSchema)
}
