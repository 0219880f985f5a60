import { describe, expect, it } from 'vitest'
import { parseContentRequest } from '../../../src/oci/content-request.ts'
import { digestOf, isDigest } from '../../../src/oci/digest.ts'
import { nameFilter } from '../../../src/oci/filter.ts'
import { parseImageReference } from '../../../src/oci/reference.ts'

const digest = digestOf(Buffer.from('x'))

describe('isDigest', () => {
  it('takes sha256 and sha512 of the right length, in lower case', () => {
    expect(isDigest(digest)).toBe(true)
    expect(isDigest(`sha512:${'a'.repeat(128)}`)).toBe(true)
    for (const wrong of [
      '',
      'sha256:',
      digest.toUpperCase(),
      `${digest}0`,
      digest.slice(0, -1),
      'md5:00',
      `${digest}/../x`,
    ]) {
      expect(isDigest(wrong), wrong).toBe(false)
    }
  })
})

describe('parseImageReference', () => {
  it.each([
    ['docker.io/library/nginx:1.29', { registry: 'docker.io', repository: 'library/nginx', tag: '1.29' }],
    ['localhost:5000/a/b_c--d:X', { registry: 'localhost:5000', repository: 'a/b_c--d', tag: 'X' }],
    [`ghcr.io/a@${digest}`, { registry: 'ghcr.io', repository: 'a', digest }],
    [`ghcr.io/a:t@${digest}`, { registry: 'ghcr.io', repository: 'a', tag: 't', digest }],
    ['[::1]:5000/a:t', { registry: '[::1]:5000', repository: 'a', tag: 't' }],
  ])('%s', (text, expected) => {
    expect(parseImageReference(text)).toEqual(expected)
  })

  it.each(['nginx', digest, 'a/B:t', 'a/b:', 'a/b:-x', '/b:t', `a/b:${'t'.repeat(129)}`, 'a//b:t', 'a/b@sha256:00'])(
    'refuses %s',
    (text) => {
      expect(parseImageReference(text)).toBeUndefined()
    },
  )
})

describe('parseContentRequest', () => {
  const parse = (url: string, registry?: string) => parseContentRequest(url, registry)

  it('reads tags and digests', () => {
    expect(parse('/v2/library/nginx/manifests/1.29?ns=docker.io')).toMatchObject({
      outcome: 'content',
      request: { kind: 'manifest', key: 'docker.io/library/nginx:1.29', tag: '1.29', digest: undefined },
    })
    expect(parse(`/v2/a/blobs/${digest}?ns=ghcr.io`)).toMatchObject({
      outcome: 'content',
      request: { kind: 'blob', key: digest, digest },
    })
  })

  it('knows content by digest without a registry, but not a tag', () => {
    expect(parse(`/v2/a/manifests/${digest}`)).toMatchObject({ outcome: 'content', request: { registry: undefined } })
    expect(parse('/v2/a/manifests/t')).toMatchObject({ outcome: 'invalid', kind: 'manifest' })
    expect(parse('/v2/a/manifests/t', 'ghcr.io')).toMatchObject({
      outcome: 'content',
      request: { key: 'ghcr.io/a:t' },
    })
  })

  it('understands encoded colons, and repositories that are called blobs', () => {
    expect(parse(`/v2/a/blobs/${digest.replace(':', '%3A')}?ns=x`)).toMatchObject({ request: { key: digest } })
    expect(parse(`/v2/blobs/manifests/blobs/${digest}?ns=x`)).toMatchObject({
      request: { repository: 'blobs/manifests', key: digest },
    })
  })

  it.each(['/v2', '/v2/', '/v2/?ns=x'])('%s is the base', (url) => {
    expect(parse(url)).toEqual({ outcome: 'base' })
  })

  it.each([
    '/v2/a/tags/list',
    '/v2/a/blobs/latest?ns=x',
    '/v2/A/manifests/t?ns=x',
    '/v2/a/manifests/t?ns=not a host',
    '/v2/../a/manifests/t?ns=x',
    '/v2/a%2f%2e%2e/manifests/t?ns=x',
    '/v2/a/manifests/%zz?ns=x',
    '/v2/a/manifests/',
    '//',
    '/v2/a/manifests/t?ns=',
  ])('%s is refused', (url) => {
    expect(parse(url)).toMatchObject({ outcome: 'invalid' })
  })
})

describe('nameFilter', () => {
  const name = (registry: string, repository: string, tag?: string) => ({ registry, repository, tag })

  it('keeps to the mirrored registries', () => {
    const filter = nameFilter(['docker.io'], [])
    expect(filter.allows(name('docker.io', 'a', 't'))).toBe(true)
    expect(filter.allows(name('ghcr.io', 'a', 't'))).toBe(false)
    expect(filter.allows({ registry: undefined, repository: 'a', tag: undefined })).toBe(true)
  })

  it('leaves out what matches, :latest$ only where there is a tag', () => {
    const filter = nameFilter([], [/:latest$/, /^ghcr\.io\/private\//])
    expect(filter.allows(name('docker.io', 'a', 'latest'))).toBe(false)
    expect(filter.allows(name('docker.io', 'a', 'v1'))).toBe(true)
    expect(filter.allows(name('docker.io', 'a'))).toBe(true)
    expect(filter.allows(name('ghcr.io', 'private/a', 'v1'))).toBe(false)
  })
})
