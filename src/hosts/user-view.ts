/**
 * Reads the user's tree as containerd read it before any of our files was there: paths are those below certs.d, contents
 * come from the backup. A link is followed from where it is in certs.d, not from its copy in the backup.
 */
import { lstat, readFile, readdir, readlink, realpath, stat } from 'node:fs/promises'
import { isAbsolute, join, relative, sep } from 'node:path'
import { errorCode, isSystemError } from '../lib/errors.ts'
import { lstatOrUndefined } from './exact-copy.ts'
import { backupName, linkedName } from './own-entries.ts'
import { userNames } from './user-tree.ts'

/** As many links as Linux follows. */
const linksMax = 40
/** A hosts.toml or a certificate has a few KiB. */
const fileBytesMax = 131_072

/** What containerd's `stat` of a directory's name gives. */
export type Entry =
  | { kind: 'missing'; isLink: false }
  /** A link that leads nowhere; `leavesTree`: to outside of certs.d, where containerd may see more than this process. */
  | { kind: 'dangling'; isLink: true; leavesTree: boolean; through: ReadonlySet<string> }
  | { kind: 'failing'; isLink: boolean; reason: string }
  | { kind: 'file'; isLink: boolean; through: ReadonlySet<string> }
  | { kind: 'directory'; isLink: boolean; location: string; through: ReadonlySet<string> }

export type Text =
  | { kind: 'none'; through: ReadonlySet<string> }
  | { kind: 'failing'; reason: string; through: ReadonlySet<string> }
  | { kind: 'text'; text: string; mode: number; isLink: boolean; through: ReadonlySet<string> }

interface Location {
  /** Where the bytes are. */
  path: string
  /** Names in certs.d that the way to it leads through. */
  through: ReadonlySet<string>
}

export class UserView {
  readonly #directory: string
  readonly #backup: string

  constructor(directory: string) {
    this.#directory = directory
    this.#backup = join(directory, backupName)
  }

  names(): Promise<string[]> {
    return userNames(this.#backup)
  }

  async entry(name: string): Promise<Entry> {
    const isLink = await isSymbolicLink(join(this.#backup, name))
    const through = new Set<string>()
    try {
      const { path } = await this.#locate(join(this.#directory, name), through)
      const stats = await stat(path)
      return stats.isDirectory()
        ? { kind: 'directory', isLink, location: path, through }
        : { kind: 'file', isLink, through }
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') return { kind: 'failing', isLink, reason: reasonOf(error) }
      if (!isLink) return { kind: 'missing', isLink }
      return { kind: 'dangling', isLink, leavesTree: error instanceof OutsideError, through }
    }
  }

  /** Text of a file in a directory of the user. An empty one counts as none, as for containerd. */
  async text(name: string, file: string): Promise<Text> {
    const through = new Set<string>()
    const failing = (reason: string): Text => ({ kind: 'failing', reason, through })
    try {
      const { path } = await this.#locate(join(this.#directory, name, file), through)
      const stats = await stat(path)
      // Opening a named pipe would wait for a writer.
      if (!stats.isFile()) return failing('it is not a regular file')
      if (stats.size > fileBytesMax) return failing(`it has more than ${fileBytesMax} bytes`)
      const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await readFile(path))
      if (text === '') return { kind: 'none', through }
      const isLink = await isSymbolicLink(join(this.#backup, name, file))
      return { kind: 'text', text, mode: stats.mode & 0o7777, isLink, through }
    } catch (error) {
      if (error instanceof TypeError) return failing('it is not UTF-8')
      if (errorCode(error) !== 'ENOENT') return failing(reasonOf(error))
      return error instanceof OutsideError
        ? failing('it is a link to where this process finds nothing')
        : { kind: 'none', through }
    }
  }

  /** Entries of a directory of the user, sorted by name; `isDirectory` does not follow links. */
  async list(location: string): Promise<{ name: string; isDirectory: boolean }[]> {
    const entries = await readdir(location, { withFileTypes: true })
    return entries
      .map((entry) => ({ name: entry.name, isDirectory: entry.isDirectory() }))
      .sort((one, other) => (one.name < other.name ? -1 : 1))
  }

  /**
   * Bytes of a certificate. `outside`: it is not in certs.d, so containerd may see more than this process. Undefined:
   * nothing readable is there.
   */
  async bytes(path: string): Promise<{ bytes: Buffer | undefined; outside: boolean }> {
    const outside = !isBelow(this.#directory, path)
    try {
      const location = await this.#locate(path, new Set())
      const stats = await stat(location.path)
      return {
        bytes: stats.isFile() && stats.size <= fileBytesMax ? await readFile(location.path) : undefined,
        outside,
      }
    } catch (error) {
      if (!isSystemError(error)) throw error
      return { bytes: undefined, outside: outside || error instanceof OutsideError }
    }
  }

  /** Text of a link as the user wrote it. */
  linkText(name: string): Promise<string> {
    return readlink(join(this.#backup, name))
  }

  /** Throws the error that the system would, and an OutsideError for what is missing outside of certs.d. */
  async #locate(path: string, through: Set<string>, links = 0): Promise<Location> {
    if (links > linksMax) throw Object.assign(new Error(`ELOOP: too many links, ${path}`), { code: 'ELOOP' })
    if (!isBelow(this.#directory, path)) return this.#locateOutside(path, through, links)
    const parts = relative(this.#directory, path).split(sep)
    let seen = this.#directory
    let real = this.#backup
    for (const [index, part] of parts.entries()) {
      if (index === 0) through.add(part)
      real = join(real, part)
      const stats = await lstat(real)
      if (stats.isSymbolicLink()) {
        const text = await readlink(real)
        const target = isAbsolute(text) ? text : join(seen, text)
        return this.#locate(join(target, ...parts.slice(index + 1)), through, links + 1)
      }
      seen = join(seen, part)
    }
    return { path: real, through }
  }

  async #locateOutside(path: string, through: Set<string>, links: number): Promise<Location> {
    let real: string
    let root: string
    try {
      real = await realpath(path)
      root = await realpath(this.#directory)
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error
      const mounted = this.#fromNode(path)
      if (mounted === undefined) throw new OutsideError(path)
      return this.#locate(mounted, through, links + 1)
    }
    if (!isBelow(root, real)) return { path: real, through }
    // It leads back into certs.d, perhaps by a directory of ours in place of a link.
    const [first = '', ...rest] = relative(root, real).split(sep)
    const parts = first === linkedName ? rest : [first, ...rest]
    return this.#locate(join(this.#directory, ...parts), through, links + 1)
  }

  /** In a container, the node's certs.d may be mounted below another directory; links name it as the node does. */
  #fromNode(path: string): string | undefined {
    const parts = this.#directory.split(sep)
    for (let skipped = 2; skipped < parts.length - 1; skipped++) {
      const directory = sep + join(...parts.slice(skipped))
      if (isBelow(directory, path)) return join(this.#directory, relative(directory, path))
    }
    return undefined
  }
}

/** Nothing is there, outside of certs.d, as far as this process can see. */
class OutsideError extends Error {
  readonly code = 'ENOENT'
  constructor(path: string) {
    super(`ENOENT: no such file or directory, ${path}`)
  }
}

function isBelow(directory: string, path: string): boolean {
  const way = relative(directory, path)
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way)
}

async function isSymbolicLink(path: string): Promise<boolean> {
  return (await lstatOrUndefined(path))?.isSymbolicLink() === true
}

function reasonOf(error: unknown): string {
  return `it cannot be read (${errorCode(error) ?? String(error)})`
}
