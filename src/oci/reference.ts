/**
 * Names of images. Grammar: OCI distribution spec ("Pulling manifests") for repository and tag; the registry is a
 * host with an optional port, as containerd stores it: `docker.io/library/nginx:1.29`.
 */
import { type Digest, isDigest } from './digest.ts'

const repositoryPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const tagPattern = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/
const registryPattern = /^(?:\[[a-fA-F0-9:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::\d{1,5})?$/

/** OCI: many implementations limit host and repository to 255 characters in all. */
const nameLengthMax = 255

export interface ImageReference {
  registry: string
  repository: string
  tag?: string
  digest?: Digest
}

export function isRepository(text: string): boolean {
  return text.length <= nameLengthMax && repositoryPattern.test(text)
}

export function isTag(text: string): boolean {
  return tagPattern.test(text)
}

export function isRegistry(text: string): boolean {
  return text.length <= nameLengthMax && registryPattern.test(text)
}

/** Undefined when the text does not name an image of a registry (a bare id, a name without a host). */
export function parseImageReference(text: string): ImageReference | undefined {
  const [name = '', digest] = text.split('@', 2)
  const slash = name.indexOf('/')
  if (slash < 0) return undefined
  const registry = name.slice(0, slash)
  const colon = name.indexOf(':', slash)
  const repository = name.slice(slash + 1, colon < 0 ? undefined : colon)
  const tag = colon < 0 ? undefined : name.slice(colon + 1)
  if (!isRegistry(registry) || !isRepository(repository)) return undefined
  if (tag !== undefined && !isTag(tag)) return undefined
  if (digest !== undefined && !isDigest(digest)) return undefined
  return {
    registry,
    repository,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  }
}

/** The content key of a tag, as it is looked up in the swarm: `registry/repository:tag`. */
export function tagKey(registry: string, repository: string, tag: string): string {
  return `${registry}/${repository}:${tag}`
}
