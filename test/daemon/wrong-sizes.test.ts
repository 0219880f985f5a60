/** Blob files with another size than the metadata says, as a power failure leaves them. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ContainerdClient } from '../../src/containerd/client.ts'
import { ContentCreate } from '../../src/containerd/generated/events.ts'
import { blobPath, writeBlob } from '../../src/images/layout.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createLogger } from '../../src/logger.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import type { RegistryServer } from '../../src/registry/server.ts'
import { BlobFolder } from '../../src/store/blob-folder.ts'
import { ContainerdStore } from '../../src/store/containerd/containerd-store.ts'
import { ContentNotFound } from '../../src/store/store.ts'
import { ContainerdDouble } from '../support/containerd-double.ts'
import { DaemonGroup, type TestDaemon, eventually } from '../support/daemons.ts'
import { startRegistry } from '../support/registry.ts'

const namespace = 'k8s.io'
const port = 5000
const contents = { short: Buffer.alloc(1_000, 1), empty: Buffer.alloc(1_000, 2), long: Buffer.alloc(1_000, 3) }
const good = Buffer.alloc(1_000, 4)
const bad = Object.values(contents).map((content) => digestOf(content))
const all = [...bad, digestOf(good)]

describe('containerd with blob files of another size than its metadata says', () => {
  const ip = new DaemonGroup().address(1)
  let folder: string
  let double: ContainerdDouble
  let lines: Record<string, unknown>[]
  let offered: Set<string>
  const cleanUps: (() => Promise<unknown> | void)[] = []

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'wrong-sizes-'))
    cleanUps.push(() => rm(folder, { recursive: true, maxRetries: 5 }))
    double = await ContainerdDouble.start(join(folder, 'sock'))
    cleanUps.push(() => double.close())
    lines = []
    offered = new Set()
    for (const content of [...Object.values(contents), good]) await writeBlob(folder, content)
    double.inventory = { content: all.map((digest) => ({ digest, size: 1_000 })), images: [] }
  })
  afterEach(async () => {
    for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
  })

  async function damage(): Promise<void> {
    const [short, empty, long] = bad.map((digest) => blobPath(folder, digest))
    await truncate(short ?? '', 999)
    await truncate(empty ?? '', 0)
    await writeFile(long ?? '', Buffer.alloc(1_001, 3))
  }

  async function start(withFolder: boolean): Promise<{ store: ContainerdStore; server: RegistryServer }> {
    const client = new ContainerdClient(join(folder, 'sock'), namespace)
    const logger = createLogger('INFO', { write: (line) => void lines.push(JSON.parse(line) as (typeof lines)[0]) })
    const blobs = withFolder ? new BlobFolder(folder, systemClock) : undefined
    const store = new ContainerdStore(
      { client, folder: blobs, clock: systemClock, random: () => 0, logger },
      namespace,
    )
    await store.start()
    const stop = new AbortController()
    const watching = (async () => {
      for await (const { added, removed } of store.watch(stop.signal)) {
        for (const key of added) offered.add(key)
        for (const key of removed) offered.delete(key)
      }
    })()
    const server = await startRegistry({ host: ip, port }, { store, router: undefined })
    cleanUps.push(async () => {
      stop.abort()
      await server.close(0)
      await store.close()
      await watching
    })
    await eventually(() => expect(store.problem()).toBeUndefined())
    return { store, server }
  }

  const statusOf = async (digest: Digest, method = 'GET') =>
    (await fetch(`http://${ip}:${port}/v2/app/blobs/${digest}?ns=reg.test`, { method })).status
  const reports = () => lines.filter(({ msg }) => String(msg).startsWith('blob file has the wrong size'))

  it('neither offers nor sends them, and reports each once with what to do', async () => {
    await damage()
    const { store } = await start(true)
    await eventually(() => expect([...offered]).toEqual([digestOf(good)]))
    for (const digest of bad) {
      for (const method of ['GET', 'HEAD']) expect(await statusOf(digest, method)).toBe(404)
      await expect(store.open(digest)).rejects.toBeInstanceOf(ContentNotFound)
      expect(store.isStored(digest)).toBe(false)
    }
    expect(await statusOf(digestOf(good))).toBe(200)
    expect(reports().map(({ digest, fileBytes, expectedBytes }) => [digest, fileBytes, expectedBytes])).toEqual(
      expect.arrayContaining([
        [bad[0], 999, 1_000],
        [bad[1], 0, 1_000],
        [bad[2], 1_001, 1_000],
      ]),
    )
    expect(reports()).toHaveLength(3)
    expect(reports()[0]?.['msg']).toContain('remove the images that use it and pull them again')
  })

  it('withdraws a file that loses its end while the daemon runs, when it is asked for', async () => {
    await start(true)
    await eventually(() => expect([...offered].sort()).toEqual(all.toSorted()))
    await damage()
    for (const digest of bad) expect(await statusOf(digest)).toBe(404)
    await eventually(() => expect([...offered]).toEqual([digestOf(good)]))
    expect(reports()).toHaveLength(3)
  })

  it('offers a blob again when its file is put in place again, in either way', async () => {
    await damage()
    await start(true)
    await eventually(() => expect([...offered]).toEqual([digestOf(good)]))
    // Renamed over the damaged file; removed and pulled again.
    await writeBlob(folder, contents.short)
    await rm(blobPath(folder, bad[1] ?? expect.unreachable()))
    await writeBlob(folder, contents.empty)
    await eventually(() =>
      expect([...offered].toSorted()).toEqual(
        [digestOf(contents.short), digestOf(contents.empty), digestOf(good)].toSorted(),
      ),
    )
    expect(await statusOf(bad[0] ?? expect.unreachable())).toBe(200)
  })

  it('does not believe an event before the file is right, and asks containerd where the event has no size', async () => {
    double.inventory = { content: [], images: [] }
    await damage()
    await start(true)
    double.inventory = { content: all.map((digest) => ({ digest, size: 1_000 })), images: [] }
    for (const [index, digest] of all.entries()) {
      const value = Buffer.from(ContentCreate.encode({ digest, size: index % 2 === 0 ? 0 : 1_000 }).finish())
      const event = { typeUrl: 'containerd.events.ContentCreate', value }
      double.send({ timestamp: undefined, namespace, topic: '/content/create', event })
    }
    await eventually(() => expect(reports()).toHaveLength(3))
    await eventually(() => expect([...offered]).toEqual([digestOf(good)]))
  })

  it('answers 404 for a blob that is too short where it is read through containerd, and withdraws it', async () => {
    await start(false)
    await eventually(() => expect([...offered].sort()).toEqual(all.toSorted()))
    double.readableBytes = 999
    expect(await statusOf(digestOf(good))).toBe(404)
    await eventually(() => expect([...offered].sort()).toEqual(bad.toSorted()))
    expect(reports()).toHaveLength(1)
    double.readableBytes = 1_000
    expect(await statusOf(digestOf(good))).toBe(200)
  })
})

describe('an OCI layout with blob files of another size than is declared', () => {
  it('neither offers nor sends them, before and after they are damaged, and reports each once', async () => {
    const group = new DaemonGroup()
    try {
      const daemon = await group.start()
      const image = await group.image(daemon, { index: true, layers: 3 })
      const statusOf = async ({ url }: TestDaemon, path: string, headers = {}) =>
        (await fetch(`${url}/v2/app/${path}?ns=reg.test`, { method: 'HEAD', headers })).status
      const [short, long, whole] = image.layers.map(({ digest }) => digest)
      const blob = (digest = '') => `blobs/${digest}`
      for (const { digest } of image.layers) {
        await eventually(async () => expect(await statusOf(daemon, blob(digest))).toBe(200))
      }
      await truncate(blobPath(daemon.layout, short ?? expect.unreachable()), 5)
      await writeFile(blobPath(daemon.layout, long ?? expect.unreachable()), Buffer.alloc(9_000_000))
      const fromPeer = { 'x-spegel-mirrored': 'true' }
      const layout = { store: { kind: 'layout' as const, path: daemon.layout } }
      // One that sees it happen, and one that finds it.
      for (const each of [daemon, await group.start(layout)]) {
        await eventually(async () => expect(await statusOf(each, blob(whole), fromPeer)).toBe(200))
        expect(await statusOf(each, blob(short), fromPeer)).toBe(404)
        expect(await statusOf(each, blob(long), fromPeer)).toBe(404)
        expect(await statusOf(each, blob(short), fromPeer)).toBe(404)
        const reports = each.lines.filter(({ msg }) => String(msg).startsWith('blob file has the wrong size'))
        expect(reports).toHaveLength(2)
        expect(reports.find(({ digest }) => digest === short)).toMatchObject({
          fileBytes: 5,
          expectedBytes: image.layers[0]?.size,
          msg: expect.stringContaining(`copy the image into ${daemon.layout} again`),
        })
        await eventually(async () =>
          expect(await (await fetch(`${each.metricsUrl}/metrics`)).text()).toMatch(/^spegel_provided_keys 5$/m),
        )
      }
      // The same image once more: its files are put in place again.
      await group.image(daemon, { index: true, layers: 3 })
      await eventually(async () => expect(await statusOf(daemon, blob(short), fromPeer)).toBe(200))
      await truncate(blobPath(daemon.layout, image.target.digest), 10)
      expect(await statusOf(daemon, 'manifests/v1', fromPeer)).toBe(404)
    } finally {
      await group.close()
    }
  })
})
