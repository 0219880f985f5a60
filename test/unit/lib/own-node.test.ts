import { describe, expect, it } from 'vitest'
import { canonicalIp } from '../../../src/lib/address.ts'
import { OwnNode, systemSources } from '../../../src/lib/own-node.ts'

const routes = {
  '/proc/net/route': [
    'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
    'eth0\t00000000\t0102580A\t0003\t0\t0\t0\t00000000\t0\t0\t0',
    'eth0\t0002580A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0',
    '',
  ].join('\n'),
  '/proc/net/ipv6_route': [
    `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003 eth0`,
    `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 ${'0'.repeat(32)} ffffffff 00000001 00000000 00200200 lo`,
  ].join('\n'),
}

describe('a connection comes from this node', () => {
  const sources = { ...systemSources((path) => routes[path]), interfaceIps: () => ['10.88.2.7', 'fd00::7'] }
  const own = new OwnNode(['192.168.1.5'], sources)

  it.each(['127.0.0.1', '::1', '::ffff:127.0.0.1', '10.88.2.7', 'fd00::7', '10.88.2.1', 'fd00::1', '192.168.1.5'])(
    'from %s: loopback, an interface, a gateway or what the operator named',
    (address) => {
      expect(own.has(address)).toBe(true)
    },
  )

  it.each(['10.88.2.8', '127.9.9.9', 'fd00::2', '::ffff:10.88.2.8', '0.0.0.0', '', undefined])(
    'not from %s',
    (address) => {
      expect(own.has(address)).toBe(false)
    },
  )

  it('where the routes cannot be read', () => {
    const none = new OwnNode([], { ...systemSources(() => ''), interfaceIps: () => [] })
    expect([none.has('127.0.0.1'), none.has('10.88.2.1')]).toEqual([true, false])
    expect(new OwnNode([]).has('127.0.0.1')).toBe(true)
  })
})

it('an IPv4 address on an IPv6 socket is written as one', () => {
  expect([canonicalIp('::ffff:10.0.0.1'), canonicalIp('10.0.0.1'), canonicalIp('fd00::1')]).toEqual([
    '10.0.0.1',
    '10.0.0.1',
    'fd00::1',
  ])
})
