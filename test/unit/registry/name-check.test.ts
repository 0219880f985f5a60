import { describe, expect, it } from 'vitest'
import { digestOf } from '../../../src/oci/digest.ts'
import { nameFilter } from '../../../src/oci/filter.ts'
import { NameCheck } from '../../../src/registry/name-check.ts'

const digest = digestOf(Buffer.from('blob'))
const request = {
  kind: 'blob',
  registry: 'ghcr.io',
  repository: 'public/app',
  tag: undefined,
  digest,
  key: digest,
} as const
const storeOf = (...repositories: string[]) => ({ facts: () => Promise.resolve({ isManifest: false, repositories }) })

describe('with a filter', () => {
  const filter = nameFilter(['ghcr.io'], [/^ghcr\.io\/private\//])

  it('a request has to name its registry', () => {
    const names = new NameCheck(filter, storeOf())
    expect(names.allowsRequest(request)).toBe(true)
    expect(names.allowsRequest({ ...request, registry: undefined })).toBe(false)
    expect(names.allowsRequest({ ...request, repository: 'private/app' })).toBe(false)
    expect(names.allowsRequest({ ...request, registry: 'quay.io' })).toBe(false)
  })

  it('a blob is served only if it was pulled from an allowed repository, or its repositories are unknown', async () => {
    const allowed = (...repositories: string[]) =>
      new NameCheck(filter, storeOf(...repositories)).allowsStored(digest)
    expect(await allowed('ghcr.io/private/app')).toBe(false)
    expect(await allowed('quay.io/public/app')).toBe(false)
    expect(await allowed('ghcr.io/private/app', 'ghcr.io/public/app')).toBe(true)
    expect(await allowed()).toBe(true)
  })

  it('a blob that is still arriving is served only after containerd requested it here under an allowed name', () => {
    const names = new NameCheck(filter, storeOf())
    expect(names.allowsArriving(digest)).toBe(false)
    names.noteOwnRequest(request)
    expect(names.allowsArriving(digest)).toBe(true)
  })
})

describe('without a filter', () => {
  it('every request and every blob is allowed, and the store is not asked', async () => {
    const names = new NameCheck(nameFilter([], []), { facts: () => Promise.reject(new Error('asked')) })
    expect(names.allowsRequest({ ...request, registry: undefined })).toBe(true)
    expect(await names.allowsStored(digest)).toBe(true)
    expect(names.allowsArriving(digest)).toBe(true)
  })
})
