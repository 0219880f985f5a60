/**
 * HTTP Basic with one shared secret, as Spegel reads it: files `username` and `password` in a folder. Absent: off.
 * A refusal carries no WWW-Authenticate: a challenge would make containerd send the pull secret to the mirror.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError, errorCode, errorMessage } from '../lib/errors.ts'
import { equalHeaders } from '../peers/proof.ts'

export interface BasicAuth {
  /** The value of an Authorization header. */
  readonly header: string
  accepts(header: string | undefined): boolean
}

export function basicAuth(username: string, password: string): BasicAuth {
  const header = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
  return { header, accepts: (given) => equalHeaders(given ?? '', header) }
}

/** Undefined when neither file is there. Throws a UserError when only one is, or when they cannot be read. */
export async function readBasicAuth(folder: string): Promise<BasicAuth | undefined> {
  const [username, password] = await Promise.all([readOptional(folder, 'username'), readOptional(folder, 'password')])
  if (username === undefined && password === undefined) return undefined
  if (username === undefined || password === undefined) {
    throw new UserError(
      `${folder}: only one of the files username and password is there: add the other, or remove it`,
    )
  }
  return basicAuth(username, password)
}

async function readOptional(folder: string, name: string): Promise<string | undefined> {
  try {
    return await readFile(join(folder, name), 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw new UserError(`${join(folder, name)}: ${errorMessage(error)}: make it readable`)
  }
}
