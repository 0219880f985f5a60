/** What the local target needs of the machine. Everything that is missing is said at once. */
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { UserError } from '../../lib/errors.ts'

export interface Programs {
  /** Used in turn: the first node gets the first. */
  containerds: readonly string[]
  registry: string
}

const registryNames = ['docker-registry', 'registry']
const systemPrograms = { ip: 'iproute2', tc: 'iproute2', nsenter: 'util-linux', unshare: 'util-linux' }

/** Throws a UserError that says what to install. */
export function findPrograms(
  given: { containerds: readonly string[]; registry: string | undefined },
  path: string,
  isRoot: boolean = process.getuid?.() === 0,
): Programs {
  const missing: string[] = []
  if (!isRoot) missing.push('root (network namespaces and mounts need it): run it as root')
  for (const [program, fromPackage] of Object.entries(systemPrograms)) {
    if (found(path, program) === undefined) missing.push(`${program}: install ${fromPackage}`)
  }
  const containerd = found(path, 'containerd')
  for (const wanted of given.containerds) {
    if (!isExecutable(wanted)) missing.push(`--containerd ${wanted}: not an executable file`)
  }
  if (given.containerds.length === 0 && containerd === undefined) {
    missing.push('containerd: install containerd, or give --containerd PATH')
  }
  const registry = given.registry ?? registryNames.map((name) => found(path, name)).find((it) => it !== undefined)
  if (registry === undefined) missing.push('a registry: install docker-registry, or give --registry PATH')
  else if (!isExecutable(registry)) missing.push(`--registry ${registry}: not an executable file`)
  if (missing.length > 0 || registry === undefined) {
    throw new UserError(`the local target needs ${missing.join('; ')}`)
  }
  return { containerds: given.containerds.length > 0 ? given.containerds : [containerd ?? ''], registry }
}

function found(path: string, name: string): string | undefined {
  return path
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
