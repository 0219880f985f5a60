import { describe, expect, it } from 'vitest'
import { ChangeQueue } from '../../../src/store/change-queue.ts'

describe('ChangeQueue', () => {
  it('gives everything first, even nothing, then changes', async () => {
    const queue = new ChangeQueue()
    const stop = new AbortController()
    const changes = queue.changes(stop.signal)
    expect((await changes.next()).value).toEqual({ added: [], removed: [] })
    const next = changes.next()
    queue.set(['a', 'b'], true)
    queue.set(['a'], false)
    expect((await next).value).toEqual({ added: ['b'], removed: [] })
    queue.set(['b', 'never'], false)
    expect((await changes.next()).value).toEqual({ added: [], removed: ['b'] })
    stop.abort()
    expect((await changes.next()).done).toBe(true)
  })

  it('wakes a waiting consumer on abort', async () => {
    const queue = new ChangeQueue()
    const stop = new AbortController()
    const changes = queue.changes(stop.signal)
    await changes.next()
    const next = changes.next()
    stop.abort()
    expect((await next).done).toBe(true)
  })

  it('does not say twice what it said, nor what came and went', async () => {
    const queue = new ChangeQueue()
    const changes = queue.changes(new AbortController().signal)
    queue.set(['a'], true)
    await changes.next()
    queue.set(['a'], true)
    queue.set(['b'], true)
    queue.set(['b'], false)
    queue.set(['c'], true)
    expect((await changes.next()).value).toEqual({ added: ['c'], removed: [] })
  })
})
