/** What versions of containerd read differently in a hosts.toml. */

export interface Dialect {
  /** 1.6 and most of 1.7 reject a file without a `[host]` table. */
  readsHostlessFiles: boolean
  /** Before 2.0 a `]` within a table name, as in an IPv6 address, made the file unreadable. */
  readsIpv6Tables: boolean
}

/** `version`: what containerd reports, such as `v2.3.4` or `1.6.20~ds1`; undefined: unknown, so the oldest counts. */
export function dialectOf(version: string | undefined): Dialect {
  const major = Number(/^v?(\d+)\./.exec(version ?? '')?.[1] ?? 1)
  return { readsHostlessFiles: major >= 2, readsIpv6Tables: major >= 2 }
}
