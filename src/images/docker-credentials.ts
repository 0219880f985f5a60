/** User names and passwords that `docker login` and its kin keep in `config.json`. */
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { UserError, errorCode } from '../lib/errors.ts'
import { parseJsonObject } from '../lib/foreign.ts'

export interface Credentials {
  username: string
  password: string
}

interface Entry {
  auth?: unknown
  username?: unknown
  password?: unknown
  identitytoken?: unknown
}

type Environment = Readonly<Record<string, string | undefined>>

/** Docker Hub's entry has the name that it had in 2013. */
const dockerHubNames: readonly string[] = ['docker.io', 'index.docker.io', 'registry-1.docker.io']

export function dockerConfigPath(env: Environment): string {
  return join(env['DOCKER_CONFIG'] || join(env['HOME'] || homedir(), '.docker'), 'config.json')
}

/** Undefined when there are none for this registry. Programs that keep them elsewhere (credsStore) are not asked. */
export async function readDockerCredentials(env: Environment, registry: string): Promise<Credentials | undefined> {
  const entries = await readEntries(dockerConfigPath(env))
  const names = dockerHubNames.includes(registry) ? dockerHubNames : [registry]
  const entry = Object.entries(entries).find(([key]) => names.includes(hostOf(key)))?.[1]
  // A token instead of a password is for another protocol.
  if (entry === undefined || typeof entry.identitytoken === 'string') return undefined
  const { auth, username, password } = entry
  if (typeof username === 'string' && typeof password === 'string') return { username, password }
  if (typeof auth !== 'string') return undefined
  const text = Buffer.from(auth, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 ? undefined : { username: text.slice(0, colon), password: text.slice(colon + 1) }
}

async function readEntries(path: string): Promise<Record<string, Entry>> {
  let text
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return {}
    throw new UserError(`cannot read ${path}: ${errorCode(error)}`, { cause: error })
  }
  const config = parseJsonObject(text)
  // The parser's own message would repeat a part of the file.
  if (config === undefined) throw new UserError(`${path} is not JSON: mend it, or make it anew with docker login`)
  return (config['auths'] ?? {}) as Record<string, Entry>
}

/** `https://index.docker.io/v1/` → `index.docker.io` */
function hostOf(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/.*$/s, '')
}
