import { describe, expect, it } from 'vitest'
import { streamsMax, streamsPerAddressMax, streamsReserved } from '../../../src/limits.ts'
import { createLogger } from '../../../src/logger.ts'
import { BodyShares } from '../../../src/registry/body-shares.ts'
import { Callers } from '../../../src/registry/callers.ts'

const own = '127.0.0.1'
const isOwnNode = (address: string | undefined) => address === own
const containerd = { 'user-agent': 'containerd/2.3.4' }

function setUp() {
  const lines: string[] = []
  const callers = new Callers(isOwnNode, createLogger('INFO', { write: (line) => void lines.push(line) }))
  return { callers, lines }
}

describe('a request comes from this containerd', () => {
  it('by its User-Agent and an address of this node', () => {
    const { callers, lines } = setUp()
    expect(callers.judge({ headers: containerd, ip: own })).toEqual({ isPeer: false, isContainerd: true })
    expect(callers.judge({ headers: containerd, ip: '10.0.0.9' }).isContainerd).toBe(false)
    expect(callers.judge({ headers: {}, ip: own }).isContainerd).toBe(false)
    expect(lines).toEqual([])
  })

  it('by its User-Agent alone while no containerd has connected from this node, which is logged once', () => {
    const { callers, lines } = setUp()
    for (let i = 0; i < 3; i++) {
      expect(callers.judge({ headers: containerd, ip: '10.0.0.9' }).isContainerd).toBe(true)
    }
    expect(lines).toHaveLength(1)
    expect(lines[0]).toMatch(/10\.0\.0\.9.*--node-ip/)
  })

  it('not when it is marked as mirrored', () => {
    const { callers } = setUp()
    const headers = { ...containerd, 'x-spegel-mirrored': 'true' }
    expect(callers.judge({ headers, ip: own })).toEqual({ isPeer: true, isContainerd: false })
  })
})

describe('requests that are answered at the same time', () => {
  it('have a share for each address, and a reserve for this node', () => {
    const bodies = new BodyShares(isOwnNode)
    const taken = (address: string, count: number) =>
      Array.from({ length: count }, () => bodies.take(address)).filter((release) => release !== undefined)
    const first = taken('a', streamsMax)
    expect(first).toHaveLength(streamsPerAddressMax)
    expect(taken('::ffff:10.0.0.1', 1)).toHaveLength(1)
    const others = ['b', 'c', 'd', 'e'].flatMap((address) => taken(address, streamsMax))
    expect(bodies.total).toBe(streamsMax - streamsReserved)
    expect(first.length + 1 + others.length).toBe(streamsMax - streamsReserved)
    expect(taken(own, streamsMax)).toHaveLength(streamsReserved)
    expect(bodies.take(own)).toBeUndefined()
    first[0]?.()
    expect(taken('a', 2)).toHaveLength(0)
    expect(bodies.take(own)).toBeDefined()
    for (const release of [...first.slice(1), ...others]) release()
    expect(bodies.take('a')).toBeDefined()
  })
})
