import { describe, expect, it } from 'vitest'
import { type Closer, Closers } from '../../../src/lib/closers.ts'
import { errorMessage } from '../../../src/lib/errors.ts'
import { closerMs } from '../../../src/limits.ts'
import { ManualClock } from '../../support/manual-clock.ts'

const clock = new ManualClock()

function closersOf(closers: readonly Closer[]) {
  const further: string[] = []
  const all = new Closers(clock, (error) => void further.push(errorMessage(error)))
  for (const closer of closers) all.add(closer)
  return { all, further }
}

const settled = () => new Promise((resolve) => setImmediate(resolve))

describe('closers', () => {
  it('all run, the latest first, and the first error is kept', async () => {
    const ran: string[] = []
    const closer = (name: string, error?: Error): Closer => ({
      name,
      close: () => {
        ran.push(name)
        return error === undefined ? Promise.resolve() : Promise.reject(error)
      },
    })
    const { all, further } = closersOf([
      closer('store'),
      closer('router', new Error('second')),
      closer('registry', new Error('first')),
      closer('metrics'),
    ])
    const error = await all.close(0).catch((reason: unknown) => reason)
    expect(ran).toEqual(['metrics', 'registry', 'router', 'store'])
    expect(errorMessage(error)).toBe('shutdown: registry: first')
    expect(further).toEqual(['shutdown: router: second'])
  })

  it('run after one that throws before it gives a promise', async () => {
    const ran: string[] = []
    const { all } = closersOf([
      { name: 'store', close: () => Promise.resolve(ran.push('store')) },
      {
        name: 'router',
        close: () => {
          throw new TypeError('not a function')
        },
      },
    ])
    await expect(all.close(0)).rejects.toThrow('shutdown: router')
    expect(ran).toEqual(['store'])
  })

  it('run after one that never ends', async () => {
    const ran: string[] = []
    const { all } = closersOf([
      { name: 'store', close: () => Promise.resolve(ran.push('store')) },
      { name: 'router', close: () => Promise.withResolvers().promise },
    ])
    const closed = all.close(60_000).catch(errorMessage)
    clock.advance(closerMs - 1)
    await settled()
    expect(ran).toEqual([])
    clock.advance(2)
    expect(await closed).toBe(`shutdown: router: router did not end in ${closerMs} ms`)
    expect(ran).toEqual(['store'])
  })

  it('may use the grace time where they have to', async () => {
    const { all } = closersOf([{ name: 'registry', close: () => Promise.withResolvers().promise, lingerMs: 500 }])
    let ended = false
    const closed = all.close(60_000).catch(() => (ended = true))
    clock.advance(60_000 + 500 + closerMs - 1)
    await settled()
    expect(ended).toBe(false)
    clock.advance(2)
    await closed
    expect(ended).toBe(true)
  })

  it('run once', async () => {
    const ran: string[] = []
    const { all } = closersOf([{ name: 'store', close: () => Promise.resolve(ran.push('store')) }])
    await Promise.all([all.close(0), all.close(0)])
    expect(ran).toEqual(['store'])
  })
})
