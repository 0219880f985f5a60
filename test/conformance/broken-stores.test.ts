import { describe, expect, it } from 'vitest'
import type { Content, ContentStore, StoreChange } from '../../src/store/store.ts'
import { layoutFixture } from '../support/layout-fixture.ts'
import { storeCases } from './store.ts'

/** Ways to be wrong, each over a store that is right otherwise. */
const faults: Record<string, (store: ContentStore) => Partial<ContentStore>> = {
  'sends one byte wrong': (store) => ({
    open: async (digest) =>
      changed(await store.open(digest), (content) => ({
        send: (range, write, signal) =>
          content.send(
            range,
            (chunk) => {
              const copy = Buffer.from(chunk)
              copy[0] = (copy[0] ?? 0) ^ 1
              return write(copy)
            },
            signal,
          ),
      })),
  }),
  'ignores the start of a range': (store) => ({
    open: async (digest) =>
      changed(await store.open(digest), (content) => ({
        send: (range, write, signal) => content.send({ ...range, first: 0 }, write, signal),
      })),
  }),
  'does not wait for chunks to be taken': (store) => ({
    open: async (digest) =>
      changed(await store.open(digest), (content) => ({
        send: (range, write, signal) =>
          content.send(
            range,
            (chunk) => {
              write(chunk).catch(() => undefined)
              return Promise.resolve()
            },
            signal,
          ),
      })),
  }),
  'throws another error for what is not there': (store) => ({
    open: (digest) =>
      store.open(digest).catch(() => {
        throw new Error('ENOENT')
      }),
  }),
  'resolves every tag': (store) => ({
    resolve: (name) => store.resolve(name).catch(() => `sha256:${'0'.repeat(64)}` as const),
  }),
  'never says that something was removed': (store) => ({
    watch: (signal) => mapped(store.watch(signal), (change) => ({ ...change, removed: [] })),
  }),
  'says everything twice': (store) => ({
    watch: (signal) =>
      mapped(store.watch(signal), (change) => ({ ...change, added: [...change.added, ...change.added] })),
  }),
  'lists every blob as a manifest': () => ({ facts: () => Promise.resolve({ isManifest: true, repositories: [] }) }),
  'says that what was removed is stored': () => ({ isStored: () => true }),
  'says nothing when it is empty': (store) => ({
    async *watch(signal) {
      for await (const change of store.watch(signal)) if (change.added.length > 0) yield change
    },
  }),
  'opens the blob anew for each chunk': (store) => ({
    open: async (digest) => {
      const content = await store.open(digest)
      await content.close()
      return {
        size: content.size,
        send: async ({ first, last }, write, signal) => {
          for (let at = first; at <= last; at += 1_000_000) {
            const again = await store.open(digest)
            await again.send({ first: at, last: Math.min(last, at + 999_999) }, write, signal)
            await again.close()
          }
        },
        close: () => Promise.resolve(),
      }
    },
  }),
}

describe('the store suite finds a store that', () => {
  it.each(Object.entries(faults))(
    '%s',
    async (_name, fault) => {
      const found: string[] = []
      for (const { name, run } of storeCases) {
        const fixture = await layoutFixture()
        const opened: Content[] = []
        const store = changed(fixture.store, (original) => ({
          open: async (digest) => {
            const content = await original.open(digest)
            opened.push(content)
            return content
          },
        }))
        await run({ ...fixture, store: changed(store, fault) }).catch(() => found.push(name))
        // A case that found something has closed nothing.
        for (const content of opened) await content.close()
        await fixture.close()
      }
      expect(found).not.toEqual([])
    },
    180_000,
  )
})

function changed<T extends ContentStore | Content>(original: T, change: (original: T) => Partial<T>): T {
  const replaced = change(original)
  return new Proxy(original, {
    get: (target, name) => {
      const value: unknown = Reflect.get(name in replaced ? replaced : target, name)
      return typeof value === 'function' ? (value.bind(name in replaced ? replaced : target) as unknown) : value
    },
  })
}

async function* mapped(
  changes: AsyncIterable<StoreChange>,
  map: (change: StoreChange) => StoreChange,
): AsyncGenerator<StoreChange> {
  for await (const change of changes) yield map(change)
}
