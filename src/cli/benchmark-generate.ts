/** `spegel-ts benchmark generate`: one image or the suite, into a layout, to a registry, or both. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeBenchmarkImage } from '../images/benchmark-image.ts'
import { suiteImages } from '../images/benchmark-tag.ts'
import { pushImage } from '../images/push.ts'
import { parsePushTarget } from '../images/push-target.ts'
import type { GenerateOptions } from './benchmark-options.ts'
import type { Surroundings } from './command.ts'
import { UsageError } from './option.ts'

interface Wanted {
  tag: string
  seed: string
  sizeBytes: number
  layers: number
  sharedLayers: number
}

export async function generate(options: GenerateOptions, surroundings: Surroundings): Promise<void> {
  const { output, push, suite } = options
  if (output === undefined && push === undefined) {
    throw new UsageError('benchmark generate: where to? Give --output FOLDER or --push URL')
  }
  // Before anything is made: a URL that cannot be understood must not cost minutes.
  const target = push === undefined ? undefined : parsePushTarget(suite ? `${push}:suite` : push)
  for (const image of wantedImages(options, target?.tag)) {
    const name =
      target === undefined ? `benchmark:${image.tag}` : `${target.registry}/${target.repository}:${image.tag}`
    const url = suite ? `${push}:${image.tag}` : push
    await makeOne(
      name,
      image,
      { output: suite && output !== undefined ? join(output, image.tag) : output, url },
      surroundings,
    )
  }
}

function wantedImages(
  { suite, size, layers, seed, shareLayers }: GenerateOptions,
  tag: string | undefined,
): Wanted[] {
  if (suite) {
    return suiteImages().map((image) => ({ ...image, seed: image.version, sharedLayers: shareLayers }))
  }
  if (size === undefined) throw new UsageError('benchmark generate: --size is needed, or --suite')
  return [{ tag: tag ?? seed.replaceAll(/[^\w.-]/g, '-'), seed, sizeBytes: size, layers, sharedLayers: shareLayers }]
}

async function makeOne(
  name: string,
  { tag, ...spec }: Wanted,
  { output, url }: { output: string | undefined; url: string | undefined },
  { write, writeError, isTerminal, env, stop }: Surroundings,
): Promise<void> {
  const layout = output ?? (await mkdtemp(join(tmpdir(), 'spegel-ts-generate-')))
  const show = percentShower(isTerminal ? writeError : () => undefined)
  try {
    const image = await writeBenchmarkImage(layout, {
      name,
      ...spec,
      signal: stop,
      onProgress: show(`${tag}: writing`),
    })
    if (url !== undefined) {
      const pushed = await pushImage({ layout, image, url, env, signal: stop, onProgress: show(`${tag}: pushing`) })
      writeError(`${tag}: ${pushed.sentBytes} bytes sent, ${pushed.skippedBytes} were there\n`)
    }
    write(`${output ?? name} ${image.target.digest}\n`)
  } finally {
    if (output === undefined) await rm(layout, { recursive: true, force: true })
  }
}

/** One line that renews itself. */
function percentShower(writeError: (text: string) => void) {
  return (what: string) => {
    let shown = -1
    return (doneBytes: number, totalBytes: number) => {
      const percent = Math.floor((100 * doneBytes) / Math.max(1, totalBytes))
      if (percent === shown) return
      shown = percent
      writeError(`\r\u001B[2K${what} ${percent} %${percent === 100 ? '\n' : ''}`)
    }
  }
}
