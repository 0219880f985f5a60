/**
 * Decides what certs.d becomes: for each registry the hosts.toml that puts the mirror in front of what containerd finds
 * today, or one warning that says why the registry stays as it is. Nothing is written here.
 */
import { join } from 'node:path'
import type { TomlTable } from 'smol-toml'
import type { Logger } from '../logger.ts'
import { certificateSettings, checkCertificates } from './certificate-files.ts'
import { dialectOf } from './containerd-dialect.ts'
import {
  type HostsDocument,
  ObstacleError,
  certificatePaths,
  prependMirror,
  readHostsDocument,
  redirectCa,
} from './hosts-file.ts'
import { type MirrorTables, generateFile, insertBlock, renderMirrorTables } from './mirror-block.ts'
import { hostsFile } from './own-entries.ts'
import { type MirroredRegistry, wildcardRegistry } from './registry-url.ts'
import { directoryNames } from './upstream.ts'
import type { Entry, UserView } from './user-view.ts'

export interface HostsConfig extends MirrorTables {
  /** certs.d */
  directory: string
  registries: readonly MirroredRegistry[]
  /** Keep what the user has for a registry, behind the mirror. */
  prependExisting: boolean
  /** What containerd reports; undefined: unknown, so every supported version must understand the result. */
  containerdVersion: string | undefined
}

/** A hosts.toml of ours and the directory that it is in. */
export interface PlannedFile {
  text: string
  mode: number
  /** The user's own directory, a new one, one of ours in place of a link, or none in place of a link that led nowhere. */
  place: 'existing' | 'new' | 'link' | 'nowhere'
  /** In a directory of ours: links to entries of the user, by name, with their text seen from certs.d. */
  links: ReadonlyMap<string, string>
}

export type Plan = ReadonlyMap<string, PlannedFile>

/** Where a registry's hosts come from today. */
interface Source {
  /** Directory in certs.d, and the one that containerd reads. */
  name: string
  entry: Entry & { kind: 'directory' }
}

export async function planHosts(config: HostsConfig, view: UserView, logger: Logger): Promise<Plan> {
  const planner = new Planner(config, view, logger)
  const plan = new Map<string, PlannedFile>()
  for (const { name, registry, server } of await scopeOf(config, view)) {
    const file = await planner.mirror(name, registry, server)
    if (file !== undefined) plan.set(name, file)
  }
  const copies = new Map<string, PlannedFile>()
  for (const name of await view.names()) {
    if (plan.has(name)) continue
    const copy = await planner.copyIfLinked(name, plan)
    if (copy !== undefined) copies.set(name, copy)
  }
  // Before what they were linked to changes.
  return new Map([...copies, ...plan])
}

interface Target {
  /** Directory in certs.d. */
  name: string
  /** The name that containerd has for the registry; undefined for `_default`. */
  registry: string | undefined
  server: string | undefined
}

async function scopeOf({ registries }: HostsConfig, view: UserView): Promise<Target[]> {
  const targets: Target[] = []
  for (const { host, server } of registries) {
    if (host !== wildcardRegistry) targets.push({ name: await directoryOf(host, view), registry: host, server })
  }
  if (registries.some(({ host }) => host === wildcardRegistry)) {
    const named = new Set(targets.map(({ name }) => name))
    targets.push({ name: wildcardRegistry, registry: undefined, server: undefined })
    for (const name of await view.names()) {
      // A file such as a README or an editor's copy is no registry; neither is a hidden directory.
      if (named.has(name) || name === wildcardRegistry || name.startsWith('.')) continue
      targets.push({ name, registry: undefined, server: undefined })
    }
  }
  return targets
}

/** The directory that containerd takes for a registry, or would take. */
async function directoryOf(registry: string, view: UserView): Promise<string> {
  for (const name of directoryNames(registry)) {
    const { kind } = await view.entry(name)
    if (kind !== 'missing' && kind !== 'dangling') return name
  }
  return registry
}

class Planner {
  readonly #config: HostsConfig
  readonly #view: UserView
  readonly #logger: Logger

  constructor(config: HostsConfig, view: UserView, logger: Logger) {
    this.#config = config
    this.#view = view
    this.#logger = logger
  }

