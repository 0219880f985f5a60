/**
 * All metrics: names, labels and help. The first group has the names that Spegel's dashboards know; the second is
 * ours. `docs/metrics.md` is generated from here.
 */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client'
import { taskNames } from './lib/background.ts'
import { otherName } from './lib/bounded-names.ts'
import { EventLoopLag, type LagSummary } from './lib/event-loop-lag.ts'

/** Label values that only requests, images and configuration know. Series appear with the first use of a value. */
export const fromOutside = Symbol('from outside')

/** For each label its values: each combination has a series from the start, so that a rate sees the first burst. */
type LabelSpecs = Readonly<Record<string, readonly string[] | typeof fromOutside>>

interface MetricSpec {
  type: 'counter' | 'gauge' | 'histogram'
  name: string
  help: string
  labels: LabelSpecs
  buckets?: readonly number[]
}

const secondsBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const firstByteBuckets = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048]
const httpHandlers = ['/v2/*', '/spegel-ts/flights/v1/*', '/livez', '/readyz', 'other'] as const
const httpMethods = ['GET', 'HEAD', 'POST', 'other'] as const
const sizeBuckets = Array.from({ length: 10 }, (_, power) => 1024 * 5 ** power)

export const metricSpecs = {
  mirrorRequests: {
    type: 'counter',
    name: 'spegel_mirror_requests_total',
    help: 'Requests of containerd that this node could not answer from its own store. cache: hit, or miss (sent upstream, also the one node that fetches for all).',
    labels: { registry: fromOutside, cache: ['hit', 'miss'] },
  },
  mirrorLastSuccess: {
    type: 'gauge',
    name: 'spegel_mirror_last_success_timestamp_seconds',
    help: 'When a request was last answered by a peer, as Unix time.',
    labels: {},
  },
  resolveDuration: {
    type: 'histogram',
    name: 'spegel_resolve_duration_seconds',
    help: 'Time from the question in the swarm to the first provider.',
    labels: { router: ['libp2p'] },
    buckets: secondsBuckets,
  },
  advertisedTags: {
    type: 'gauge',
    name: 'spegel_advertised_image_tags',
    help: 'Tags that this node offers, by registry.',
    labels: { registry: fromOutside },
  },
  advertisedImages: {
    type: 'gauge',
    name: 'spegel_advertised_image_digests',
    help: 'Different images (digests that tags stand for) that this node offers, by registry.',
    labels: { registry: fromOutside },
  },
  advertisedDigests: {
    type: 'gauge',
    name: 'spegel_advertised_content_digests',
    help: 'Digests (manifests, configs, layers) that this node offers.',
    labels: {},
  },
  httpDuration: {
    type: 'histogram',
    name: 'http_request_duration_seconds',
    help: 'Time from the request to the end of its body.',
    labels: { handler: httpHandlers, method: httpMethods, code: fromOutside },
    buckets: secondsBuckets,
  },
  httpResponseSize: {
    type: 'histogram',
    name: 'http_response_size_bytes',
    help: 'Bytes of the bodies sent.',
    labels: { handler: httpHandlers, method: httpMethods, code: fromOutside },
    buckets: sizeBuckets,
  },
  httpInflight: {
    type: 'gauge',
    name: 'http_requests_inflight',
    help: 'Requests that are being answered.',
    labels: { handler: httpHandlers },
  },
  sentBytes: {
    type: 'counter',
    name: 'spegel_sent_bytes_total',
    help: 'Bytes of content sent. source: store (this node has it), transfer (it is being downloaded here) or peer (passed on); to: containerd or peer.',
    labels: { source: ['store', 'transfer', 'peer'], to: ['containerd', 'peer'] },
  },
  mirrorMisses: {
    type: 'counter',
    name: 'spegel_mirror_misses_total',
    help: 'Requests of containerd that send it upstream, by 404 or by a redirect. reason: no-provider, providers-failed, timeout, given-up (the rest of a body that no peer could finish) or wrong-bytes (containerd discarded the blob before).',
    labels: { reason: ['no-provider', 'providers-failed', 'timeout', 'given-up', 'wrong-bytes'] },
  },
  firstByte: {
    type: 'histogram',
    name: 'spegel_time_to_first_byte_seconds',
    help: 'Time from the request to its response headers, by source.',
    labels: { source: ['store', 'peer'] },
    buckets: firstByteBuckets,
  },
  peerFailures: {
    type: 'counter',
    name: 'spegel_peer_failures_total',
    help: 'Holders and sources of flights that were asked and did not deliver. reason: connect, not-found, status, headers, body, stall or digest.',
    labels: { reason: ['connect', 'not-found', 'status', 'headers', 'body', 'stall', 'digest'] },
  },
  wrongBlobs: {
    type: 'counter',
    name: 'spegel_wrong_blobs_total',
    help: 'Blobs from peers that containerd discarded. The digest is not mirrored on this node for 10 minutes; its holders are avoided.',
    labels: {},
  },
  refusals: {
    type: 'counter',
    name: 'spegel_refusals_total',
    help: 'Requests answered with 503. reason: streams (too many bodies under way) or load (a peer asked for an idle holder).',
    labels: { reason: ['streams', 'load'] },
  },
  resumes: {
    type: 'counter',
    name: 'spegel_mirror_resumes_total',
    help: 'Bodies that went on at another peer after a break, in the same response. outcome: resumed or given-up.',
    labels: { outcome: ['resumed', 'given-up'] },
  },
  flightLeases: {
    type: 'counter',
    name: 'spegel_flight_leases_total',
    help: 'Permissions to fetch a blob upstream that this node gave as coordinator. kind: first, or further (the one before made no progress).',
    labels: { kind: ['first', 'further'] },
  },
  flightEnds: {
    type: 'counter',
    name: 'spegel_flight_ends_total',
    help: 'Downloads of this node that were part of a flight. role: leading (from upstream), following (from other nodes: an upstream fetch saved) or waiting; outcome: complete or failed.',
    labels: { role: ['leading', 'following', 'waiting'], outcome: ['complete', 'failed'] },
  },
  flightMoves: {
    type: 'counter',
    name: 'spegel_flight_moves_total',
    help: 'How often this node left a source whose link was full and shared. kind: moved (to another source) or paused (it let the others go ahead for a moment).',
    labels: { kind: ['moved', 'paused'] },
  },
  flightWaits: {
    type: 'counter',
    name: 'spegel_flight_waits_total',
    help: 'Questions of containerd that a flight decided. outcome: source (fed by another node), lease (sent upstream), alone (no coordinator answered) or timeout (nothing was decided in time).',
    labels: { outcome: ['source', 'lease', 'alone', 'timeout'] },
  },
  flightFollowers: {
    type: 'gauge',
    name: 'spegel_flight_followers',
    help: 'Nodes that are being fed from downloads of this node that are not complete yet.',
    labels: {},
  },
  flightsCoordinated: {
    type: 'gauge',
    name: 'spegel_flights_coordinated',
    help: 'Blobs whose flight this node coordinates, or did a moment ago.',
    labels: {},
  },
  configurationProblems: {
    type: 'gauge',
    name: 'spegel_ts_configuration_problems',
    help: 'Registries that do not lead containerd to this mirror, and addresses of the mirror at which another program answers. /readyz and the log name them.',
    labels: {
      reason: [
        'missing',
        'invalid_file',
        'unreadable',
        'mirror_not_first',
        'foreign_listener',
        'no_response',
        'unreachable',
      ],
    },
  },
  dhtPeers: {
    type: 'gauge',
    name: 'spegel_dht_peers',
    help: 'Peers in the routing table.',
    labels: {},
  },
  providedKeys: {
    type: 'gauge',
    name: 'spegel_provided_keys',
    help: 'Keys that this node keeps announced in the swarm.',
    labels: {},
  },
  providerRecords: {
    type: 'gauge',
    name: 'spegel_provider_records',
    help: 'Provider records of other nodes that this node keeps.',
    labels: {},
  },
  recordDrops: {
    type: 'counter',
    name: 'spegel_ts_provider_record_drops_total',
    help: 'Provider records of other nodes dropped before they expired, because the share of a peer, of an address or of all was full.',
    labels: {},
  },
  identityClones: {
    type: 'counter',
    name: 'spegel_ts_identity_clones_total',
    help: 'Proven reports that another running node has the identity of this one.',
    labels: {},
  },
  provideFailures: {
    type: 'counter',
    name: 'spegel_provide_failures_total',
    help: 'Peers that did not take announcements; other peers hold the same records.',
    labels: {},
  },
  internalErrors: {
    type: 'counter',
    name: 'spegel_ts_internal_errors_total',
    help: 'Errors that no code expected, each logged as "internal error" with its stack. task: where it happened.',
    labels: { task: taskNames },
  },
} as const satisfies Record<string, MetricSpec>

