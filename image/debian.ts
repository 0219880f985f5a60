/**
 * What building the image takes from the distribution: programs for this machine, libraries for those that the image is
 * for. Downloaded by apt and unpacked below `.cache/tools`, nothing is installed. What was unpacked once is used again.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Architecture } from '../src/images/wait-program.ts'
import { UserError, errorMessage } from '../src/lib/errors.ts'
import { apt, cacheFolder, exists, withLock } from '../src/testbed/tools.ts'

const run = promisify(execFile)

type Say = (line: string) => void

/** Builds images from a Dockerfile, as a plain program of root's. */
export async function prepareBuildah(say: Say): Promise<string> {
  // It runs itself again from memory and without its environment, so it must know by path where its libraries are: in a
  // checkout that was moved it is unpacked again.
  const name = `buildah-${createHash('sha256').update(cacheFolder).digest('hex').slice(0, 12)}`
  const target = await once(name, say, async (folder) => {
    const debs = join(folder, 'debs')
    await mkdir(join(debs, 'partial'), { recursive: true })
    await apt(['update'])
    // With what they depend on and this system has not.
    const download = ['install', '--yes', '--download-only', '--reinstall', '--no-install-recommends']
    await apt([
      '-o',
      `Dir::Cache::Archives=${debs}`,
      '-o',
      'Debug::NoLocking=true',
      ...download,
      'buildah',
      'patchelf',
    ])
    await unpackAll(debs, folder)
    const { stdout } = await run('find', [folder, '-name', 'lib*.so*', '-printf', String.raw`%h\n`])
    const libraries = [...new Set(stdout.trim().split('\n'))].map((path) =>
      path.replace(folder, join(cacheFolder, name)),
    )
    const patch = ['--force-rpath', '--set-rpath', libraries.join(':'), join(folder, 'usr/bin/buildah')]
    await run(join(folder, 'usr/bin/patchelf'), patch)
  })
  return join(target, 'usr/bin/buildah')
}

/** The libraries that Node needs (`ldd`), and nothing else of the packages' architecture. */
export function prepareLibraries(architecture: Architecture, say: Say): Promise<string> {
  return once(`libraries-${architecture}`, say, async (folder) => {
    const debs = join(folder, 'debs')
    const state = join(folder, 'apt')
    await mkdir(debs)
    await mkdir(join(state, 'lists/partial'), { recursive: true })
    // Lists of its own: the system need not know of another architecture.
    const options = [
      `APT::Architecture=${architecture}`,
      `APT::Architectures=${architecture}`,
      `Dir::State::Lists=${join(state, 'lists')}`,
      'Dir::State::Status=/dev/null',
      `Dir::Cache=${state}`,
    ].flatMap((option) => ['-o', option])
    await apt([...options, 'update'])
    await apt([...options, 'download', 'libc6', 'libgcc-s1', 'libstdc++6'], { cwd: debs })
    await unpackAll(debs, folder)
    await rm(state, { recursive: true })
  })
}

/** A shell and the usual tools in one program that needs no libraries. */
export async function prepareBusybox(say: Say): Promise<string> {
  const target = await once('busybox', say, async (folder) => {
    const debs = join(folder, 'debs')
    await mkdir(debs)
    await apt(['update'])
    await apt(['download', 'busybox-static'], { cwd: debs })
    await unpackAll(debs, folder)
  })
  const merged = join(target, 'usr/bin/busybox')
  return (await exists(merged)) ? merged : join(target, 'bin/busybox')
}

/** Fills a folder of the cache, unless it is there. Returns its path. */
async function once(name: string, say: Say, fill: (folder: string) => Promise<void>): Promise<string> {
  const target = join(cacheFolder, name)
  await mkdir(cacheFolder, { recursive: true })
  return withLock(async () => {
    if (await exists(target)) return target
    say(`unpacking packages of the distribution to ${target}`)
    const work = `${target}.${process.pid}`
    try {
      await mkdir(work)
      await fill(work)
      await rename(work, target)
    } catch (error) {
      throw new UserError(`cannot get ${name} from the distribution: ${errorMessage(error)}`)
    } finally {
      await rm(work, { recursive: true, force: true })
    }
    return target
  })
}

async function unpackAll(debs: string, folder: string): Promise<void> {
  for (const name of (await readdir(debs)).filter((file) => file.endsWith('.deb'))) {
    await run('dpkg', ['-x', join(debs, name), folder])
  }
  await rm(debs, { recursive: true })
}
