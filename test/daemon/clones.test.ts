import { chmod, copyFile, cp, mkdir, readFile, rename, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { identityReplaceIntervalMs } from '../../src/limits.ts'
import { loadIdentity } from '../../src/router/identity.ts'
import { DaemonGroup, type TestDaemon, eventually } from '../support/daemons.ts'

describe('nodes cloned from one disk image', () => {
  let group: DaemonGroup
  let third: TestDaemon
  let image: string

  beforeEach(async () => {
    group = new DaemonGroup()
    third = await group.start()
    image = join(await group.folder(), 'image')
    await loadIdentity(image)
  })
  afterEach(() => group.close())

  /** Two nodes, each with a copy of the image's data directory. */
  async function startTwins(): Promise<[TestDaemon, TestDaemon]> {
    const dirs = await Promise.all(
      [1, 2].map(async (number) => {
        const dataDir = join(await group.folder(), `data-${number}`)
        await cp(image, dataDir, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true })
        return dataDir
      }),
    )
    return [await group.start({ dataDir: dirs[0] }), await group.start({ dataDir: dirs[1] })]
  }

  const logged = ({ lines }: TestDaemon, start: string) => lines.filter(({ msg }) => String(msg).startsWith(start))
  const metric = async ({ metricsUrl }: TestDaemon, name: string) =>
    Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(await (await fetch(`${metricsUrl}/metrics`)).text())?.[1])
  const reasons = async ({ url }: TestDaemon) => (await fetch(`${url}/readyz`)).text()

  it('are both told by a third node, get identities of their own, and find each other', async () => {
    const twins = await startTwins()
    const oldId = twins[0].daemon.id
    expect(twins[1].daemon.id).toBe(oldId)
    const images = await Promise.all(twins.map((twin) => group.image(twin, { name: `reg.test/app${twin.ip}:v1` })))
    for (const twin of twins)
      await eventually(() => expect(logged(twin, 'identity replaced')).toHaveLength(1), 20_000)
    for (const twin of twins) {
      expect(logged(twin, 'identity replaced')[0]).toMatchObject({ level: 'WARN', oldId, newId: twin.daemon.id })
      expect(await metric(twin, 'spegel_ts_identity_clones_total')).toBeGreaterThan(0)
    }
    expect(new Set([oldId, ...twins.map(({ daemon }) => daemon.id)]).size).toBe(3)
    expect(logged(third, 'two running nodes have the same identity')[0]).toMatchObject({ level: 'WARN', peer: oldId })
    // All find what each has.
    for (const [index, { layers }] of images.entries()) {
      for (const daemon of [third, ...twins.filter((_, at) => at !== index)]) {
        const path = `/v2/app/blobs/${layers[0]?.digest}?ns=reg.test`
        await eventually(
          async () => expect((await fetch(`${daemon.url}${path}`, { method: 'HEAD' })).status).toBe(200),
          20_000,
        )
      }
    }
    for (const twin of twins) expect(JSON.parse(await reasons(twin))).toEqual({ ready: true, reasons: [] })
  })

  it('go on with running transfers while their identities are replaced', async () => {
    const [twin] = await startTwins()
    const { layers } = await group.image(twin, { sizeBytes: 64 * 1024 * 1024, layers: 1 })
    const [layer] = layers
    const url = `${twin.url}/v2/app/blobs/${layer?.digest}?ns=reg.test`
    const response = await eventually(async () => {
      const answer = await fetch(url)
      expect(answer.status).toBe(200)
      return answer
    })
    expect(logged(twin, 'identity replaced')).toHaveLength(0)
    // More than socket buffers hold is still to come.
    const reader = response.body?.getReader()
    let bytes = (await reader?.read())?.value?.length ?? 0
    await eventually(() => expect(logged(twin, 'identity replaced')).toHaveLength(1), 20_000)
    for (let part = await reader?.read(); part?.done === false; part = await reader?.read())
      bytes += part.value.length
    expect(bytes).toBe(layer?.size)
  })

  it('keep their new identities after a restart', async () => {
    const twins = await startTwins()
    const dataDir = join(await group.folder(), 'data-1')
    await eventually(() => expect(logged(twins[0], 'identity replaced')).toHaveLength(1), 20_000)
    const { id } = twins[0].daemon
    await twins[0].daemon.close(0)
    const again = await group.start({ dataDir })
    expect(again.daemon.id).toBe(id)
    expect((await stat(join(dataDir, 'private.key'))).mode & 0o777).toBe(0o600)
  })

  it.each<[string, () => Promise<void>, RegExp]>([
    ['is read-only', () => chmod(join(image, 'private.key'), 0o400), /read-only/],
    [
      'is a file of a Secret, which is a symbolic link',
      async () => {
        await mkdir(join(image, '..data'))
        await rename(join(image, 'private.key'), join(image, '..data', 'private.key'))
        await symlink('..data/private.key', join(image, 'private.key'))
      },
      /symbolic link/,
    ],
    [
      'was replaced within the last hour',
      () => writeFile(join(image, 'private.key.replaced'), ''),
      /was replaced \d+ minutes ago/,
    ],
  ])('keep an identity that %s, and report that', async (_name, prepare, reason) => {
    await prepare()
    const before = await readFile(join(image, 'private.key'))
    const twins = await startTwins()
    const { id } = twins[0].daemon
    for (const twin of twins) {
      await eventually(async () => {
        expect(await metric(twin, 'spegel_ts_identity_clones_total')).toBeGreaterThan(0)
        const text = await reasons(twin)
        const { ready, warnings } = JSON.parse(text) as { ready: boolean; warnings?: string[] }
        expect(ready).toBe(true)
        expect(warnings).toEqual([
          expect.stringContaining(`router: another running node has the identity ${id}, which is kept: `),
        ])
        expect(warnings?.[0]).toMatch(reason)
      }, 20_000)
      expect(twin.daemon.id).toBe(id)
      expect(logged(twin, 'another running node has the same identity')).toHaveLength(1)
    }
    for (const number of [1, 2]) {
      expect(await readFile(join(await group.folder(), `data-${number}`, 'private.key'))).toEqual(before)
    }
  })

  it('may replace an identity again an hour later', async () => {
    const marker = join(image, 'private.key.replaced')
    await writeFile(marker, '')
    const longAgo = new Date(Date.now() - identityReplaceIntervalMs - 60_000)
    await utimes(marker, longAgo, longAgo)
    const twins = await startTwins()
    for (const twin of twins)
      await eventually(() => expect(logged(twin, 'identity replaced')).toHaveLength(1), 20_000)
  })

  it('are not two daemons of one node during an update, which share its data directory', async () => {
    const before = await readFile(join(image, 'private.key'))
    const pair = [await group.start({ dataDir: image }), await group.start({ dataDir: image })] as const
    await eventually(() => expect(logged(third, 'two processes share an identity')).not.toEqual([]), 20_000)
    for (const one of pair) {
      expect(await metric(one, 'spegel_ts_identity_clones_total')).toBe(0)
      expect(JSON.parse(await reasons(one))).toEqual({ ready: true, reasons: [] })
      expect(logged(one, 'identity replaced')).toEqual([])
    }
    expect(await readFile(join(image, 'private.key'))).toEqual(before)
    expect(logged(third, 'two running nodes')).toEqual([])
  })

  it('is not what a node is that was restarted', async () => {
    const dataDir = join(await group.folder(), 'data')
    await mkdir(dataDir)
    await copyFile(join(image, 'private.key'), join(dataDir, 'private.key'))
    const first = await group.start({ dataDir })
    await eventually(async () => expect(await metric(third, 'spegel_dht_peers')).toBe(1))
    await first.daemon.close(0)
    const again = await group.start({ dataDir })
    await eventually(async () => expect(await metric(again, 'spegel_dht_peers')).toBe(1))
    await new Promise((resolve) => setTimeout(resolve, 3_000))
    expect(again.daemon.id).toBe(first.daemon.id)
    expect(await metric(again, 'spegel_ts_identity_clones_total')).toBe(0)
    expect(logged(third, 'two running nodes')).toEqual([])
  })
})
