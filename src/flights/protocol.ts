/** The messages of flights. What they mean, and every time limit: docs/flights.md. */
import { isIP } from 'node:net'
import { parseJsonObject } from '../lib/foreign.ts'
import { addressesPerPeerMax, flightJoinWaitMs } from '../limits.ts'
import { type Digest, isDigest } from '../oci/digest.ts'
import type { Peer } from '../router/router.ts'
import type { ImageRole, NodeLoad } from './flight.ts'

/** A node as others reach it. */
export type FlightNode = Peer

/** "Where do I get bytes of this blob?" */
export interface Join {
  node: FlightNode
  /** It has so many, and asks for what follows. */
  haveBytes: number
  /** Of the blob, if it knows. */
  size: number | undefined
  load: NodeLoad
  /** So long it waits for a decision. */
  waitMs: number
  /** A source that did not deliver. */
  avoid: string | undefined
  /** A source where nobody listens any more. */
  gone: string | undefined
  /** Its source, which stands still: only another one is of interest, which has more. */
  keep: string | undefined
  /** With `keep`: that does not stand still, but its link may be full. */
  isSlow: boolean
  /** For the image's other blobs, where a lease is answered by 404. */
  image: ImageRole | undefined
  /** It has the blob, and said that it feeds so many others. */
  holder: { node: FlightNode; feeds: number } | undefined
}

export interface Report {
  kind: 'progress' | 'complete' | 'failed' | 'left'
  node: FlightNode
  haveBytes: number
  size: number | undefined
  load: NodeLoad
  /** Share of the time in which it received while it wanted to. */
  busy: number | undefined
}

export type Answer =
  /** Fetch upstream. `afterFailure`: who was to do so before could not. */
  | { kind: 'lease'; afterFailure?: true }
  /** Take it from this node, which has more than you. */
  | { kind: 'source'; source: FlightNode }
  /** Nothing was decided: ask again. */
  | { kind: 'wait' }
  /** Let others have the link of your source for a moment: only to who said that it is full. */
  | { kind: 'pause' }
  /** It takes no part: only to who asked whether it is there. */
  | { kind: 'gone' }

const prefix = '/spegel-ts/flights/v1/'
/** A path that is asked for messages of flights. */
export const flightsRoute = `${prefix}*` as const

const reportKinds: ReadonlySet<string> = new Set(['progress', 'complete', 'failed', 'left'])
const idLengthMax = 128
const sourceFields = ['avoid', 'gone', 'keep'] as const

/** The path and query of a question. */
export function joinPath(
  digest: Digest,
  { node, haveBytes, size, load, waitMs, isSlow, image, holder, ...sources }: Join,
): string {
  const fields = {
    ...nodeFields(node),
    have: String(haveBytes),
    ...loadFields(load),
    wait: String(Math.round(waitMs)),
  }
  const named = Object.fromEntries(
    sourceFields.flatMap((name) => (sources[name] === undefined ? [] : [[name, sources[name]]])),
  ) as Record<string, string>
  return pathOf(digest, 'join', {
    ...fields,
    ...sizeField(size),
    ...named,
    ...(isSlow ? { slow: 'true' } : {}),
    ...imageField(image),
    ...holderFields(holder),
  })
}

export function reportPath(digest: Digest, { kind, node, haveBytes, size, load, busy }: Report): string {
  const fields = { ...nodeFields(node), have: String(haveBytes), ...loadFields(load), ...sizeField(size) }
  return pathOf(digest, kind, { ...fields, ...(busy === undefined ? {} : { busy: busy.toFixed(3) }) })
}

/** "Are you there?" Whatever is answered says yes, but `gone`. */
export function alivePath(digest: Digest): string {
  return `${prefix}${digest}/alive`
}

export type Message =
  | { kind: 'alive'; digest: Digest }
  | { kind: 'join'; digest: Digest; join: Join }
  | { kind: 'report'; digest: Digest; report: Report }

