import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { ConnectionShares } from '../../../src/http/connection-shares.ts'

class FakeSocket extends EventEmitter {
  readonly remoteAddress: string
  isIdle = true
  isDestroyed = false

  constructor(remoteAddress: string) {
    super()
    this.remoteAddress = remoteAddress
  }

  destroy(): void {
    this.isDestroyed = true
  }
}

const own = '127.0.0.1'

function setUp() {
  const shares = new ConnectionShares(
    { connectionsMax: 8, perAddressMax: 3, reserved: 2, isOwnNode: (address) => address === own },
    (socket) => (socket as unknown as FakeSocket).isIdle,
  )
  const connect = (address: string, isIdle = true) => {
    const socket = new FakeSocket(address)
    socket.isIdle = isIdle
    return { socket, isAdmitted: shares.admit(socket as unknown as Socket) }
  }
  return { connect }
}

describe('connections of a server', () => {
  it('of a client over its share: the oldest idle one is closed', () => {
    const { connect } = setUp()
    const [busy, first, second] = [connect('a', false), connect('a'), connect('a')]
    const third = connect('a')
    expect([busy, first, second, third].map(({ socket }) => socket.isDestroyed)).toEqual([false, true, false, false])
    expect(third.isAdmitted).toBe(true)
  })

  it('of a client over its share are refused when none is idle', () => {
    const { connect } = setUp()
    for (let i = 0; i < 3; i++) connect('a', false)
    const refused = connect('a')
    expect([refused.isAdmitted, refused.socket.isDestroyed]).toEqual([false, true])
    expect(connect('b').isAdmitted).toBe(true)
  })

  it('count by address, however an IPv4 address is written', () => {
    const { connect } = setUp()
    for (let i = 0; i < 3; i++) connect('::ffff:10.0.0.1', false)
    expect(connect('10.0.0.1').isAdmitted).toBe(false)
  })

  it('of a full server: a newcomer takes one from the client that holds most', () => {
    const { connect } = setUp()
    const largest = [connect('a'), connect('a'), connect('a')]
    const others = [connect('b'), connect('b'), connect('c')]
    const newcomer = connect('d')
    expect(newcomer.isAdmitted).toBe(true)
    expect(largest.map(({ socket }) => socket.isDestroyed)).toEqual([true, false, false])
    expect(others.some(({ socket }) => socket.isDestroyed)).toBe(false)
  })

  it('of this node have a reserve, and come before busy ones of others', () => {
    const { connect } = setUp()
    const strangers = ['a', 'a', 'a', 'b', 'b', 'b'].map((address) => connect(address, false))
    expect(connect('c').isAdmitted).toBe(false)
    // The reserve.
    expect([connect(own, false), connect(own, false)].every(({ isAdmitted }) => isAdmitted)).toBe(true)
    expect(strangers.some(({ socket }) => socket.isDestroyed)).toBe(false)
    expect(connect(own).isAdmitted).toBe(true)
    expect(strangers.filter(({ socket }) => socket.isDestroyed)).toHaveLength(1)
  })

  it('that end make room', () => {
    const { connect } = setUp()
    const sockets = [1, 2, 3].map(() => connect('a', false).socket)
    expect(connect('a').isAdmitted).toBe(false)
    sockets[0]?.emit('close')
    expect(connect('a', false).isAdmitted).toBe(true)
    // A second event of the same end does not count.
    sockets[0]?.emit('close')
    expect(connect('a').isAdmitted).toBe(false)
  })
})
