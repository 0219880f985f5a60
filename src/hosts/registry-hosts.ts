/**
 * The hosts that containerd asks for a registry, read from certs.d by containerd's rules: the first directory that exists
 * counts, also without a hosts.toml in it. Nothing is changed.
 */
import { readFile, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { expecting, isSystemError, errorCode, errorMessage } from '../lib/errors.ts'
import { hostsTomlBytesMax, registryDirectoriesMax } from '../limits.ts'
import { type LoadedHosts, loadHosts } from './loaded-hosts.ts'
import { wildcardRegistry } from './registry-url.ts'
import { directoryNames, registryOf } from './upstream.ts'

/** Why containerd finds no host there, or why that is not known. */
interface HostsProblem {
  reason: 'missing' | 'invalid_file' | 'unreadable' | 'mirror_not_first'
  /** A sentence without a full stop, for operators. */
  detail: string
}

/** `path`: the hosts.toml, or where it should be. */
export type RegistryHosts = { path: string } & (LoadedHosts | { problem: HostsProblem })

/** `_default` and every registry that has a directory of its own. Throws when certs.d exists and cannot be read. */
export async function registriesIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory).catch((error: unknown): string[] => {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  })
  // Registries start with a letter or a digit; `_backup` and files that are being written do not.
  const names = entries.filter((name) => /^[a-z0-9[]/i.test(name)).slice(0, registryDirectoriesMax)
  const isDirectory = await Promise.all(
    names.map((name) =>
      stat(join(directory, name)).then(
        (found) => found.isDirectory(),
        // A link to nowhere is no directory for containerd either.
        (error: unknown) => errorCode(error) !== 'ENOENT',
      ),
    ),
  )
  const registries = names.filter((_name, index) => isDirectory[index]).map(registryOf)
  return [...new Set([wildcardRegistry, ...registries])]
}

/** `configuration` has run on this directory: it has its backup or its mark there. */
export async function isConfigured(directory: string): Promise<boolean> {
  const entries = await readdir(directory).catch((): string[] => [])
  return entries.includes('_backup') || entries.includes('_marked')
}

export async function readRegistryHosts(directory: string, registry: string): Promise<RegistryHosts> {
  for (const name of lookupNames(registry)) {
    const candidate = join(directory, name)
    try {
      await stat(candidate)
      return await readHostsIn(candidate)
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') return { path: candidate, problem: unreadable(error) }
    }
  }
  const [name = registry] = lookupNames(registry)
  const others = registry === wildcardRegistry ? '' : `, and no ${wildcardRegistry}`
  return {
    path: join(directory, name, 'hosts.toml'),
    problem: { reason: 'missing', detail: `the directory does not exist${others}` },
  }
}

function lookupNames(registry: string): string[] {
  return registry === wildcardRegistry ? [registry] : [...directoryNames(registry), wildcardRegistry]
}

/** Whether `configuration` wrote the file that containerd loads for the registry, wherever the mirror is in it. */
export async function isOwnFile({ path }: RegistryHosts): Promise<boolean> {
  const text = await readText(path).catch(expecting(isSystemError, ''))
  return /^# BEGIN spegel-ts\b/m.test(text)
}

async function readHostsIn(directory: string): Promise<RegistryHosts> {
  const path = join(directory, 'hosts.toml')
  try {
    return { path, ...loadHosts(await readText(path)) }
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') return { path, problem: unreadable(error) }
    return { path, problem: { reason: 'missing', detail: 'the file does not exist' } }
  }
}

async function readText(path: string): Promise<string> {
  const found = await stat(path)
  // Reading a named pipe would wait for a writer.
  if (!found.isFile()) throw new Error('not a regular file')
  if (found.size > hostsTomlBytesMax) throw new Error(`larger than ${hostsTomlBytesMax} bytes`)
  return readFile(path, 'utf8')
}

function unreadable(error: unknown): HostsProblem {
  return { reason: 'unreadable', detail: `it cannot be checked: ${errorMessage(error)}` }
}
