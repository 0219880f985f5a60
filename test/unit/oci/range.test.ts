import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseContentRange, parseRange, planBody } from '../../../src/oci/range.ts'

describe('planBody', () => {
  const bytes = Buffer.from('0123456789')

  it.each([
    ['bytes=2-5', '2345', 'bytes 2-5/10'],
    ['bytes=2-', '23456789', 'bytes 2-9/10'],
    ['bytes=-3', '789', 'bytes 7-9/10'],
    ['bytes=-30', '0123456789', 'bytes 0-9/10'],
    ['bytes=8-30', '89', 'bytes 8-9/10'],
    ['bytes=0-0', '0', 'bytes 0-0/10'],
    ['Bytes = 1-2', undefined, undefined],
    ['bytes= 1 - 2 ', '12', 'bytes 1-2/10'],
  ])('%s', (header, body, contentRange) => {
    const plan = planBody(header, bytes.length)
    if (plan === 'unsatisfiable') throw new Error(plan)
    expect(bytes.subarray(plan.bounds.first, plan.bounds.last + 1).toString()).toBe(body ?? bytes.toString())
    expect(plan.contentRange).toBe(contentRange)
    expect(plan.status).toBe(contentRange === undefined ? 200 : 206)
  })

  it.each(['bytes=10-', 'bytes=5-4', 'bytes=-0'])('%s cannot be satisfied', (header) => {
    expect(planBody(header, 10)).toBe('unsatisfiable')
  })

  it.each([
    undefined,
    '',
    'bytes=',
    'bytes=-',
    'bytes=a-b',
    'bytes=0-1,3-4',
    'items=0-1',
    'bytes=0x1-2',
    'bytes=99999999999999999999-',
  ])('sends everything for %s', (header) => {
    expect(planBody(header, 10)).toMatchObject({ status: 200, contentLength: 10 })
  })

  it('sends an empty body whole, whatever was asked for', () => {
    expect(planBody('bytes=0-', 0)).toMatchObject({ status: 200, contentLength: 0 })
  })

  it('never leaves the body, and says what it does', () => {
    fc.assert(
      fc.property(fc.nat(5_000), fc.string(), fc.nat(6_000), fc.nat(6_000), (size, noise, a, b) => {
        for (const header of [noise, `bytes=${a}-${b}`, `bytes=${a}-`, `bytes=-${b}`]) {
          const plan = planBody(header, size)
          if (plan === 'unsatisfiable') continue
          expect(plan.contentLength).toBe(plan.bounds.last - plan.bounds.first + 1)
          expect(plan.bounds.last).toBeLessThan(Math.max(size, 1))
          if (plan.status === 206) {
            expect(parseContentRange(plan.contentRange)).toEqual({ ...plan.bounds, size })
          } else {
            expect(plan.contentLength).toBe(size)
          }
        }
      }),
    )
  })
})

describe('parseRange', () => {
  it('reads one range', () => {
    expect(parseRange('bytes=1-2')).toEqual({ first: 1, last: 2 })
    expect(parseRange('bytes=-7')).toEqual({ suffix: 7 })
  })
})

describe('parseContentRange', () => {
  it.each(['bytes 0-9/*', 'bytes 5-4/10', 'bytes 0-10/10', 'bytes */10', '', 'bytes 0-9'])(
    'refuses "%s"',
    (header) => {
      expect(parseContentRange(header)).toBeUndefined()
    },
  )
})
