import { mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { formatHostPort, parseHostPort } from '../../../src/lib/address.ts'
import { writeFileAtomic } from '../../../src/lib/atomic-file.ts'
import { Backoff } from '../../../src/lib/backoff.ts'
import { BoundedMap } from '../../../src/lib/bounded-map.ts'
import { BoundedNames } from '../../../src/lib/bounded-names.ts'
import { formatDuration, parseDuration } from '../../../src/lib/duration.ts'
import { errorMessage } from '../../../src/lib/errors.ts'
import { seededRandom, shuffled } from '../../../src/lib/random.ts'

describe('durations', () => {
  it.each([
    ['20ms', 20],
    ['1m30s', 90_000],
    ['1.5h', 5_400_000],
    ['0', 0],
    ['2h0m0.5s', 7_200_500],
    ['100us', 0.1],
    ['-3s', -3_000],
  ])('%s', (text, expectedMs) => {
    expect(parseDuration(text)).toBeCloseTo(expectedMs)
  })

  it.each(['', '20', 'ms', '1x', '1s 2s', '1.2.3s', '--1s'])('refuses "%s"', (text) => {
    expect(parseDuration(text)).toBeUndefined()
  })

  it('reads back what it writes', () => {
    fc.assert(
      fc.property(fc.nat(100_000_000), (ms) => Math.abs((parseDuration(formatDuration(ms)) ?? NaN) - ms) < 1e-6),
    )
  })
})

describe('addresses', () => {
  it.each([
    [':5000', '', 5000],
    ['127.0.0.1:80', '127.0.0.1', 80],
    ['[::1]:5000', '::1', 5000],
    ['host.example:1', 'host.example', 1],
  ])('%s', (text, host, port) => {
    expect(parseHostPort(text, '--x')).toEqual({ host, port })
  })

  it.each(['5000', 'host', '::1:5000', ':70000', ':', 'a:b'])('refuses %s, naming the option', (text) => {
    expect(() => parseHostPort(text, '--x')).toThrow(/^--x: /)
  })

  it('brackets IPv6', () => {
    expect(formatHostPort('fd00::1', 5000)).toBe('[fd00::1]:5000')
  })
})

describe('BoundedMap', () => {
  it('lets the least recently used go', () => {
    const map = new BoundedMap<string, number>(2)
    map.set('a', 1)
    map.set('b', 2)
    map.get('a')
    map.set('c', 3)
    expect([map.get('a'), map.get('b'), map.get('c'), map.size]).toEqual([1, undefined, 3, 2])
  })
})

describe('BoundedNames', () => {
  it('keeps the first ones, and calls all others one name', () => {
    const names = new BoundedNames(2)
    expect(['a', 'b', 'c', 'a', 'd'].map((name) => names.label(name))).toEqual(['a', 'b', 'other', 'a', 'other'])
  })
})

describe('Backoff', () => {
  it('doubles up to the last delay, with jitter, and starts over', () => {
    const backoff = new Backoff(100, 1_000, () => 0.5)
    expect(Array.from({ length: 6 }, () => backoff.nextDelayMs())).toEqual([100, 200, 400, 800, 1_000, 1_000])
    backoff.reset()
    expect(backoff.nextDelayMs()).toBe(100)
  })
})

describe('shuffled', () => {
  it('keeps all items', () => {
    const items = Array.from({ length: 50 }, (_, index) => index)
    const mixed = shuffled(items, seededRandom(7))
    expect(mixed).not.toEqual(items)
    expect(mixed.toSorted((a, b) => a - b)).toEqual(items)
  })
})

describe('errorMessage', () => {
  it('is one line, with causes and parts', () => {
    const error = new Error('outer\nline', { cause: new AggregateError([new Error('a'), new Error('b')], 'both') })
    expect(errorMessage(error)).toBe('outer line: both: a; b')
  })
})

describe('writeFileAtomic', () => {
  let folder = ''
  afterEach(() => rm(folder, { recursive: true, force: true }))

  it('replaces a file and leaves nothing beside it, also after a failure', async () => {
    folder = await mkdtemp(join(tmpdir(), 'atomic-'))
    const path = join(folder, 'file')
    await writeFileAtomic(path, 'one', 0o600)
    await writeFileAtomic(path, 'two', 0o640)
    expect(await readFile(path, 'utf8')).toBe('two')
    expect((await stat(path)).mode & 0o777).toBe(0o640)
    await expect(writeFileAtomic(folder, 'x', 0o600)).rejects.toThrow()
    expect(await readdir(folder)).toEqual(['file'])
  })
})
