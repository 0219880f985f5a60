/**
 * The result of `benchmark network`: one JSON file, version 1. Durations are whole nanoseconds, sizes bytes, rates per
 * second. Latencies are round trips. `docs/benchmark-network-result.schema.json` is generated from here.
 */
import { z } from 'zod'
import { bytes, duration, instant, machine, tool } from './schema.ts'

export const networkSchemaName = 'spegel-ts/benchmark/network/v1'

/** An encoded histogram takes a few KiB. */
const histogramCharactersMax = 1_000_000

const latencies = z.strictObject({
  count: z.int().min(0),
  min: duration,
  max: duration,
  percentiles: z
    .array(z.strictObject({ percentile: z.number(), value: duration }))
    .describe('those with at least ten samples above them'),
  histogram: z
    .base64()
    .max(histogramCharactersMax)
    .describe('HdrHistogram V2, compressed, of ns: for tools that draw it, and to add runs up'),
})

const cpu = z
  .strictObject({ client: z.number().min(0), server: z.number().min(0) })
  .describe(
    "seconds that the two processes took, warm-up included; the kernel's part that no process is charged is missing",
  )

const perSecond = z.number().min(0)

const turn = z.strictObject({
  round: z.int().min(1),
  path: z.string().describe('the name of one of `paths`'),
  position: z.int().min(1).describe('place in the order of the paths'),
  started: instant,
})

const pingPong = turn.extend({
  kind: z.literal('ping-pong'),
  protocol: z.enum(['TCP', 'UDP']),
  messageBytes: bytes,
  latencies,
  lostDatagrams: z.int().min(0).optional().describe('UDP: no answer within half a second'),
})

const requestResponse = turn.extend({
  kind: z.literal('request-response'),
  perSecond: perSecond.describe('one connection, one byte each way'),
  latencies,
  requests: z.int().min(0),
  cpu,
})

const throughput = turn.extend({
  kind: z.literal('throughput'),
  streams: z.int().min(1),
  bytesPerSecond: perSecond.describe('payload, from the agent to the one who measures'),
  bytes,
  cpu,
})

const values = turn.extend({
  kind: z.literal('values'),
  operation: z.enum(['get', 'set']),
  connections: z.int().min(1),
  valueBytes: bytes,
  perSecond,
  latencies,
  requests: z.int().min(0),
  cpu,
})

const httpMaximum = turn.extend({
  kind: z.literal('http-maximum'),
  bodyBytes: bytes,
  connections: z.int().min(1),
  perSecond,
  latencies,
  requests: z.int().min(0),
  cpu,
})

const httpRate = turn.extend({
  kind: z.literal('http-rate'),
  bodyBytes: bytes,
  connections: z.int().min(1),
  loadPercent: z.number().describe('of the maximum of the slowest path in round 1: all paths get the same arrivals'),
  wantedPerSecond: perSecond,
  answeredPerSecond: perSecond,
  reached: z.boolean().describe('false: the path or its ends could not keep up'),
  unanswered: z.int().min(0).describe('given up; they count in `latencies` with the time that they had waited'),
  latencies: latencies.describe('from the moment when a request was due'),
  generatorLag: latencies.describe('how late requests were sent although a connection was free'),
})

const blob = turn.extend({
  kind: z.literal('blob'),
  bytes,
  duration: duration.describe('one GET on a connection that is there'),
  firstByte: duration,
  cpu,
})

const failed = turn.extend({
  kind: z.literal('failed'),
  measurement: z.string(),
  error: z.string(),
})

const measured = z.discriminatedUnion('kind', [
  pingPong,
  requestResponse,
  throughput,
  values,
  httpMaximum,
  httpRate,
  blob,
  failed,
])

export const networkResultSchema = z.strictObject({
  schema: z.literal(networkSchemaName),
  name: z.string(),
  started: instant,
  updated: instant,
  complete: z.boolean().describe('false: broken off'),
  tool,
  machine: machine.describe('of the one who measures'),
  set: z.strictObject({
    target: z.enum(['addresses', 'kubernetes']),
    rounds: z.int().min(1),
    duration: duration.describe('of one measurement, without its warm-up'),
    connections: z.int().min(1),
    kubernetes: z.string().optional().describe('version of the API server'),
    nodes: z
      .strictObject({ here: z.string(), there: z.string() })
      .optional()
      .describe('of the cluster: who measures is here, the paths lead there; same-node leads back to here'),
  }),
  paths: z
    .array(
      z.strictObject({
        name: z.string(),
        address: z.string(),
        agent: z.string().describe("the agent's version"),
      }),
    )
    .min(1)
    .describe('factors are against the first'),
  loopback: z
    .array(measured)
    .describe('the instrument itself: the same against an agent on the same machine, over the loopback interface'),
  turns: z.array(measured),
})

/** `docs/benchmark-network-result.schema.json`. */
export function networkResultReference(): string {
  return `${JSON.stringify(z.toJSONSchema(networkResultSchema), undefined, 2)}\n`
}

export type NetworkResult = z.infer<typeof networkResultSchema>
export type NetworkTurn = z.infer<typeof measured>
export type LatencySummary = z.infer<typeof latencies>
