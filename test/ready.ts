/**
 * Makes sure that the development tools are whole. npm skips optional packages that ask for a newer Node than the one
 * it runs on itself: with the Node 18 of Debian 12 or Ubuntu 24.04 the native parts of the tools are missing after
 * `npm ci`. They are installed here by the same npm on this checkout's Node.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

interface LockedPackage {
  optional?: boolean
  os?: string[]
  cpu?: string[]
  libc?: string[]
}

const root = join(import.meta.dirname, '..')
const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
  packages: Record<string, LockedPackage>
}

const missing = Object.entries(lock.packages).filter(
  ([path, { optional, os, cpu, libc }]) =>
    optional === true &&
    os?.includes('linux') === true &&
    cpu?.includes(process.arch) === true &&
    libc?.includes('musl') !== true &&
    !existsSync(join(root, path)),
)

if (missing.length > 0) {
  const npm = process.env['npm_execpath']
  process.stderr.write(
    `set-up: installing ${missing.length} packages that npm skipped, since it runs on an older Node\n`,
  )
  if (npm === undefined) throw new Error('run this by npm: npm run ready')
  const { status } = spawnSync(process.execPath, [npm, 'install', '--no-save'], { cwd: root, stdio: 'inherit' })
  process.exitCode = status ?? 1
}