type Specs = typeof metricSpecs

/** A value for each label: only declared ones compile. */
type LabelValues<Labels extends LabelSpecs> = {
  -readonly [Name in keyof Labels]: Labels[Name] extends readonly (infer Value)[] ? Value : string
}
type Args<
  Spec extends MetricSpec,
  Value extends [value: number] | [value?: number],
> = keyof Spec['labels'] extends never ? Value : [labels: LabelValues<Spec['labels']>, ...Value]
type By<Spec extends MetricSpec> = (...args: Args<Spec, [by?: number]>) => void
type To<Spec extends MetricSpec> = (...args: Args<Spec, [value: number]>) => void

type MetricOf<Spec extends MetricSpec> = Spec['type'] extends 'counter'
  ? Pick<Counter, 'get'> & { inc: By<Spec> }
  : Spec['type'] extends 'gauge'
    ? Pick<Gauge, 'get' | 'reset' | 'setToCurrentTime'> & { inc: By<Spec>; dec: By<Spec>; set: To<Spec> }
    : Pick<Histogram, 'get'> & { observe: To<Spec> }

/** One object per metric, by the name it has in this program. */
export type Metrics = { readonly [Name in keyof Specs]: MetricOf<Specs[Name]> } & { readonly registry: Registry }

/** A registry of its own, so that several daemons can live in one process (tests). */
export function createMetrics(): Metrics {
  const registry = new Registry()
  const created: Record<string, unknown> = { registry }
  for (const [key, spec] of Object.entries<MetricSpec>(metricSpecs)) created[key] = createMetric(spec, registry)
  const metrics = created as Metrics
  // Registries that are not configured by name are counted as this one when there are too many of them.
  initRegistry(metrics, otherName)
  return metrics
}

