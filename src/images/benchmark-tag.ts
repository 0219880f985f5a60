/** Tags of benchmark images say what they are: `v1-10MB-4` is version v1, 10 MB in 4 layers. */
import { UserError } from '../lib/errors.ts'
import { parseSizeBytes } from './size.ts'

/** Runtimes stack no more than this. */
export const layersMax = 127

export interface BenchmarkTag {
  tag: string
  /** Images of two versions have different bytes. */
  version: string
  sizeBytes: number
  layers: number
}

/** Throws a UserError. */
export function parseBenchmarkTag(tag: string): BenchmarkTag {
  const [, version, size, layersText] = /^([A-Za-z0-9_][A-Za-z0-9_.]*)-([^-]+)-(\d+)$/.exec(tag) ?? []
  if (tag.length > 128 || version === undefined || size === undefined) {
    throw new UserError(`"${tag}" is not a benchmark image: write VERSION-SIZE-LAYERS, such as v1-10MB-4`)
  }
  const layers = Number(layersText)
  if (layers < 1 || layers > layersMax)
    throw new UserError(`"${tag}": the number of layers must be 1 to ${layersMax}`)
  return { tag, version, sizeBytes: parseSizeBytes(size), layers }
}

/** What `measure` pulls by default: small, middle and large, whole and in parts, and an update of each. */
export function suiteImages(): BenchmarkTag[] {
  return ['v1', 'v2'].flatMap((version) =>
    ['10MB', '100MB', '1GB'].flatMap((size) =>
      [1, 4].map((layers) => parseBenchmarkTag(`${version}-${size}-${layers}`)),
    ),
  )
}
