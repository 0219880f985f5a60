/** Messages of flights: what is said is understood, and nonsense is not. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type Join,
  type Report,
  joinPath,
  parseAnswer,
  parseMessage,
  reportPath,
} from '../../../src/flights/protocol.ts'
import { addressesPerPeerMax, flightJoinWaitMs } from '../../../src/limits.ts'
import type { Digest } from '../../../src/oci/digest.ts'

const hex = fc.stringMatching(/^[a-f0-9]{64}$/)
const digests = hex.map((text) => `sha256:${text}` as Digest)
const nodes = fc.record({
  id: fc.string({ minLength: 1, maxLength: 128, unit: 'grapheme-ascii' }),
  addresses: fc.array(fc.oneof(fc.ipV4(), fc.ipV6()), { minLength: 1, maxLength: addressesPerPeerMax }),
})
const counts = fc.nat(10 ** 14)
const ids = fc.option(fc.string({ minLength: 1, maxLength: 128 }), { nil: undefined })
const joins: fc.Arbitrary<Join> = fc.record({
  node: nodes,
  haveBytes: counts,
  size: fc.option(counts, { nil: undefined }),
  load: fc.record({ blobCount: counts, feeds: counts }),
  waitMs: fc.integer({ min: 0, max: flightJoinWaitMs }),
  avoid: ids,
  gone: ids,
  keep: ids,
  isSlow: fc.boolean(),
  image: fc.option(
    fc.oneof(
      counts.map((forMs) => ({ kind: 'leads' as const, forMs })),
      fc.constant({ kind: 'yields' as const }),
    ),
    { nil: undefined },
  ),
  holder: fc.option(fc.record({ node: nodes, feeds: counts }), { nil: undefined }),
})
const reports: fc.Arbitrary<Report> = fc.record({
  kind: fc.constantFrom('progress', 'complete', 'failed', 'left'),
  node: nodes,
  haveBytes: counts,
  size: fc.option(counts, { nil: undefined }),
  load: fc.record({ blobCount: counts, feeds: counts }),
  busy: fc.option(
    fc.integer({ min: 0, max: 1_000 }).map((part) => part / 1_000),
    { nil: undefined },
  ),
})

const digest: Digest = `sha256:${'a'.repeat(64)}`
const path = `/spegel-ts/flights/v1/${digest}`
const who = 'node=n&at=10.0.0.1'

describe('a message', () => {
  it('is understood as it was meant', () => {
    fc.assert(
      fc.property(digests, joins, (of, join) => {
        expect(parseMessage(joinPath(of, join))).toEqual({ kind: 'join', digest: of, join })
      }),
    )
    fc.assert(
      fc.property(digests, reports, (of, report) => {
        expect(parseMessage(reportPath(of, report))).toEqual({ kind: 'report', digest: of, report })
      }),
    )
  })

  it('is short enough for a request line, and names a bounded number of addresses', () => {
    const node = { id: 'é'.repeat(128), addresses: Array.from({ length: 50 }, (_, i) => `fd00::1234:5678:9abc:${i}`) }
    const join = {
      node,
      haveBytes: 10 ** 14,
      size: 10 ** 14,
      load: { blobCount: 10 ** 14, feeds: 10 ** 14 },
      waitMs: 2_000,
      avoid: node.id,
      gone: node.id,
      keep: node.id,
      isSlow: true,
      image: { kind: 'leads' as const, forMs: 10 ** 14 },
      holder: { node, feeds: 10 ** 14 },
    }
    expect(joinPath(digest, join).length).toBeLessThan(8_000)
    expect(parseMessage(joinPath(digest, join))).toMatchObject({
      join: { node: { addresses: node.addresses.slice(0, addressesPerPeerMax) } },
    })
  })

  it.each([
    [''],
    ['/'],
    ['/spegel-ts/flights/v1/'],
    [`/spegel-ts/flights/v2/${digest}/join?${who}&have=0`],
    [`${path}?${who}&have=0`],
    [`${path}/?${who}&have=0`],
    [`${path}/explode?${who}&have=0`],
    [`${path}/__proto__?${who}&have=0`],
    [`${path}/join/more?${who}&have=0`],
    [`/spegel-ts/flights/v1/sha256:abc/join?${who}&have=0`],
    [`/spegel-ts/flights/v1/../${digest}/join?${who}&have=0`],
    [`${path}/join`],
    [`${path}/join?${who}`],
    [`${path}/join?${who}&have=`],
    [`${path}/join?${who}&have=-1`],
    [`${path}/join?${who}&have=1e9`],
    [`${path}/join?${who}&have=1.5`],
    [`${path}/join?${who}&have=1234567890123456`],
    [`${path}/join?at=10.0.0.1&have=0`],
    [`${path}/join?node=&at=10.0.0.1&have=0`],
    [`${path}/join?node=${'n'.repeat(129)}&at=10.0.0.1&have=0`],
    [`${path}/join?node=n&have=0`],
    [`${path}/join?node=n&at=&have=0`],
    [`${path}/join?node=n&at=example.org&have=0`],
    [`${path}/join?node=n&at=10.0.0.1:5000&have=0`],
    [`${path}/progress?${who}`],
  ])('is not understood: %s', (url) => {
    expect(parseMessage(url)).toBeUndefined()
  })

  it('may only ask whether anybody is there', () => {
    expect(parseMessage(`${path}/alive`)).toEqual({ kind: 'alive', digest })
    expect(parseMessage(`${path}/alive/x`)).toBeUndefined()
  })

  it('does without what it may do without, and is kept within bounds', () => {
    expect(parseMessage(`${path}/join?${who}&have=0`)).toMatchObject({ join: { waitMs: 0, size: undefined } })
    expect(parseMessage(`${path}/join?${who}&have=0&size=x&wait=y`)).toMatchObject({
      join: { waitMs: 0, size: undefined },
    })
    expect(parseMessage(`${path}/join?${who}&have=0&wait=999999999`)).toMatchObject({
      join: { waitMs: flightJoinWaitMs },
    })
    for (const [busy, understood] of [
      ['7', 1],
      ['-1', 0],
      ['NaN', 0],
      ['Infinity', 1],
      ['0.25', 0.25],
    ] as const) {
      expect(parseMessage(`${path}/progress?${who}&have=0&busy=${busy}`)).toMatchObject({
        report: { busy: understood },
      })
    }
    const mixed = `node=n&at=example.org,10.0.0.1,,fd00::1`
    expect(parseMessage(`${path}/join?${mixed}&have=0`)).toMatchObject({
      join: { node: { addresses: ['10.0.0.1', 'fd00::1'] } },
    })
  })

  it('never makes it throw', () => {
    const parts = fc.constantFrom(
      '/spegel-ts/flights/v1/',
      digest,
      '/',
      'join',
      '?',
      '&',
      'node=',
      'at=',
      'have=0',
      '%',
    )
    const texts = fc.array(fc.oneof(parts, fc.string())).map((pieces) => pieces.join(''))
    fc.assert(fc.property(texts, (text) => void parseMessage(text)))
  })
})

describe('an answer', () => {
  it('is understood as it was meant', () => {
    expect(parseAnswer(JSON.stringify({ kind: 'lease' }))).toEqual({ kind: 'lease' })
    const afterFailure = { kind: 'lease', afterFailure: true }
    expect(parseAnswer(JSON.stringify(afterFailure))).toEqual(afterFailure)
    expect(parseAnswer(JSON.stringify({ kind: 'lease', afterFailure: 'no' }))).toEqual({ kind: 'lease' })
    expect(parseAnswer(JSON.stringify({ kind: 'wait' }))).toEqual({ kind: 'wait' })
    expect(parseAnswer(JSON.stringify({ kind: 'pause' }))).toEqual({ kind: 'pause' })
    expect(parseAnswer(JSON.stringify({ kind: 'gone' }))).toEqual({ kind: 'gone' })
    fc.assert(
      fc.property(nodes, (source) => {
        expect(parseAnswer(JSON.stringify({ kind: 'source', source }))).toEqual({ kind: 'source', source })
      }),
    )
  })

  it.each([
    [''],
    ['null'],
    ['[]'],
    ['"lease"'],
    ['{}'],
    ['{"kind":"lease"'],
    ['{"kind":"other"}'],
    ['{"kind":"source"}'],
    ['{"kind":"source","source":null}'],
    ['{"kind":"source","source":{"id":7,"addresses":["10.0.0.1"]}}'],
    ['{"kind":"source","source":{"id":"n","addresses":"10.0.0.1"}}'],
    ['{"kind":"source","source":{"id":"n","addresses":[]}}'],
    ['{"kind":"source","source":{"id":"n","addresses":["example.org",{},null,5]}}'],
    ['{"kind":"source","source":{"id":"","addresses":["10.0.0.1"]}}'],
  ])('is not understood: %s', (text) => {
    expect(parseAnswer(text)).toBeUndefined()
  })

  it('never makes it throw', () => {
    fc.assert(fc.property(fc.oneof(fc.json(), fc.string()), (text) => void parseAnswer(text)))
  })
})
