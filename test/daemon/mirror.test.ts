import { readFile } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { blobPath } from '../../src/testbed/layout-writer.ts'
import { DaemonGroup, type TestDaemon, eventually } from '../support/daemons.ts'

describe('two daemons', () => {
  let group: DaemonGroup
  let holder: TestDaemon
  let asker: TestDaemon

  beforeEach(async () => {
    group = new DaemonGroup()
    holder = await group.start()
    asker = await group.start()
  })
  afterEach(() => group.close())

  it('passes on a manifest by tag and by digest, and every blob, with the headers that containerd needs', async () => {
    const image = await group.image(holder, { index: true })
    const byTag = await eventuallyOk(`${asker.url}/v2/app/manifests/v1?ns=reg.test`)
    expect(byTag.headers.get('docker-content-digest')).toBe(image.target.digest)
    expect(byTag.headers.get('content-type')).toBe(image.target.mediaType)
    expect(digestOf(Buffer.from(await byTag.arrayBuffer()))).toBe(image.target.digest)

    for (const manifest of [image.target, image.manifest]) {
      const response = await fetch(`${asker.url}/v2/app/manifests/${manifest.digest}?ns=reg.test`)
      expect(response.headers.get('content-type')).toBe(manifest.mediaType)
      expect(digestOf(Buffer.from(await response.arrayBuffer()))).toBe(manifest.digest)
    }
    for (const blob of [image.config, ...image.layers]) {
      const response = await fetch(`${asker.url}/v2/app/blobs/${blob.digest}?ns=reg.test`)
      expect(response.headers.get('content-length')).toBe(String(blob.size))
      expect(response.headers.get('docker-content-digest')).toBe(blob.digest)
      expect(digestOf(Buffer.from(await response.arrayBuffer()))).toBe(blob.digest)
    }
  })

  it('answers HEAD like GET without a body', async () => {
    const image = await group.image(holder)
    await eventuallyOk(`${asker.url}/v2/app/manifests/v1?ns=reg.test`)
    for (const path of ['manifests/v1', `manifests/${image.manifest.digest}`, `blobs/${image.layers[0]?.digest}`]) {
      const url = `${asker.url}/v2/app/${path}?ns=reg.test`
      const [head, get] = await Promise.all([fetch(url, { method: 'HEAD' }), fetch(url)])
      expect(head.status).toBe(200)
      expect(await head.text()).toBe('')
      for (const name of ['content-length', 'content-type', 'docker-content-digest', 'accept-ranges']) {
        expect(head.headers.get(name), `${path} ${name}`).toBe(get.headers.get(name))
      }
      await get.arrayBuffer()
    }
  })

  it('answers ranges exactly, from the store and from a peer', async () => {
    const image = await group.image(holder)
    const layer = image.layers[0]
    if (layer === undefined) throw new Error('no layer')
    const bytes = await readFile(blobPath(holder.layout, layer.digest))
    await eventuallyOk(`${asker.url}/v2/app/blobs/${layer.digest}?ns=reg.test`)
    const cases: [string, number, number][] = [
      ['bytes=500-1499', 500, 1499],
      ['bytes=500-', 500, layer.size - 1],
      ['bytes=-500', layer.size - 500, layer.size - 1],
      ['bytes=0-', 0, layer.size - 1],
      [`bytes=${layer.size - 10}-${layer.size + 10}`, layer.size - 10, layer.size - 1],
    ]
    for (const { url } of [holder, asker]) {
      const blob = `${url}/v2/app/blobs/${layer.digest}?ns=reg.test`
      for (const [range, first, last] of cases) {
        const response = await fetch(blob, { headers: { range } })
        expect(response.status, range).toBe(206)
        expect(response.headers.get('content-range')).toBe(`bytes ${first}-${last}/${layer.size}`)
        expect(response.headers.get('content-length')).toBe(String(last - first + 1))
        expect(Buffer.from(await response.arrayBuffer()).equals(bytes.subarray(first, last + 1)), range).toBe(true)
      }
      for (const range of [`bytes=${layer.size}-`, 'bytes=500-0', 'bytes=-0']) {
        const response = await fetch(blob, { headers: { range } })
        expect(response.status, range).toBe(416)
        expect(response.headers.get('content-range')).toBe(`bytes */${layer.size}`)
      }
      const several = await fetch(blob, { headers: { range: 'bytes=0-1,4-5' } })
      expect(several.status).toBe(200)
      expect((await several.arrayBuffer()).byteLength).toBe(layer.size)
    }
  })

  it('answers 404 with an OCI error when nobody has it, and at once to a peer', async () => {
    const digest = digestOf(Buffer.from('nobody has this'))
    const response = await fetch(`${asker.url}/v2/app/blobs/${digest}?ns=reg.test`)
    expect(response.status).toBe(404)
    expect(await response.json()).toMatchObject({ errors: [{ code: 'BLOB_UNKNOWN' }] })

    const image = await group.image(holder)
    await eventuallyOk(`${asker.url}/v2/app/manifests/v1?ns=reg.test`)
    const asPeer = await fetch(`${asker.url}/v2/app/blobs/${image.config.digest}?ns=reg.test`, {
      headers: { 'x-spegel-mirrored': 'true' },
    })
    expect(asPeer.status).toBe(404)
    expect(await asPeer.text()).toBe('')
  })

  it('stops offering what was removed', async () => {
    const image = await group.image(holder)
    const url = `${asker.url}/v2/app/blobs/${image.config.digest}?ns=reg.test`
    await eventuallyOk(url)
    const { rm } = await import('node:fs/promises')
    await rm(blobPath(holder.layout, image.config.digest))
    await eventually(async () => expect((await fetch(url)).status).toBe(404))
  })
})

async function eventuallyOk(url: string): Promise<Response> {
  let response: Response | undefined
  await eventually(async () => {
    response = await fetch(url)
    expect(response.status).toBe(200)
  })
  if (response === undefined) throw new Error('no response')
  return response
}
