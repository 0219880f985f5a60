/**
 * What every ContentStore must do. Each case names the fault that it would find; `broken-stores.test.ts` shows that it
 * does. An adapter's test gives a fixture and runs `storeSuite`.
 */
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { ContentNotFound, type ContentStore, readContent } from '../../src/store/store.ts'
import { eventually } from '../support/daemons.ts'

export interface StoreFixture {
  store: ContentStore
  /** Puts an image of three blobs (manifest, config, layer) in place under this tag; returns their digests. */
  addImage(
    name: string,
    seed: string,
  ): Promise<{ manifest: Digest; config: Digest; layer: Digest; layerBytes: Buffer }>
  /** Takes it away: the name and what only it used. */
  removeImage(name: string): Promise<void>
  close(): Promise<void>
}

export interface StoreCase {
  name: string
  /** Rejects when the store is not as it should be. */
  run(fixture: StoreFixture): Promise<void>
}

const bytesMax = 64 * 1024 * 1024
const never = new AbortController().signal

/** Effects of a change are due within this. */
const effectTimeoutMs = 4_000
const soon = (check: () => Promise<void> | void) => eventually(check, effectTimeoutMs)

/** Collects what `watch` says; what it says wrongly comes out at `stop`. */
function watchKeys(store: ContentStore): { keys: Set<string>; stop: () => Promise<void>; changes: () => number } {
  const keys = new Set<string>()
  const wrong: string[] = []
  const stop = new AbortController()
  let changes = 0
  const watching = (async () => {
    for await (const { added, removed } of store.watch(stop.signal)) {
      changes += 1
      for (const key of removed) if (!keys.delete(key)) wrong.push(`${key} was removed but never added`)
      for (const key of added) {
        if (keys.has(key)) wrong.push(`${key} was added twice`)
        keys.add(key)
      }
    }
  })()
  return {
    keys,
    changes: () => changes,
    stop: async () => {
      stop.abort()
      await watching
      expect(wrong).toEqual([])
    },
  }
}

