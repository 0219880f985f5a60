/** What upstream was asked for, by kind and status. */
import type { AccessLogEntry } from '../../testbed/registry-process.ts'
import type { RequestCount } from '../result/schema.ts'

export function countRequests(entries: readonly AccessLogEntry[]): RequestCount[] {
  const counts = new Map<string, RequestCount>()
  for (const { method, path, status } of entries) {
    const kind = requestKind(path)
    const key = `${kind} ${method} ${status}`
    const count = counts.get(key)?.count ?? 0
    counts.set(key, { kind, method, status, count: count + 1 })
  }
  return [...counts.values()]
}

function requestKind(path: string): RequestCount['kind'] {
  const [, kind, name = ''] = /\/(manifests|blobs)\/([^/?]+)/.exec(path) ?? []
  if (kind === 'blobs') return 'blob'
  if (kind === undefined) return 'other'
  return name.startsWith('sha256:') ? 'manifest' : 'tag'
}