  /** Undefined: it stays as it is, and a warning says why. */
  async mirror(
    name: string,
    registry: string | undefined,
    server: string | undefined,
  ): Promise<PlannedFile | undefined> {
    try {
      const entry = await this.#view.entry(name)
      switch (entry.kind) {
        case 'failing':
          throw new ObstacleError(entry.reason, 'make it a directory that can be read')
        case 'file':
          throw new ObstacleError(
            'it is not a directory, so containerd fails for this registry',
            'remove or move the file',
          )
        case 'dangling':
          if (entry.leavesTree) {
            throw new ObstacleError(
              'it is a link to where this process finds nothing',
              'replace the link by a directory',
            )
          }
          // containerd goes on to _default, which has the mirror where all registries do.
          if (registry === undefined && name !== wildcardRegistry) return undefined
          return await this.#mirrorNew(name, registry, server, 'link')
        case 'missing':
          return await this.#mirrorNew(name, registry, server, 'new')
        case 'directory':
          return await this.#mirrorExisting(name, { name, entry }, server)
      }
    } catch (error) {
      if (!(error instanceof ObstacleError)) throw error
      this.#warn(name, hostsFile, error, 'registry left unchanged, not mirrored')
      return undefined
    }
  }

  /** A registry that stays as it is, but whose link leads to where a file of ours is going to be. */
  async copyIfLinked(name: string, plan: Plan): Promise<PlannedFile | undefined> {
    const entry = await this.#view.entry(name)
    if (entry.kind === 'dangling' && [...entry.through].some((other) => other !== name && plan.has(other))) {
      return { text: '', mode: 0, place: 'nowhere', links: new Map() }
    }
    if (entry.kind !== 'directory') return undefined
    const text = await this.#view.text(name, hostsFile)
    const through = [...entry.through, ...text.through]
    if (!through.some((other) => other !== name && plan.has(other))) return undefined
    if (text.kind === 'failing') {
      this.#logger.warn(
        { registry: name, file: this.#path(name), reason: text.reason, remedy: 'replace the link by a directory' },
        'registry shares a directory with a mirrored one and is mirrored, too',
      )
      return undefined
    }
    const [copy, mode] = text.kind === 'text' ? [text.text, text.mode] : ['', 0o644]
    const top = text.kind === 'text' ? {} : await certificateSettings(this.#view, entry.location)
    const file = generateFile({ top, tables: '', copy }, { isNewDirectory: false })
    return { text: file, mode, ...(await this.#place(name, { name, entry })) }
  }

  /** In front of what `_default` has for a registry without a directory. */
  async #mirrorNew(
    name: string,
    registry: string | undefined,
    server: string | undefined,
    place: 'new' | 'link',
  ): Promise<PlannedFile> {
    const entry =
      this.#config.prependExisting && registry !== undefined ? await this.#view.entry(wildcardRegistry) : undefined
    switch (entry?.kind) {
      case 'directory': {
        const file = await this.#mirrorExisting(name, { name: wildcardRegistry, entry }, server)
        const links = await this.#linksTo({ name: wildcardRegistry, entry })
        // A directory with links of ours is kept apart, so that they are not taken for the user's.
        return { ...file, place: links.size === 0 ? place : 'link', links }
      }
      case 'file':
      case 'failing':
        throw new ObstacleError(
          `${wildcardRegistry} is not a directory that can be read`,
          `repair ${wildcardRegistry}`,
        )
      case 'dangling':
        if (entry.leavesTree) {
          throw new ObstacleError(
            `${wildcardRegistry} is a link to where this process finds nothing`,
            'replace the link by a directory',
          )
        }
        break
      case 'missing':
      case undefined:
        break
    }
    this.#warnOfIpv6(name)
    const tables = renderMirrorTables(this.#config, undefined)
    const isNewDirectory = place === 'new'
    const text = generateFile({ top: serverOf(server), tables, copy: '' }, { isNewDirectory })
    return { text, mode: this.#mode(0o644), place, links: new Map() }
  }

  async #mirrorExisting(name: string, source: Source, server: string | undefined): Promise<PlannedFile> {
    const text = await this.#view.text(source.name, hostsFile)
    if (text.kind === 'failing') throw new ObstacleError(text.reason, 'make it a file that can be read')
    const isOwn = source.name === name
    const placed = isOwn
      ? await this.#place(name, source)
      : { place: 'new' as const, links: new Map<string, string>() }
    const isNewDirectory = !isOwn
    const certificates = await certificateSettings(this.#view, source.entry.location)
    if (!this.#config.prependExisting) {
      const isEmpty = text.kind === 'none' && Object.keys(certificates).length === 0
      // containerd 1 could not read our file, and would go on to the certificates.
      if (!isEmpty && this.#isUnreadable()) throw ipv6Obstacle()
      if (isEmpty) this.#warnOfIpv6(name)
      else this.#warnOfSetAside(name)
      const tables = renderMirrorTables(this.#config, undefined)
      const file = generateFile({ top: serverOf(server), tables, copy: '' }, { isNewDirectory })
      return { text: file, mode: this.#mode(0o644), ...placed }
    }
    if (text.kind === 'none') {
      const file = await this.#nameCertificates(name, source.name, certificates, { isNewDirectory })
      return { text: file, mode: this.#mode(0o644), ...placed }
    }
    const dialect = dialectOf(this.#config.containerdVersion)
    const document = readHostsDocument(text.text, dialect)
    await this.#check(source.name, certificatePaths(document))
    const hasCertificates = Object.keys(certificates).length > 0
    const { at, tables } = prependMirror(document, name, this.#config, { dialect, hasCertificates })
    const isUsersFile = isOwn && !text.isLink && placed.place === 'existing'
    const file = isUsersFile
      ? insertBlock(text.text, at, tables)
      : generateFile({ tables, copy: text.text, at }, { isNewDirectory })
    return { text: file, mode: this.#mode(text.mode), ...placed }
  }

  async #nameCertificates(
    name: string,
    sourceName: string,
    certificates: TomlTable,
    { isNewDirectory }: { isNewDirectory: boolean },
  ): Promise<string> {
    const document: Pick<HostsDocument, 'top' | 'hosts'> = { top: certificates, hosts: [] }
    await this.#check(sourceName, certificatePaths({ ...document, text: '', firstTable: 0 }))
    this.#warnOfIpv6(name)
    const tables = renderMirrorTables(this.#config, redirectCa(document, name, this.#config))
    return generateFile({ top: certificates, tables, copy: '' }, { isNewDirectory })
  }

  async #check(name: string, paths: Parameters<typeof checkCertificates>[2]): Promise<void> {
    const notFound = await checkCertificates(this.#view, join(this.#config.directory, name), paths)
    if (notFound === undefined) return
    const reason = `${notFound} is not found from here; if containerd does not find it either, it fails for this registry`
    this.#warn(
      name,
      hostsFile,
      new ObstacleError(reason, 'check that the file exists on the node'),
      'certificate not found',
    )
  }

  async #place(name: string, source: Source): Promise<Pick<PlannedFile, 'place' | 'links'>> {
    if (!source.entry.isLink) return { place: 'existing', links: new Map() }
    return { place: 'link', links: await this.#linksTo({ ...source, name }) }
  }

  /** Everything in the directory but hosts.toml stays where it is, and is linked to. */
  async #linksTo({ name, entry }: Source): Promise<Map<string, string>> {
    const base = entry.isLink ? await this.#view.linkText(name) : name
    const entries = await this.#view.list(entry.location)
    const links = entries
      // A directory behind a link is no directory for containerd: it would take it for a certificate.
      .filter((item) => item.name !== hostsFile && !(item.isDirectory && /\.(crt|cert)$/.test(item.name)))
      .map((item) => [item.name, join(base, item.name)] as const)
    return new Map(links)
  }

  /** A password is for root, and for group root, which the daemon belongs to: it reads the file, too. */
  #mode(mode: number): number {
    return (mode & (this.#config.authorization === undefined ? 0o644 : 0o640)) | 0o040
  }

  #warnOfSetAside(name: string): void {
    const reason = '--prepend-existing=false'
    const remedy = 'nothing, if that is intended; otherwise set --prepend-existing'
    this.#warn(
      name,
      hostsFile,
      new ObstacleError(reason, remedy),
      "registry's own configuration set aside until cleanup",
    )
  }

  #warnOfIpv6(name: string): void {
    if (this.#isUnreadable()) this.#warn(name, hostsFile, ipv6Obstacle(), 'mirror works with containerd 2 only')
  }

  /** Some version of containerd cannot read a hosts.toml with these targets. */
  #isUnreadable(): boolean {
    const { containerdVersion, targets } = this.#config
    return !dialectOf(containerdVersion).readsIpv6Tables && targets.some((target) => target.includes(']'))
  }

  #warn(registry: string, file: string, { obstacle }: ObstacleError, message: string): void {
    const path = join(this.#path(registry), file)
    this.#logger.warn({ registry, file: path, ...obstacle }, message)
  }

  #path(name: string): string {
    return join(this.#config.directory, name)
  }
}

function ipv6Obstacle(): ObstacleError {
  return new ObstacleError(
    'containerd before 2.0 cannot read the IPv6 address of the mirror and goes to the registry itself',
    '--mirror-targets: name the mirror by a host name or an IPv4 address, or name containerd 2 by --containerd-sock',
  )
}

/** Where the user has configured nothing. containerd chooses https by itself, and docker.io's server. */
function serverOf(server: string | undefined): TomlTable {
  return server?.startsWith('http://') === true ? { server } : {}
}
