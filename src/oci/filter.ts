/** Which registries and names the mirror has anything to do with. */
import { tagKey } from './reference.ts'

export interface NameFilter {
  /** False when every name is allowed. */
  readonly isRestricted: boolean
  /** True when a request for this name may be answered, or this tag advertised. */
  allows(name: { registry: string | undefined; repository: string; tag: string | undefined }): boolean
}

/**
 * `mirroredRegistries`: hosts; empty means all. `excluded`: what matches `registry/repository[:tag]` is left alone.
 * A request by digest has no tag, so an expression like `:latest$` only concerns tags.
 */
export function nameFilter(mirroredRegistries: readonly string[], excluded: readonly RegExp[]): NameFilter {
  const hosts = new Set(mirroredRegistries)
  return {
    isRestricted: hosts.size > 0 || excluded.length > 0,
    allows({ registry, repository, tag }) {
      if (registry === undefined) return true
      if (hosts.size > 0 && !hosts.has(registry)) return false
      const name = tag === undefined ? `${registry}/${repository}` : tagKey(registry, repository, tag)
      return !excluded.some((expression) => expression.test(name))
    },
  }
}
