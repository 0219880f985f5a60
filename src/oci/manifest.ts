/** Media types of manifests (OCI image spec, media-types.md; Docker image manifest v2 schema 2). */
import { parseJsonObject } from '../lib/foreign.ts'

const manifestTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
} as const

/** What a client that takes any manifest accepts. */
export const manifestMediaTypes: readonly string[] = Object.values(manifestTypes)

interface Descriptor {
  mediaType: string
  digest: string
  size: number
}

/** The fields of an index or manifest that we look at. */
export interface ManifestDocument {
  schemaVersion?: number
  mediaType?: string
  config?: Descriptor
  layers?: Descriptor[]
  manifests?: (Descriptor & { platform?: { architecture?: string; os?: string } })[]
}

/**
 * The media type to serve these bytes with, or undefined when they are not a manifest. `mediaType` may be left out of
 * an OCI document: then the fields tell. A type that we do not know is passed on, artifacts of tomorrow included.
 */
export function manifestMediaType(bytes: Uint8Array): string | undefined {
  const document = parseManifest(bytes)
  if (document === undefined) return undefined
  if (typeof document.mediaType === 'string' && /^[\w.+-]+\/[\w.+-]+$/.test(document.mediaType)) {
    return document.mediaType
  }
  // An image configuration has a "config" too, but no schemaVersion.
  if (document.schemaVersion !== 2) return undefined
  if (Array.isArray(document.manifests)) return manifestTypes.ociIndex
  return document.config === undefined ? undefined : manifestTypes.ociManifest
}

/** Undefined unless the bytes are a JSON object. */
export function parseManifest(bytes: Uint8Array): ManifestDocument | undefined {
  return parseJsonObject(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'))
}
