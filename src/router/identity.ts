/**
 * This node's key in the swarm: Ed25519, `private.key` in the data folder as PKCS#8 PEM. A key that survives restarts
 * lets other nodes' records of us stay true. Without a data folder the identity is new at every start.
 */
import { type KeyObject, createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { constants } from 'node:fs'
import { access, lstat, readFile, readdir, rm, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import type { Ed25519PrivateKey } from '@libp2p/interface'
import { writeFileAtomic } from '../lib/atomic-file.ts'
import { expecting, isSystemError, UserError, errorCode, errorMessage } from '../lib/errors.ts'
import { makeDirectory } from '../lib/make-directory.ts'

const keyName = 'private.key'
/** Of earlier processes: an update has two at a time. */
const runningKeptMax = 4
/** Written when the key is replaced: its time is the time of the replacement. */
const replacedName = 'private.key.replaced'

export async function loadIdentity(dataDir: string | undefined): Promise<Ed25519PrivateKey> {
  if (dataDir === undefined) return toLibp2pKey(generateKeyPairSync('ed25519').privateKey)
  const path = join(dataDir, keyName)
  try {
    return toLibp2pKey(await readOrCreate(dataDir, path))
  } catch (error) {
    const denied = ['EACCES', 'EPERM', 'EROFS'].includes(errorCode(error) ?? '')
    const advice = denied
      ? "mount it writable, and give it to the daemon's user (spegel-ts prepare)"
      : 'make it readable, or remove it for a new identity'
    throw new UserError(`--data-dir: ${path}: ${errorMessage(error)}: ${advice}`)
  }
}

/** Names of processes that use the directory, or used it until they were killed. */
const runningPrefix = 'running.'

/** Leaves the boot id of this process in the directory; a read-only one stays as it is. */
export async function markRunning(dataDir: string, bootId: string): Promise<void> {
  try {
    for (const name of (await runningIn(dataDir)).slice(0, -runningKeptMax))
      await rm(join(dataDir, name), { force: true })
    await writeFileAtomic(join(dataDir, `${runningPrefix}${Date.now()}.${bootId}`), '', 0o644)
  } catch (error) {
    if (!isSystemError(error)) throw error
  }
}

export async function isRunningIn(dataDir: string, bootId: string): Promise<boolean> {
  return (await runningIn(dataDir)).some((name) => name.endsWith(`.${bootId}`))
}

/** The latest last. */
async function runningIn(dataDir: string): Promise<string[]> {
  const names = await readdir(dataDir).catch(expecting(isSystemError, [] as string[]))
  return names.filter((name) => name.startsWith(runningPrefix)).sort()
}

/** Forgets the key, and the folder if nothing else is in it. */
export async function removeIdentity(dataDir: string): Promise<void> {
  try {
    await rm(join(dataDir, keyName), { force: true })
    await rm(join(dataDir, replacedName), { force: true })
    for (const name of await runningIn(dataDir)) await rm(join(dataDir, name), { force: true })
    await rmdir(dataDir)
  } catch (error) {
    const code = errorCode(error)
    if (code === 'ENOENT' || code === 'ENOTEMPTY' || code === 'EBUSY') return
    throw new UserError(`--data-dir: ${dataDir}: ${errorMessage(error)}: run as root, and mount its parent writable`)
  }
}

/** How long ago the key was replaced, in ms; undefined when it never was. A time in the future counts as now. */
export async function identityReplacedAgoMs(dataDir: string): Promise<number | undefined> {
  const stats = await stat(join(dataDir, replacedName)).catch(expecting(isSystemError, undefined))
  return stats === undefined ? undefined : Math.max(0, Date.now() - stats.mtimeMs)
}

/**
 * Puts a new key in place of this node's, for the next `loadIdentity`. Throws a UserError when the key cannot be replaced, or
 * when it was provided by an operator: as a symbolic link, which is what a Secret's files are, or as a read-only file.
 */
export async function replaceIdentity(dataDir: string): Promise<void> {
  const path = join(dataDir, keyName)
  try {
    const stats = await lstat(path)
    if (stats.isSymbolicLink()) throw new Error('it is a symbolic link')
    // Root may write anything.
    if ((stats.mode & 0o200) === 0) throw new Error('it is read-only')
    await access(path, constants.W_OK)
    // First the limit, then the key: a failure in between must not lead to more replacements.
    await writeFileAtomic(join(dataDir, replacedName), '', 0o600)
    await writeKey(path)
  } catch (error) {
    throw new UserError(
      `--data-dir: ${path}: ${errorMessage(error)}: give each node a key of its own, or remove it for a new identity`,
    )
  }
}

async function readOrCreate(dataDir: string, path: string): Promise<KeyObject> {
  try {
    return createPrivateKey(await readFile(path))
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error
  }
  await makeDirectory(dataDir, 0o755)
  return writeKey(path)
}

async function writeKey(path: string): Promise<KeyObject> {
  const { privateKey } = generateKeyPairSync('ed25519')
  await writeFileAtomic(path, privateKey.export({ type: 'pkcs8', format: 'pem' }), 0o600)
  return privateKey
}

function toLibp2pKey(key: KeyObject): Ed25519PrivateKey {
  const { d: seed, x: publicKey } = key.export({ format: 'jwk' })
  if (key.asymmetricKeyType !== 'ed25519' || seed === undefined || publicKey === undefined) {
    throw new Error('not an Ed25519 key')
  }
  const raw = Buffer.concat([Buffer.from(seed, 'base64url'), Buffer.from(publicKey, 'base64url')])
  return privateKeyFromRaw(raw) as Ed25519PrivateKey
}
