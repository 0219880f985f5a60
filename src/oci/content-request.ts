/** What a request under /v2/ asks for (OCI distribution spec, endpoints end-2 and end-3, plus containerd's `ns`). */
import { parsed } from '../lib/foreign.ts'
import { type Digest, isDigest } from './digest.ts'
import { isRegistry, isRepository, isTag, tagKey } from './reference.ts'

export interface ContentRequest {
  kind: 'manifest' | 'blob'
  /** The registry that the name belongs to: the `ns` parameter that containerd adds. Digests do without. */
  registry: string | undefined
  repository: string
  /** Exactly one of tag and digest is set. */
  tag: string | undefined
  digest: Digest | undefined
  /** What is looked up in the swarm: the digest, or `registry/repository:tag`. */
  key: string
}

export type ParsedRequest =
  | { outcome: 'content'; request: ContentRequest }
  | { outcome: 'base' }
  | { outcome: 'invalid'; reason: string; kind: ContentRequest['kind'] | undefined }

const pathPattern = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/

/** `defaultRegistry` stands in where a request names no registry. */
export function parseContentRequest(url: string, defaultRegistry?: string): ParsedRequest {
  const location = URL.parse(url, 'http://mirror.invalid')
  if (location === null) return invalid('the URL does not parse')
  if (location.pathname === '/v2/' || location.pathname === '/v2') return { outcome: 'base' }
  const path = decode(location.pathname)
  const match = path === undefined ? null : pathPattern.exec(path)
  if (match === null) return invalid('the path is neither a manifest nor a blob')
  const [, repository = '', section, reference = ''] = match
  const kind = section === 'manifests' ? 'manifest' : 'blob'
  if (!isRepository(repository)) return invalid('the repository name is not valid', kind)
  const registry = location.searchParams.get('ns') ?? defaultRegistry
  if (registry !== undefined && !isRegistry(registry)) return invalid('the ns parameter is not a registry', kind)

  if (isDigest(reference)) {
    return content({ kind, registry, repository, tag: undefined, digest: reference, key: reference })
  }
  if (kind === 'blob') return invalid('a blob is asked for by digest', kind)
  if (!isTag(reference)) return invalid('the reference is neither a digest nor a tag', kind)
  if (registry === undefined) {
    return invalid('a tag needs to know its registry: add ?ns=, or start with --default-registry', kind)
  }
  const key = tagKey(registry, repository, reference)
  return content({ kind, registry, repository, tag: reference, digest: undefined, key })
}

function content(request: ContentRequest): ParsedRequest {
  return { outcome: 'content', request }
}

function invalid(reason: string, kind?: ContentRequest['kind']): ParsedRequest {
  return { outcome: 'invalid', reason, kind }
}

function decode(path: string): string | undefined {
  return parsed(() => decodeURIComponent(path))
}
