/** Names of ours in certs.d. Everything else there belongs to the user. */
import { join } from 'node:path'

/** The user's tree as it was, in the form that Spegel uses. */
export const backupName = '_backup'
/** A backup that is being made. */
export const partialName = '_backup.partial'
/** A backup that was restored. */
export const doneName = '_backup.done'
/** Marks a directory that `configuration` created: cleanup removes it. */
export const absentName = '_absent'
/** Tells a backup of ours from one of Spegel's, and lists the registries whose hosts.toml we wrote. */
export const markedName = '_marked'
/** Directories of ours in place of links of the user. */
export const linkedName = '_linked'
/** What we replaced, as in `_backup`: hard links that remain if somebody deletes that. */
export const originalsName = '_originals'

export const ownNames: ReadonlySet<string> = new Set([
  backupName,
  partialName,
  doneName,
  absentName,
  markedName,
  linkedName,
  originalsName,
])

/** Names of the file in which a registry's hosts are. */
export const hostsFile = 'hosts.toml'

const temporaryPattern = /^\.spegel-ts\..*\.tmp$/

/** A neighbour of `name` that is renamed to it when it is complete. */
export function temporaryName(name: string): string {
  return `.spegel-ts.${name}.${process.pid}.tmp`
}

/** Left behind by a process that was killed. */
export function isTemporary(name: string): boolean {
  return temporaryPattern.test(name)
}

/** What the link of a registry leads to while it is replaced, as text of a link in certs.d. */
export function linkedText(name: string): string {
  return join(linkedName, name)
}

/** The user's own link to a registry's directory while it is replaced. */
export function originalLinkPath(directory: string, name: string): string {
  return join(directory, originalsName, `${name}.link`)
}

/** The user's own hosts.toml of a registry while it is replaced. */
export function originalFilePath(directory: string, name: string): string {
  return join(directory, originalsName, `${name}.hosts.toml`)
}