/** Undefined: nonsense. */
export function parseMessage(url: string): Message | undefined {
  const [path = '', query = ''] = url.split('?', 2)
  if (!path.startsWith(prefix)) return undefined
  const [digest = '', verb = '', ...more] = path.slice(prefix.length).split('/')
  if (verb === 'alive' && more.length === 0 && isDigest(digest)) return { kind: 'alive', digest }
  const fields = new URLSearchParams(query)
  const node = readNode(fields, 'node', 'at')
  const haveBytes = readCount(fields.get('have'))
  if (!isDigest(digest) || more.length > 0 || node === undefined || haveBytes === undefined) return undefined
  const size = readCount(fields.get('size'))
  // Who does not say has this one, and feeds nobody.
  const load = { blobCount: readCount(fields.get('blobs')) ?? 1, feeds: readCount(fields.get('feeds')) ?? 0 }
  if (verb === 'join') {
    const waitMs = Math.min(readCount(fields.get('wait')) ?? 0, flightJoinWaitMs)
    const [avoid, gone, keep] = sourceFields.map((name) => fields.get(name)?.slice(0, idLengthMax))
    return {
      kind: 'join',
      digest,
      join: {
        node,
        haveBytes,
        size,
        load,
        waitMs,
        avoid,
        gone,
        keep,
        isSlow: fields.get('slow') === 'true',
        image: readImage(fields),
        holder: readHolder(fields),
      },
    }
  }
  if (!reportKinds.has(verb)) return undefined
  const busyText = fields.get('busy')
  const busy = busyText === null ? undefined : Math.min(1, Math.max(0, Number(busyText) || 0))
  return { kind: 'report', digest, report: { kind: verb as Report['kind'], node, haveBytes, size, load, busy } }
}

/** Undefined: nonsense. */
export function parseAnswer(text: string): Answer | undefined {
  const { kind, source, afterFailure } = (parseJsonObject(text) ?? {}) as {
    kind?: unknown
    source?: { id?: unknown; addresses?: unknown } | null
    afterFailure?: unknown
  }
  if (kind === 'lease') return afterFailure === true ? { kind, afterFailure } : { kind }
  if (kind === 'wait' || kind === 'pause' || kind === 'gone') return { kind }
  if (kind !== 'source' || typeof source?.id !== 'string' || !Array.isArray(source.addresses)) return undefined
  if (!source.addresses.every((address) => typeof address === 'string')) return undefined
  const node = checkedNode(source.id, source.addresses)
  return node === undefined ? undefined : { kind, source: node }
}

function pathOf(digest: Digest, verb: string, fields: Record<string, string>): string {
  return `${prefix}${digest}/${verb}?${new URLSearchParams(fields).toString()}`
}

function nodeFields({ id, addresses }: FlightNode): { node: string; at: string } {
  return { node: id, at: addresses.slice(0, addressesPerPeerMax).join(',') }
}

function loadFields({ blobCount, feeds }: NodeLoad): Record<string, string> {
  return { blobs: String(blobCount), feeds: String(feeds) }
}

function sizeField(size: number | undefined): Record<string, string> {
  return size === undefined ? {} : { size: String(size) }
}

function imageField(image: ImageRole | undefined): Record<string, string> {
  if (image === undefined) return {}
  return image.kind === 'yields' ? { yields: 'true' } : { leads: String(Math.round(image.forMs)) }
}

function holderFields(holder: Join['holder']): Record<string, string> {
  if (holder === undefined) return {}
  const { node, at } = nodeFields(holder.node)
  return { holder: node, 'holder-at': at, 'holder-feeds': String(holder.feeds) }
}

function readHolder(fields: URLSearchParams): Join['holder'] {
  const node = readNode(fields, 'holder', 'holder-at')
  return node === undefined ? undefined : { node, feeds: readCount(fields.get('holder-feeds')) ?? 0 }
}

function readImage(fields: URLSearchParams): ImageRole | undefined {
  const forMs = readCount(fields.get('leads'))
  if (forMs !== undefined) return { kind: 'leads', forMs }
  return fields.get('yields') === 'true' ? { kind: 'yields' } : undefined
}

function readNode(fields: URLSearchParams, idName: string, addressesName: string): FlightNode | undefined {
  return checkedNode(fields.get(idName) ?? '', (fields.get(addressesName) ?? '').split(','))
}

function checkedNode(id: string, addresses: readonly string[]): FlightNode | undefined {
  const valid = addresses.filter((address) => isIP(address) !== 0).slice(0, addressesPerPeerMax)
  if (id === '' || id.length > idLengthMax || valid.length === 0) return undefined
  return { id, addresses: valid }
}

function readCount(text: string | null): number | undefined {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}
