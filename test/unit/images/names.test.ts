import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseBenchmarkTag, suiteImages } from '../../../src/images/benchmark-tag.ts'
import { parseSizeBytes } from '../../../src/images/size.ts'
import { UserError } from '../../../src/lib/errors.ts'

const MiB = 1024 * 1024

describe('a size', () => {
  it.each([
    ['10MB', 10 * MiB],
    ['100MB', 100 * MiB],
    ['1GB', 1024 * MiB],
    ['512KB', 512 * 1024],
    ['7B', 7],
    ['1048576', MiB],
  ])('%s is read', (text, bytes) => {
    expect(parseSizeBytes(text)).toBe(bytes)
  })

  it.each(['', '0', '0MB', 'MB', '-1MB', '1.5GB', '10 MB', '10mb', '10TB', '1e3', '99999999999GB', '10MB10'])(
    '%j is refused in one line',
    (text) => {
      expect(() => parseSizeBytes(text)).toThrow(UserError)
      expect(() => parseSizeBytes(text)).toThrow(/^".*" is not a size: .+ such as 10MB$/)
    },
  )
})

describe('a tag', () => {
  it('says what the image is', () => {
    const property = fc.property(
      fc.stringMatching(/^[a-z0-9_][a-z0-9_.]{0,20}$/),
      fc.integer({ min: 1, max: 5000 }),
      fc.constantFrom(['KB', 1024], ['MB', MiB], ['GB', 1024 * MiB] as const),
      fc.integer({ min: 1, max: 127 }),
      (version, count, [unit, unitBytes], layers) => {
        const tag = `${version}-${count}${unit}-${layers}`
        const sizeBytes = count * unitBytes
        expect(parseBenchmarkTag(tag)).toEqual({ tag, version, sizeBytes, layers })
      },
    )
    fc.assert(property)
  })

  it.each(['', 'v1', 'v1-10MB', '10MB-1', 'v1-10MB-', 'v1-10MB-x', 'v1-10MB-1-1', '-10MB-1', 'v/1-10MB-1'])(
    '%j is refused with the form that is meant',
    (tag) => {
      expect(() => parseBenchmarkTag(tag)).toThrow(/^".*" is not a benchmark image: write VERSION-SIZE-LAYERS/)
    },
  )

  it.each(['v1-10MB-0', 'v1-10MB-128'])('%s is refused for its layers', (tag) => {
    expect(() => parseBenchmarkTag(tag)).toThrow(/must be 1 to 127/)
  })

  it('is refused for its size', () => {
    expect(() => parseBenchmarkTag('v1-10XB-1')).toThrow(/"10XB" is not a size/)
  })
})

describe('the suite', () => {
  it('is three sizes in one and in four layers, in two versions', () => {
    expect(suiteImages().map(({ tag }) => tag)).toEqual([
      'v1-10MB-1',
      'v1-10MB-4',
      'v1-100MB-1',
      'v1-100MB-4',
      'v1-1GB-1',
      'v1-1GB-4',
      'v2-10MB-1',
      'v2-10MB-4',
      'v2-100MB-1',
      'v2-100MB-4',
      'v2-1GB-1',
      'v2-1GB-4',
    ])
  })
})
