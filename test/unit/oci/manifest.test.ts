import { describe, expect, it } from 'vitest'
import { manifestMediaType } from '../../../src/oci/manifest.ts'

const typeOf = (document: unknown) => manifestMediaType(Buffer.from(JSON.stringify(document)))

describe('manifestMediaType', () => {
  it('takes the type that the document states, also one that it does not know', () => {
    expect(typeOf({ schemaVersion: 2, mediaType: 'application/vnd.docker.distribution.manifest.v2+json' })).toBe(
      'application/vnd.docker.distribution.manifest.v2+json',
    )
    expect(typeOf({ mediaType: 'application/vnd.example.of.tomorrow+json' })).toBe(
      'application/vnd.example.of.tomorrow+json',
    )
  })

  it('tells OCI documents without a type by their fields', () => {
    expect(typeOf({ schemaVersion: 2, manifests: [] })).toBe('application/vnd.oci.image.index.v1+json')
    expect(typeOf({ schemaVersion: 2, config: {}, layers: [] })).toBe('application/vnd.oci.image.manifest.v1+json')
  })

  it('does not take other content for a manifest', () => {
    const config = { architecture: 'amd64', os: 'linux', config: { Cmd: ['/x'] }, rootfs: { type: 'layers' } }
    for (const other of [config, {}, [], 'text', null, { mediaType: 'a\r\nb' }]) {
      expect(typeOf(other), JSON.stringify(other)).toBeUndefined()
    }
    expect(manifestMediaType(Buffer.from([0x1f, 0x8b, 8, 0]))).toBeUndefined()
  })
})