export const storeCases: readonly StoreCase[] = [
  {
    name: 'gives the bytes of a blob, whole and in ranges (wrong bytes, off by one)',
    async run({ store, addImage }) {
      const { layer, layerBytes } = await addImage('reg.test/a:v1', 'bytes')
      await soon(async () => (await store.open(layer)).close())
      expect(digestOf(await readContent(store, layer, bytesMax, never))).toBe(layer)
      const content = await store.open(layer)
      expect(content.size).toBe(layerBytes.length)
      for (const [first, last] of [
        [0, 0],
        [0, layerBytes.length - 1],
        [1_000, 1_999],
        [layerBytes.length - 1, layerBytes.length - 1],
      ] as const) {
        const parts: Buffer[] = []
        await content.send({ first, last }, (chunk) => Promise.resolve(void parts.push(Buffer.from(chunk))), never)
        expect(Buffer.concat(parts).equals(layerBytes.subarray(first, last + 1)), `${first}-${last}`).toBe(true)
      }
      await content.close()
    },
  },
  {
    name: 'waits for each chunk to be taken before it reuses the memory (torn bytes)',
    async run({ store, addImage }) {
      const { layer, layerBytes } = await addImage('reg.test/a:v1', 'slow')
      await soon(async () => (await store.open(layer)).close())
      const content = await store.open(layer)
      const parts: Buffer[] = []
      let running = 0
      await content.send(
        { first: 0, last: content.size - 1 },
        async (chunk) => {
          expect(running, 'chunks overlap').toBe(0)
          running += 1
          await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
          parts.push(Buffer.from(chunk))
          running -= 1
        },
        never,
      )
      await content.close()
      expect(Buffer.concat(parts).equals(layerBytes)).toBe(true)
    },
  },
  {
    name: 'stops when the taker fails or the signal aborts (leaks)',
    async run({ store, addImage }) {
      const { layer } = await addImage('reg.test/a:v1', 'stop')
      await soon(async () => (await store.open(layer)).close())
      const content = await store.open(layer)
      const range = { first: 0, last: content.size - 1 }
      await expect(content.send(range, () => Promise.reject(new Error('full')), never)).rejects.toThrow('full')
      const stop = new AbortController()
      let taken = 0
      const sending = content.send(
        range,
        () => {
          taken += 1
          stop.abort(new Error('enough'))
          return Promise.resolve()
        },
        stop.signal,
      )
      await expect(sending).rejects.toThrow()
      expect(taken).toBe(1)
      await content.close()
    },
  },
  {
    name: 'resolves tags, and says ContentNotFound for what is not there (null, other errors)',
    async run({ store, addImage }) {
      const { manifest } = await addImage('reg.test/a/b:v1', 'resolve')
      await soon(async () => expect(await store.resolve('reg.test/a/b:v1')).toBe(manifest))
      await expect(store.resolve('reg.test/a/b:v2')).rejects.toBeInstanceOf(ContentNotFound)
      await expect(store.open(digestOf(Buffer.from('not there')))).rejects.toBeInstanceOf(ContentNotFound)
      await expect(readContent(store, manifest, 10, never)).rejects.toBeInstanceOf(ContentNotFound)
    },
  },
  {
    name: 'knows which blobs are manifests, and of none that is missing (large layers parsed as manifests)',
    async run({ store, addImage }) {
      const { manifest, config, layer } = await addImage('reg.test/a:v1', 'facts')
      await soon(async () => expect(await store.resolve('reg.test/a:v1')).toBe(manifest))
      await soon(async () => expect((await store.facts(manifest)).isManifest).toBe(true))
      for (const digest of [config, layer]) expect((await store.facts(digest)).isManifest).toBe(false)
      await expect(store.facts(digestOf(Buffer.from('missing')))).rejects.toBeInstanceOf(ContentNotFound)
    },
  },
  {
    name: 'watches: first what is there, then what comes and goes, nothing twice (missed or doubled changes)',
    async run({ store, addImage, removeImage }) {
      const startedMs = systemClock.nowMs()
      const first = await addImage('reg.test/a:v1', 'first')
      await soon(async () => expect(await store.resolve('reg.test/a:v1')).toBe(first.manifest))
      const watched = watchKeys(store)
      const keysOf = (name: string, image: { manifest: Digest; config: Digest; layer: Digest }) => [
        name,
        image.manifest,
        image.config,
        image.layer,
      ]
      await soon(() => expect([...watched.keys]).toEqual(expect.arrayContaining(keysOf('reg.test/a:v1', first))))
      const second = await addImage('reg.test/b:v2', 'second')
      await soon(() => expect([...watched.keys]).toEqual(expect.arrayContaining(keysOf('reg.test/b:v2', second))))
      await removeImage('reg.test/a:v1')
      await soon(() => {
        for (const key of keysOf('reg.test/a:v1', first)) expect(watched.keys.has(key), key).toBe(false)
      })
      expect([...watched.keys]).toEqual(expect.arrayContaining(keysOf('reg.test/b:v2', second)))
      await watched.stop()
      expect([store.isStored(first.layer), store.isStored(second.layer)]).toEqual([false, true])
      await expect(store.open(first.layer)).rejects.toBeInstanceOf(ContentNotFound)
      // Gone, but it was there; what was never there was not.
      expect(store.wasStoredSince(first.layer, startedMs)).toBe(true)
      expect(store.wasStoredSince(second.layer, systemClock.nowMs())).toBe(true)
      expect(store.wasStoredSince(first.layer, systemClock.nowMs() + 60_000)).toBe(false)
      expect(store.wasStoredSince(digestOf(Buffer.from('never there')), startedMs)).toBe(false)
    },
  },
  {
    name: 'says something even when there is nothing (a consumer that waits for the inventory)',
    async run({ store }) {
      const watched = watchKeys(store)
      await soon(() => expect(watched.changes()).toBeGreaterThan(0))
      await watched.stop()
    },
  },
  {
    name: 'reads an opened blob to its end after it was removed (descriptor closed, path opened again)',
    async run({ store, addImage, removeImage }) {
      const { layer, layerBytes } = await addImage('reg.test/a:v1', 'removed')
      await soon(async () => (await store.open(layer)).close())
      const content = await store.open(layer)
      const parts: Buffer[] = []
      let removed: Promise<void> | undefined
      await content.send(
        { first: 0, last: content.size - 1 },
        async (chunk) => {
          parts.push(Buffer.from(chunk))
          removed ??= removeImage('reg.test/a:v1')
          await removed
        },
        never,
      )
      await content.close()
      expect(Buffer.concat(parts).equals(layerBytes)).toBe(true)
    },
  },
]

export function storeSuite(name: string, open: () => Promise<StoreFixture>, options: { except?: RegExp } = {}): void {
  describe(`ContentStore: ${name}`, () => {
    it.each(storeCases.filter((storeCase) => !options.except?.test(storeCase.name)))('$name', async ({ run }) => {
      const fixture = await open()
      try {
        await run(fixture)
      } finally {
        await fixture.close()
      }
    })
  })
}
