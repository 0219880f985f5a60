import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { blobPath } from '../../src/images/layout.ts'
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

  it.each([0, 1, 5 * 1024 ** 3])('passes on a blob of %i bytes, and its ends', async (size) => {
    const digest = await sparseBlob(holder, size)
    const blob = `${asker.url}/v2/app/blobs/${digest}?ns=reg.test`
    await eventually(async () => expect((await fetch(blob, { method: 'HEAD' })).status).toBe(200))
    for (const url of [blob, blob.replace(asker.url, holder.url)]) {
      const head = await fetch(url, { method: 'HEAD' })
      expect(head.headers.get('content-length')).toBe(String(size))
      if (size <= 1) {
        const whole = await fetch(url, { headers: { range: 'bytes=0-' } })
        expect(await whole.text()).toBe('z'.repeat(size))
      } else {
        const end = await fetch(url, { headers: { range: `bytes=${size - 2}-` } })
        expect(end.headers.get('content-range')).toBe(`bytes ${size - 2}-${size - 1}/${size}`)
        expect(await end.text()).toBe('\0z')
        // Open-ended and dropped early, as containerd's parallel fetch does.
        const start = await fetch(url, { headers: { range: 'bytes=0-' } })
        expect(start.headers.get('content-length')).toBe(String(size))
        await start.body?.cancel()
      }
    }
    for (const { lines } of [holder, asker]) {
      expect(lines.filter(({ level }) => level === 'WARN' || level === 'ERROR')).toEqual([])
    }
  })

  it('refuses a peer that wants an idle holder while it sends to another', async () => {
    const digest = await sparseBlob(holder, 1024 ** 3)
    const ask = (headers: Record<string, string>) =>
      fetch(`${holder.url}/v2/app/blobs/${digest}?ns=reg.test`, {
        headers: { 'x-spegel-mirrored': 'true', ...headers },
      })
    await eventually(async () =>
      expect((await ask({ range: 'bytes=0-0', 'x-spegel-ts-load-max': '0' })).status).toBe(206),
    )
    const running = await ask({ 'x-spegel-ts-load-max': '0' })
    expect(running.status).toBe(200)
    const refused = await ask({ 'x-spegel-ts-load-max': '0' })
    expect([refused.status, refused.headers.get('x-spegel-ts-load')]).toEqual([503, '1'])
    // Who does not say how busy it may be is always answered, and questions to others than for bodies are no load.
    const second = await ask({})
    expect(second.status).toBe(200)
    await running.body?.cancel()
    await second.body?.cancel()
    await eventually(async () =>
      expect((await ask({ range: 'bytes=0-0', 'x-spegel-ts-load-max': '0' })).status).toBe(206),
    )
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

/** Full of zeros but for its last byte, and not what its name says: blobs are not hashed on the way. */
async function sparseBlob({ layout }: TestDaemon, size: number): Promise<Digest> {
  const digest = digestOf(Buffer.from(`a blob of ${size} bytes`))
  const path = blobPath(layout, digest)
  await mkdir(dirname(path), { recursive: true })
  const file = await open(`${path}.new`, 'w')
  await file.truncate(size)
  if (size > 0) await file.write('z', size - 1)
  await file.close()
  await rename(`${path}.new`, path)
  return digest
}
