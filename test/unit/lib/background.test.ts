import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  type InternalError,
  inBackground,
  onInternalError,
  reportInternalError,
} from '../../../src/lib/background.ts'
import { isNotFound } from '../../../src/lib/errors.ts'

describe('work in the background', () => {
  const reported: InternalError[] = []
  let stop: () => void
  beforeEach(() => {
    reported.length = 0
    stop = onInternalError((internal) => reported.push(internal))
  })
  afterEach(() => stop())

  const failing = (error: Error) => () => Promise.reject(error)

  it('reports an unexpected error, with its task', async () => {
    const error = new TypeError('x is not a function')
    await inBackground('lookup', failing(error))
    expect(reported).toEqual([{ task: 'lookup', error, fields: {} }])
  })

  it('reports what is thrown before there is a promise', async () => {
    const error = new Error('at once')
    await inBackground('lookup', () => {
      throw error
    })
    expect(reported.map(({ error: of }) => of)).toEqual([error])
  })

  it('reports no failure that is named, and each other one', async () => {
    const missing = Object.assign(new Error('no such file'), { code: 'ENOENT' })
    const denied = Object.assign(new Error('denied'), { code: 'EACCES' })
    await inBackground('blob_scan', failing(missing), { expected: isNotFound })
    await inBackground('blob_scan', failing(denied), { expected: isNotFound })
    expect(reported.map(({ error }) => error)).toEqual([denied])
  })

  it('reports nothing but errors of a programmer after its signal has aborted', async () => {
    const stopped = new AbortController()
    const { signal } = stopped
    await inBackground('membership', failing(new Error('before')), { signal })
    stopped.abort()
    const bug = new TypeError('of undefined')
    await inBackground('membership', failing(signal.reason as Error), { signal })
    await inBackground('membership', failing(new Error('the socket was closed')), { signal })
    await inBackground('membership', failing(bug), { signal })
    expect(reported.map(({ error }) => (error as Error).message)).toEqual(['before', 'of undefined'])
  })

  it('lets the error surface without a listener', async () => {
    stop()
    const error = new Error('unheard')
    expect(reportInternalError('lookup', error)).toBe(false)
    await expect(inBackground('lookup', failing(error))).rejects.toBe(error)
  })
})
