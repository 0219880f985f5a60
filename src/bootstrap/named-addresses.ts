/** The IP addresses that the bootstrap source currently names. */
import { surface } from '../lib/background.ts'
import { canonicalIp } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { raceAbort } from '../lib/race-abort.ts'
import { namedAddressesMs, namedAddressesTimeoutMs } from '../limits.ts'
import type { Bootstrapper } from './bootstrapper.ts'
import { type LookupAddresses, systemLookup } from './dns.ts'

export class NamedAddresses {
  readonly #bootstrapper: Bootstrapper
  readonly #clock: Clock
  readonly #lookup: LookupAddresses
  #ips: ReadonlySet<string> = new Set()
  #validUntilMs = -Infinity
  #reading: Promise<void> | undefined

  constructor(bootstrapper: Bootstrapper, clock: Clock, lookup = systemLookup) {
    this.#bootstrapper = bootstrapper
    this.#clock = clock
    this.#lookup = lookup
  }

  /** Reads the source again when the list is older than a few seconds. While the source fails, the last list is used. */
  async has(ip: string): Promise<boolean> {
    if (this.#clock.nowMs() >= this.#validUntilMs) {
      this.#reading ??= this.#read().finally(() => (this.#reading = undefined))
      await this.#reading
    }
    return this.#ips.has(canonicalIp(ip))
  }

  async #read(): Promise<void> {
    using patience = awakeTimeout(this.#clock, namedAddressesTimeoutMs)
    const { signal } = patience
    try {
      const entries = await raceAbort(this.#bootstrapper.peers(signal), signal)
      const ips = await raceAbort(Promise.all(entries.map((entry) => this.#ipsOf(entry))), signal)
      this.#ips = new Set(ips.flat().map(canonicalIp))
    } catch (error) {
      surface('bootstrap', error)
    } finally {
      this.#validUntilMs = this.#clock.nowMs() + namedAddressesMs
    }
  }

  /** The IP addresses of a multiaddr. Empty for other text, and for a name that cannot be resolved. */
  async #ipsOf(entry: string): Promise<string[]> {
    const [, family = '', host = ''] = entry.split('/')
    if (family === 'ip4' || family === 'ip6') return [host]
    if (!['dns', 'dns4', 'dns6'].includes(family)) return []
    try {
      return await this.#lookup(host)
    } catch (error) {
      surface('bootstrap', error)
      return []
    }
  }
}
