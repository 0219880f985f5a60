/**
 * Images to measure pulls with, which can be run: for amd64 and arm64, of a given compressed size and number of layers,
 * incompressible. The same arguments give the same digests.
 */
import { UserError, errorCode, errorMessage } from '../lib/errors.ts'
import { layersMax } from './benchmark-tag.ts'
import { type Descriptor, type WrittenLayer, addToIndex, writeJson, writeLayer } from './layout.ts'
import { mediaTypes } from './media-types.ts'
import { seededBytes } from './seeded-bytes.ts'
import { type TarFile, tar, tarFileBytesMax, tarOverheadBytes } from './tar.ts'
import { architectures, waitProgram } from './wait-program.ts'

/** Room for the programs and the headers. */
const layerBytesMin = 16 * 1024
/** Nobody: clusters may forbid root. */
const user = '65532:65532'

export interface BenchmarkImageSpec {
  /** `registry/repository:tag`, the name in the layout. */
  name: string
  /** Of all layers, compressed. */
  sizeBytes: number
  layers: number
  seed: string
  /** So many layers, the first ones, do not depend on the seed: images of the same size and layers share them. */
  sharedLayers?: number
  /** What the shared layers are made from instead. */
  sharedSeed?: string
  onProgress?: (doneBytes: number, totalBytes: number) => void
  signal?: AbortSignal
}

export interface BenchmarkImage {
  /** The index of both platforms. */
  target: Descriptor
  manifests: Descriptor[]
  configs: Descriptor[]
  /** The same for both platforms. */
  layers: Descriptor[]
}

/** Adds the image to the layout folder, which is made if it is not there. Throws a UserError. */
export async function writeBenchmarkImage(layout: string, spec: BenchmarkImageSpec): Promise<BenchmarkImage> {
  check(spec)
  try {
    return await write(layout, spec)
  } catch (error) {
    spec.signal?.throwIfAborted()
    // A full disk, a folder that is not ours: for the user to mend.
    if (errorCode(error) === undefined) throw error
    throw new UserError(`cannot write the image ${spec.name} to ${layout}: ${errorMessage(error)}`, { cause: error })
  }
}

function check({ name, sizeBytes, layers, sharedLayers = 0 }: BenchmarkImageSpec): void {
  if (!Number.isSafeInteger(layers) || layers < 1 || layers > layersMax) {
    throw new UserError(`${name}: the number of layers must be 1 to ${layersMax}`)
  }
  if (!Number.isSafeInteger(sharedLayers) || sharedLayers < 0 || sharedLayers > layers) {
    throw new UserError(`${name}: the number of shared layers must be 0 to ${layers}, the number of layers`)
  }
  const layerBytes = Math.floor(sizeBytes / layers)
  if (layerBytes < layerBytesMin) {
    throw new UserError(`${name}: ${sizeBytes} bytes are too few: a layer has at least ${layerBytesMin}`)
  }
  if (layerBytes > tarFileBytesMax) {
    throw new UserError(`${name}: ${sizeBytes} bytes are too many: a layer has at most ${tarFileBytesMax}`)
  }
}

async function write(layout: string, spec: BenchmarkImageSpec): Promise<BenchmarkImage> {
  const written: WrittenLayer[] = []
  let doneBytes = 0
  for (let number = 0; number < spec.layers; number++) {
    const layer = await writeLayer(layout, tar(layerFiles(spec, number)), {
      onBytes: (bytes) => {
        doneBytes += bytes
        spec.onProgress?.(Math.min(doneBytes, spec.sizeBytes), spec.sizeBytes)
      },
      ...(spec.signal === undefined ? {} : { signal: spec.signal }),
    })
    written.push(layer)
  }
  const types = mediaTypes.oci
  const layers = written.map(({ blob }) => ({ mediaType: types.layer, ...blob }))
  const configs: Descriptor[] = []
  const manifests: Descriptor[] = []
  for (const architecture of architectures) {
    const config = await writeJson(layout, types.config, {
      architecture,
      os: 'linux',
      config: { Entrypoint: [`/wait-${architecture}`], User: user, WorkingDir: '/' },
      rootfs: { type: 'layers', diff_ids: written.map(({ diffId }) => diffId) },
    })
    configs.push(config)
    manifests.push(
      await writeJson(layout, types.manifest, { schemaVersion: 2, mediaType: types.manifest, config, layers }),
    )
  }
  const target = await writeJson(layout, types.index, {
    schemaVersion: 2,
    mediaType: types.index,
    manifests: manifests.map((manifest, index) => ({
      ...manifest,
      platform: { architecture: architectures[index], os: 'linux' },
    })),
  })
  await addToIndex(layout, target, spec.name)
  return { target, manifests, configs, layers }
}

/** Both programs are in the first layer, so that the layers of both platforms are the same blobs. */
function layerFiles(spec: BenchmarkImageSpec, number: number): TarFile[] {
  const { sizeBytes, layers, seed, sharedLayers = 0, sharedSeed = null } = spec
  const programs = number === 0 ? architectures.map(programFile) : []
  const programBytes = programs.map((program) => program.sizeBytes)
  const usedBytes = programBytes.reduce((sum, bytes) => sum + bytes, tarOverheadBytes([...programBytes, 0]))
  const dataBytes = Math.floor(sizeBytes / layers) - usedBytes
  // Size and layers are part of it: of two images of one seed, one must not begin with the bytes of the other.
  const layerSeed = JSON.stringify([number < sharedLayers ? [sharedSeed] : seed, sizeBytes, layers, number])
  return [
    ...programs,
    { path: `data-${number}`, mode: 0o644, sizeBytes: dataBytes, content: seededBytes(layerSeed, dataBytes) },
  ]
}

function programFile(architecture: (typeof architectures)[number]): TarFile {
  const bytes = waitProgram(architecture)
  return { path: `wait-${architecture}`, mode: 0o755, sizeBytes: bytes.length, content: [bytes] }
}
