/**
 * Attacks of a program that reaches the registry port and is not a node of the cluster. Each attack worked before its fix. Each
 * daemon is a process of its own, so that its memory can be measured.
 */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type Socket, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { registryConnectionsMax, registryConnectionsPerAddressMax, streamsMax } from '../../src/limits.ts'
import { addToIndex, writeBlob, writeJson } from '../../src/images/layout.ts'
import { writeImage } from '../../src/images/image.ts'
import { mediaTypes } from '../../src/images/media-types.ts'
import { DaemonProcess } from '../support/daemon-process.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'

const MiB = 1024 * 1024
/** Loopback, like all addresses here, but no address of an interface. */
const strangerIp = '127.9.9.9'
/** JSON that takes many times its size to parse. */
const deepJson = (bytes: number) => Buffer.from(`{"x":[${'[],'.repeat(Math.floor((bytes - 30) / 3))}[]]}`)

describe('a stranger at the registry port', () => {
  const group = new DaemonGroup()
  let folder = ''
  let daemon: DaemonProcess | undefined
  const sockets: Socket[] = []

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strangers-'))
  })
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy()
    await daemon?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  /** A connection from an address that is not this node's, with one request, whose response is not read. */
  const intrude = async (ip: string, path: string): Promise<Socket> => {
    const socket = connect({ host: ip, port: 5000, localAddress: strangerIp })
    sockets.push(socket.on('error', () => {}))
    socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\nuser-agent: containerd/2.3.4\r\n\r\n`)
    await Promise.race([once(socket, 'readable'), once(socket, 'close')])
    return socket
  }
  const statusFor = async (url: string) => {
    const response = await fetch(url, { headers: { 'user-agent': 'containerd/2.3.4' } })
    await response.arrayBuffer()
    return response.status
  }

  it('cannot keep containerd out by bodies that it does not read', async () => {
    const { url, layout, ip } = await start()
    const spec = { name: 'reg.test/app:v1', sizeBytes: 16 * MiB, layers: 1, seed: 'unread' }
    const image = await writeImage(layout, spec)
    const path = `/v2/app/blobs/${image.layers[0]?.digest}?ns=reg.test`
    await eventually(async () => expect(await statusFor(url + path)).toBe(200))
    await Promise.all(Array.from({ length: streamsMax + 2 }, () => intrude(ip, path)))
    for (let i = 0; i < 5; i++) expect(await statusFor(url + path)).toBe(200)
  })

  it('cannot keep containerd out by connections that it keeps open', async () => {
    const { url, ip } = await start()
    for (let opened = 0; opened < registryConnectionsMax + 50; opened += 50) {
      await Promise.all(Array.from({ length: 50 }, () => intrude(ip, '/v2/')))
    }
    for (let i = 0; i < 5; i++) expect(await statusFor(`${url}/v2/`)).toBe(200)
    expect(daemon?.descriptors).toBeLessThan(registryConnectionsPerAddressMax + 100)
  })

  const start = async (...options: string[]) =>
    (daemon = await DaemonProcess.start(folder, group.address(1), undefined, options))

  it('cannot fill the memory by requesting layers as manifests', async () => {
    const target = await start()
    const { url, layout } = target
    const layer = await writeBlob(layout, deepJson(4 * MiB - 1))
    const config = await writeJson(layout, mediaTypes.oci.config, { architecture: 'amd64', os: 'linux' })
    const layers = [{ mediaType: mediaTypes.oci.layer, ...layer }]
    const manifest = await writeJson(layout, mediaTypes.oci.manifest, { schemaVersion: 2, config, layers })
    await addToIndex(layout, manifest, 'reg.test/app:v1')
    const status = async (path: string) => (await fetch(`${url}/v2/app/${path}?ns=reg.test`)).status
    await eventually(async () => expect(await status('manifests/v1')).toBe(200))
    const before = target.residentPeakMiB
    const answers = await Promise.all(Array.from({ length: 100 }, () => status(`manifests/${layer.digest}`)))
    expect(new Set(answers)).toEqual(new Set([404]))
    expect(target.residentPeakMiB - before).toBeLessThan(20)
  })

  it('cannot read filtered content by a digest without a registry', async () => {
    const { url, layout } = await start('--registry-filters=^reg\\.test/private/')
    const image = await writeImage(layout, { name: 'reg.test/app:v1', sizeBytes: MiB, layers: 1, seed: 'filtered' })
    const digest = image.layers[0]?.digest
    const status = async (path: string) => (await fetch(`${url}/v2/${path}`)).status
    await eventually(async () => expect(await status(`app/blobs/${digest}?ns=reg.test`)).toBe(200))
    expect(await status(`app/blobs/${digest}`)).toBe(404)
    expect(await status(`private/app/blobs/${digest}?ns=reg.test`)).toBe(404)
    expect(await status(`app/manifests/${image.manifest.digest}`)).toBe(404)
  })
})
