import { getEventListeners } from 'node:events'
import { expect, it } from 'vitest'
import { raceAbort } from '../../../src/lib/race-abort.ts'

it('gives what comes first, and leaves nothing on the signal', async () => {
  const stop = new AbortController()
  expect(await raceAbort(Promise.resolve(1), stop.signal)).toBe(1)
  await expect(raceAbort(Promise.reject(new Error('no')), stop.signal)).rejects.toThrow('no')
  await new Promise((resolve) => setImmediate(resolve))
  expect(getEventListeners(stop.signal, 'abort')).toEqual([])
  const never = raceAbort(new Promise(() => {}), stop.signal)
  stop.abort(new Error('stopped'))
  await expect(never).rejects.toThrow('stopped')
  await expect(raceAbort(new Promise(() => {}), stop.signal)).rejects.toThrow('stopped')
})
