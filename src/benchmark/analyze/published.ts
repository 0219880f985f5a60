/**
 * What Spegel's project published for its own tool: AKS 1.29, 50 nodes, average of the update. Improvements are
 * computed from these milliseconds; for 10MB-1 the page itself prints 81.25 %.
 */
export interface PublishedRow {
  baselineMs: number
  spegelMs: number
}

export const publishedSource = 'Spegel on AKS 1.29, 50 nodes, average of the update'

export const published: ReadonlyMap<string, PublishedRow> = new Map([
  ['10MB-1', { baselineMs: 1_220, spegelMs: 210 }],
  ['10MB-4', { baselineMs: 1_409, spegelMs: 155 }],
  ['100MB-1', { baselineMs: 1_725, spegelMs: 560 }],
  ['100MB-4', { baselineMs: 1_573, spegelMs: 500 }],
  ['1GB-1', { baselineMs: 8_429, spegelMs: 6_682 }],
  ['1GB-4', { baselineMs: 7_310, spegelMs: 5_125 }],
])