/** Series for a registry that is known before its first request. */
export function initRegistry({ mirrorRequests }: Metrics, registry: string): void {
  for (const cache of metricSpecs.mirrorRequests.labels.cache) mirrorRequests.inc({ registry, cache }, 0)
}

function createMetric(spec: MetricSpec, registry: Registry): Counter | Gauge | Histogram {
  const { type, name, help, labels } = spec
  const options = { name, help, labelNames: Object.keys(labels), registers: [registry] }
  const combinations = labelCombinations(labels)
  // Metrics without labels start with 0 anyway.
  if (type === 'counter') {
    const counter = new Counter(options)
    for (const values of combinations) counter.inc(values, 0)
    return counter
  }
  if (type === 'gauge') {
    const gauge = new Gauge(options)
    for (const values of combinations) gauge.set(values, 0)
    return gauge
  }
  const histogram = new Histogram({ ...options, buckets: [...(spec.buckets ?? [])] })
  for (const values of combinations) histogram.zero(values)
  return histogram
}

/** None if a label's values come from outside. */
function labelCombinations(labels: LabelSpecs): Record<string, string>[] {
  let combinations: Record<string, string>[] = [{}]
  for (const [name, values] of Object.entries(labels)) {
    if (values === fromOutside) return []
    combinations = combinations.flatMap((one) => values.map((value) => ({ ...one, [name]: value })))
  }
  return combinations
}

/** Node's own metrics (`process_*`, `nodejs_*`): once per process. */
export function collectProcessMetrics({ registry }: Metrics): void {
  // The sampler of prom-client is replaced below. Its timer never fires.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 2 ** 31 - 1 })
  const lag = new EventLoopLag()
  for (const [key, help] of Object.entries(lagHelp) as [keyof LagSummary, string][]) {
    const name = `nodejs_eventloop_lag_${key}_seconds`
    registry.removeSingleMetric(name)
    const gauge: Gauge = new Gauge({
      name,
      help,
      registers: [registry],
      collect: async () => gauge.set((await lag.take())[key]),
    })
  }
}

const lagHelp: Record<keyof LagSummary, string> = {
  min: 'Lowest lag of the event loop since the last scrape.',
  max: 'Highest lag of the event loop since the last scrape.',
  mean: 'Mean lag of the event loop since the last scrape.',
  stddev: 'Standard deviation of the lag of the event loop since the last scrape.',
  p50: '50th percentile of the lag of the event loop since the last scrape.',
  p90: '90th percentile of the lag of the event loop since the last scrape.',
  p99: '99th percentile of the lag of the event loop since the last scrape.',
}
