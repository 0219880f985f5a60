/** `npm run image -- --output DIR`: builds the image into an OCI layout. */
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { architectures } from '../src/images/wait-program.ts'
import { UserError, errorMessage } from '../src/lib/errors.ts'
import { buildImage, downloadBytes } from './build.ts'

const MiB = 1024 * 1024

try {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
    version: string
  }
  const { output, name } = readArguments(version)
  const { target, manifests } = await buildImage(output, name, (line) => process.stderr.write(`${line}\n`))
  process.stdout.write(`${name} ${target.digest} in ${output}\n`)
  for (const architecture of architectures) {
    const bytes = await downloadBytes(output, manifests[architecture])
    process.stdout.write(
      `  ${architecture} ${manifests[architecture].digest} ${(bytes / MiB).toFixed(1)} MiB to download\n`,
    )
  }
} catch (error) {
  if (!(error instanceof UserError)) throw error
  process.stderr.write(`image: ${error.message}\n`)
  process.exitCode = 1
}

function readArguments(version: string): { output: string; name: string } {
  const options = { output: { type: 'string' }, name: { type: 'string' } } as const
  try {
    const { output, name = `ghcr.io/spegel-ts/spegel-ts:${version}` } = parseArgs({ options }).values
    if (output === undefined) throw new Error('--output is required: name a folder for the OCI layout')
    return { output: resolve(output), name }
  } catch (error) {
    throw new UserError(errorMessage(error))
  }
}
