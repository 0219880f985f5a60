/** Base images from packages of the distribution, for building where no image registry is at hand. */
import { execFile } from 'node:child_process'
import { cp, mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Architecture } from '../src/images/wait-program.ts'
import type { Buildah } from './buildah.ts'
import { prepareBusybox, prepareLibraries } from './debian.ts'

const run = promisify(execFile)

/** That of the image that the Dockerfile names. */
const npmVersion = '11.19.1'
const debianNames: Record<Architecture, string> = { amd64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }
/** Where Debian, and this machine, keep certificates of authorities. */
export const certificatesFolder = '/etc/ssl/certs'

export interface Base {
  /** In Buildah's storage. */
  name: string
  architecture: Architecture
}

/** What Node needs to run, and no program. */
export async function buildRuntimeBase(buildah: Buildah, architecture: Architecture, say: Say): Promise<Base> {
  return build(buildah, `runtime-${architecture}`, architecture, '', (folder) =>
    addLibraries(folder, architecture, say),
  )
}

/** The same with a shell, Node and npm, for this machine. */
export async function buildToolsBase(buildah: Buildah, say: Say): Promise<Base> {
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'
  const settings = `ENV PATH=/usr/local/bin:/bin NODE_EXTRA_CA_CERTS=${certificatesFolder}/ca-certificates.crt`
  return build(buildah, 'tools', architecture, settings, async (folder) => {
    await addLibraries(folder, architecture, say)
    await addBusybox(folder, say)
    const local = join(folder, 'usr/local')
    await mkdir(join(local, 'bin'), { recursive: true })
    await cp(process.execPath, join(local, 'bin/node'))
    await addNpm(local)
  })
}

type Say = (line: string) => void

async function build(
  buildah: Buildah,
  name: string,
  architecture: Architecture,
  settings: string,
  fill: (folder: string) => Promise<void>,
): Promise<Base> {
  const folder = join(buildah.folder, name)
  await mkdir(folder)
  await fill(folder)
  const dockerfile = `${folder}.Dockerfile`
  await writeFile(dockerfile, `FROM scratch\nCOPY . /\n${settings}\n`)
  await buildah.build(folder, ['--file', dockerfile, '--platform', `linux/${architecture}`, '--tag', name])
  return { name: `localhost/${name}`, architecture }
}

async function addLibraries(folder: string, architecture: Architecture, say: Say): Promise<void> {
  await cp(await prepareLibraries(architecture, say), folder, { recursive: true, verbatimSymlinks: true })
  // As all distributions have it by now: one folder, whichever way a program names it.
  for (const name of (await readdir(folder)).filter((entry) => entry.startsWith('lib'))) {
    await cp(join(folder, name), join(folder, 'usr', name), { recursive: true, verbatimSymlinks: true })
    await rm(join(folder, name), { recursive: true })
    await symlink(`usr/${name}`, join(folder, name))
  }
  // Conversions between character sets that Node does by itself, documentation, helpers of debuggers.
  await rm(join(folder, 'usr/lib', debianNames[architecture], 'gconv'), { recursive: true })
  await rm(join(folder, 'usr/share'), { recursive: true })
  await mkdir(join(folder, 'etc'), { recursive: true })
  await writeFile(join(folder, 'etc/passwd'), 'root:x:0:0:root:/root:/none\nnonroot:x:65532:65532:nonroot:/:/none\n')
  await writeFile(join(folder, 'etc/group'), 'root:x:0:\nnonroot:x:65532:\n')
}

async function addBusybox(folder: string, say: Say): Promise<void> {
  const busybox = await prepareBusybox(say)
  await mkdir(join(folder, 'bin'))
  await cp(busybox, join(folder, 'bin/busybox'))
  const { stdout } = await run(busybox, ['--list'])
  for (const name of stdout.trim().split('\n')) {
    if (name !== 'busybox') await symlink('busybox', join(folder, 'bin', name))
  }
  await mkdir(join(folder, 'usr/bin'), { recursive: true })
  await symlink('/bin/env', join(folder, 'usr/bin/env'))
  for (const name of ['tmp', 'root']) await mkdir(join(folder, name))
}

async function addNpm(local: string): Promise<void> {
  const modules = join(local, 'lib/node_modules')
  await mkdir(modules, { recursive: true })
  await run('npm', ['pack', `npm@${npmVersion}`, '--pack-destination', modules])
  const archive = join(modules, `npm-${npmVersion}.tgz`)
  await run('tar', ['-xzf', archive, '-C', modules, '--no-same-owner'])
  await rm(archive)
  await rename(join(modules, 'package'), join(modules, 'npm'))
  await symlink('../lib/node_modules/npm/bin/npm-cli.js', join(local, 'bin/npm'))
}
