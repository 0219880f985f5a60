/** What a mirror counts of itself, read from its metrics. */

/** Undefined: the mirror does not tell. */
export interface MirrorCounters {
  toContainerdBytes: number | undefined
  toPeersBytes: number | undefined
  cpuSeconds: number | undefined
}

/** Of Prometheus' text format. */
export function parseCounters(text: string): MirrorCounters {
  const sums = new Map<string, number>()
  for (const line of text.split('\n')) {
    const [, name = '', labels = '', value = ''] = /^([\w:]+)(?:\{(.*)\})? (\S+)/.exec(line) ?? []
    const [, to = ''] = /(?:^|,)to="([^"]*)"/.exec(labels) ?? []
    const key = `${name} ${to}`.trim()
    if (name !== '') sums.set(key, (sums.get(key) ?? 0) + Number(value))
  }
  // A mirror that has sent nothing yet has no sample with that label.
  const sent = (to: string) =>
    text.includes('# TYPE spegel_sent_bytes_total ') ? (sums.get(`spegel_sent_bytes_total ${to}`) ?? 0) : undefined
  return {
    toContainerdBytes: sent('containerd'),
    toPeersBytes: sent('peer'),
    cpuSeconds: sums.get('process_cpu_seconds_total'),
  }
}

/** What all mirrors did between two readings, by the uids of their pods. One that was started meanwhile began at 0. */
export function growth(
  before: ReadonlyMap<string, MirrorCounters>,
  after: ReadonlyMap<string, MirrorCounters>,
): MirrorCounters {
  const total = (of: (counters: MirrorCounters) => number | undefined) => {
    const grown = [...after].flatMap(([uid, counters]) => {
      const [now, earlier] = [of(counters), before.get(uid)]
      const then = earlier === undefined ? 0 : (of(earlier) ?? 0)
      // A container that was started again began at 0 too.
      return now === undefined ? [] : [now >= then ? now - then : now]
    })
    return grown.length === 0 ? undefined : grown.reduce((sum, value) => sum + value, 0)
  }
  return {
    toContainerdBytes: total((counters) => counters.toContainerdBytes),
    toPeersBytes: total((counters) => counters.toPeersBytes),
    cpuSeconds: total((counters) => counters.cpuSeconds),
  }
}
