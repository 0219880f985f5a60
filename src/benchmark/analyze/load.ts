/** From paths to measurements: folders and files, of this tool and of the Go tool. */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { z } from 'zod'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { readRegularFile } from '../../lib/read-file.ts'
import { parseCheckedJson } from '../checked-json.ts'
import { type GoRun, isGoResult, parseGoResult } from '../result/go-tool.ts'
import { networkResultSchema, networkSchemaName } from '../result/network-schema.ts'
import { resultSchema, schemaName } from '../result/schema.ts'
import { type Measurements, fromGoRuns, fromResult } from './measurements.ts'
import { type NetworkMeasurements, fromNetworkResult } from './network/measurements.ts'

export interface Loaded {
  /** In the order of the paths. All files of the Go tool are one entry, in the place of the first. */
  measurements: Measurements[]
  /** Of `benchmark network`, in the order of the paths. */
  networks: NetworkMeasurements[]
  /** JSON files in the folders that are no results. */
  leftOut: string[]
}

const whatToGive = 'give a folder that `benchmark measure` or `benchmark network run` wrote, or a result file'

export async function load(paths: readonly string[]): Promise<Loaded> {
  if (paths.length === 0) throw new UserError(`no --path: ${whatToGive}`)
  const goRuns: GoRun[] = []
  const leftOut: string[] = []
  const found: (Measurements | 'go')[] = []
  const networks: NetworkMeasurements[] = []
  for (const path of paths) {
    const { files, isFolder } = await jsonFiles(path)
    let results = 0
    for (const file of files) {
      const text = await readText(file)
      const document = parseJson(text, file)
      if (isGoResult(document)) {
        if (goRuns.length === 0) found.push('go')
        goRuns.push(parseGoResult(document, file))
      } else if (hasSchema(document)) {
        if (document.schema === networkSchemaName) {
          networks.push(fromNetworkResult(parseOwn(text, file, networkResultSchema), file))
        } else {
          found.push(fromResult(parseOwn(text, file, resultSchemaOf(document, file)), file))
        }
      } else if (isFolder) {
        leftOut.push(file)
        continue
      } else {
        throw new UserError(`${file}: not a result of a benchmark: ${whatToGive}`)
      }
      results++
    }
    if (results === 0) throw new UserError(`${path}: no result in this folder: ${whatToGive}`)
  }
  return { measurements: found.map((entry) => (entry === 'go' ? fromGoRuns(goRuns) : entry)), networks, leftOut }
}

async function jsonFiles(path: string): Promise<{ files: string[]; isFolder: boolean }> {
  try {
    if (!(await stat(path)).isDirectory()) return { files: [path], isFolder: false }
    const names = (await readdir(path)).filter((name) => name.endsWith('.json')).sort()
    return { files: names.map((name) => join(path, name)), isFolder: true }
  } catch (error) {
    throw new UserError(`${path}: ${errorMessage(error)}: ${whatToGive}`)
  }
}

async function readText(path: string): Promise<string> {
  try {
    return (await readRegularFile(path)).toString()
  } catch (error) {
    throw new UserError(`${path}: ${errorMessage(error)}: ${whatToGive}`)
  }
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new UserError(
      `${path}: not JSON, maybe cut off (${errorMessage(error)}): copy it again, or leave the file out`,
    )
  }
}

/** Of any version. */
function hasSchema(document: unknown): document is { schema: string } {
  const schema: unknown =
    typeof document === 'object' && document !== null && 'schema' in document ? document.schema : undefined
  return typeof schema === 'string' && schema.startsWith(schemaName.replace(/[^/]*$/, ''))
}

function resultSchemaOf({ schema }: { schema: string }, path: string): typeof resultSchema {
  if (schema === schemaName) return resultSchema
  throw new UserError(
    `${path}: schema ${schema}, this version reads ${schemaName} and ${networkSchemaName}: analyze it with the spegel-ts that wrote it`,
  )
}

function parseOwn<Schema extends z.ZodType>(text: string, path: string, schema: Schema): z.output<Schema> {
  try {
    return parseCheckedJson(text, path, schema)
  } catch (error) {
    throw new UserError(`${errorMessage(error)}; measure again, or leave the file out`)
  }
}
