import { describe, expect, it } from 'vitest'
import type { Bootstrapper } from '../../../src/bootstrap/bootstrapper.ts'
import { NamedAddresses } from '../../../src/bootstrap/named-addresses.ts'
import { namedAddressesMs, namedAddressesTimeoutMs } from '../../../src/limits.ts'
import { ManualClock } from '../../support/manual-clock.ts'

describe('the addresses that a bootstrap source names', () => {
  function setUp(...lists: (readonly string[] | Error | undefined)[]) {
    const clock = new ManualClock()
    let reads = 0
    const bootstrapper: Bootstrapper = {
      name: 'test',
      peers() {
        const list = lists[Math.min(reads, lists.length - 1)]
        reads += 1
        if (list instanceof Error) return Promise.reject(list)
        return list === undefined ? Promise.withResolvers<string[]>().promise : Promise.resolve([...list])
      },
    }
    const names = new Map([['node.test', ['10.0.0.3', 'fd00::3']]])
    const lookup = (name: string) => {
      const ips = names.get(name)
      return ips === undefined ? Promise.reject(new Error('ENOTFOUND')) : Promise.resolve(ips)
    }
    return { clock, named: new NamedAddresses(bootstrapper, clock, lookup), reads: () => reads }
  }

  it('are those of its multiaddrs, in any spelling, with names resolved', async () => {
    const peers = [
      '/ip4/10.0.0.1/tcp/5001/p2p/12D3KooWGrV1gAJLg8wgvTVSNM4Bvo39Qoqb45ZAUjw6YNf9SNjp',
      '/ip6/fd00:0:0::1/tcp/5001',
      '/dns4/node.test/tcp/5001',
      '/dns/unknown.test/tcp/5001',
      'nonsense',
      '',
    ]
    const { named } = setUp(peers)
    for (const ip of ['10.0.0.1', 'fd00::1', '10.0.0.3', 'fd00::3', '::ffff:10.0.0.1']) {
      expect(await named.has(ip)).toBe(true)
    }
    for (const ip of ['10.0.0.2', 'fd00::2', '', 'nonsense']) expect(await named.has(ip)).toBe(false)
  })

  it('are read again after some seconds, once for all that wait', async () => {
    const { clock, named, reads } = setUp(['/ip4/10.0.0.1/tcp/5001'], ['/ip4/10.0.0.2/tcp/5001'])
    expect(await Promise.all(['10.0.0.1', '10.0.0.2'].map((ip) => named.has(ip)))).toEqual([true, false])
    clock.advance(namedAddressesMs - 1)
    expect(await named.has('10.0.0.2')).toBe(false)
    expect(reads()).toBe(1)
    clock.advance(1)
    expect(await Promise.all(['10.0.0.1', '10.0.0.2'].map((ip) => named.has(ip)))).toEqual([false, true])
    expect(reads()).toBe(2)
  })

  it('are the last ones while the source fails', async () => {
    const { clock, named, reads } = setUp(['/ip4/10.0.0.1/tcp/5001'], new Error('unavailable'))
    expect(await named.has('10.0.0.1')).toBe(true)
    clock.advance(namedAddressesMs)
    expect(await named.has('10.0.0.1')).toBe(true)
    expect(reads()).toBe(2)
  })

  it('are none when the source has never answered in time', async () => {
    const { clock, named } = setUp(undefined)
    const answer = named.has('10.0.0.1')
    clock.advance(namedAddressesTimeoutMs)
    expect(await answer).toBe(false)
  })
})
