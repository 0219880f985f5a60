/** The image, built from this checkout's files by the Dockerfile; kept below `.cache/` until one of them changes. */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type BuiltImage, buildImage, readImage } from '../../image/build.ts'

const root = join(import.meta.dirname, '../..')
const inputs = [
  '.dockerignore',
  '.npmrc',
  'Dockerfile',
  'LICENSE',
  'build.ts',
  'image',
  'package-lock.json',
  'package.json',
  'src',
  'tsconfig.json',
]

export const imageName = 'spegel-ts.test/spegel-ts:v1'

/** The layout that holds it, under `imageName`. The first time takes two minutes. */
export async function prepareImage(say: (line: string) => void): Promise<{ layout: string; image: BuiltImage }> {
  const cache = join(root, '.cache/image')
  const layout = join(cache, hashOfInputs())
  if (!existsSync(layout)) {
    await mkdir(cache, { recursive: true })
    for (const old of await readdir(cache)) await rm(join(cache, old), { recursive: true })
    say('building the image (about two minutes, once)')
    await buildImage(layout, imageName, say)
  }
  return { layout, image: await readImage(layout) }
}

function hashOfInputs(): string {
  const hash = createHash('sha256')
  const files = inputs.flatMap((input) =>
    statSync(join(root, input)).isDirectory()
      ? readdirSync(join(root, input), { recursive: true, encoding: 'utf8' }).map((name) => join(input, name))
      : [input],
  )
  for (const file of files.sort().filter((name) => statSync(join(root, name)).isFile())) {
    hash.update(`${file}\0`).update(readFileSync(join(root, file)))
  }
  return hash.digest('hex').slice(0, 12)
}
