/**
 * The result of `benchmark measure`: one JSON file, version 1. Durations are whole nanoseconds, as in the Go tool's
 * files; moments within a phase are durations since its first pull call; sizes are bytes; rates are bytes per second of
 * payload. What a target cannot see is left out, never 0. `docs/benchmark-result.schema.json` is generated from here.
 */
import { z } from 'zod'

export const schemaName = 'spegel-ts/benchmark/v1'

export const duration = z.int().min(0).describe('ns')
export const bytes = z.int().min(0)
const rate = z.number().positive().describe('bytes of payload per second')
const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/)
export const instant = z.iso.datetime().describe('RFC 3339')

export const tool = z.strictObject({
  version: z.string(),
  commit: z.string(),
  node: z.string(),
  command: z.array(z.string()),
})

export const machine = z.strictObject({
  cpu: z.string(),
  cores: z.int(),
  memoryBytes: bytes,
  kernel: z.string(),
  load: z.number().describe('over one minute, at the start'),
})

const blob = z.strictObject({
  digest,
  size: bytes,
  firstByte: duration.optional().describe('since the first pull call of the phase; where the mirror tells'),
  arrived: duration.optional().describe('the blob is whole in the content store; since the first pull call'),
  source: z
    .enum(['upstream', 'peer', 'both', 'local'])
    .optional()
    .describe("who gave it; local: the node's own store had it. Where the mirror tells"),
})

const pull = z.strictObject({
  node: z.string(),
  wave: z.int().min(1),
  image: z.string().describe('the reference that was pulled'),
  started: duration.describe('since the first pull call of the phase'),
  duration: duration.describe('the whole pull, unpacking included'),
  network: duration.optional().describe('of it until the last blob was whole in the content store'),
  unpack: duration.optional().describe('the rest'),
  error: z.string().optional().describe('the pull failed: what the container runtime said'),
  blobs: z.array(blob),
})

const requests = z.strictObject({
  kind: z.enum(['tag', 'manifest', 'blob', 'other']).describe('manifest: by digest'),
  method: z.string(),
  status: z.int(),
  count: z.int().min(1),
})

const phase = z.strictObject({
  started: instant,
  duration: duration.describe('from the first pull call to the end of the last pull'),
  pulls: z.array(pull),
  rollout: duration
    .optional()
    .describe('from the change of the DaemonSet until Kubernetes counted all pods as available'),
  lastByte: duration.optional().describe("the last layer is whole in the last node's content store"),
  floor: duration
    .optional()
    .describe('how fast the links allow it at best; left out: not all nodes fetched the same'),
  stretch: z.number().optional().describe('lastByte ÷ floor'),
  imageBytes: bytes.describe('F: compressed bytes of one platform, of all images that one node pulled'),
  upstream: z.strictObject({
    linkBytes: bytes.optional().describe('what the registry sent, headers included'),
    blobBytes: bytes
      .optional()
      .describe('bodies of blobs: from its access log, or what the nodes got and their mirrors did not give them'),
    requests: z.array(requests).optional(),
  }),
  peerBytes: bytes
    .optional()
    .describe('what all nodes sent to each other: headers included, or as their mirrors count it'),
  mirror: z
    .strictObject({
      cpuSeconds: z.number().optional().describe('of all nodes; left out: one of them ended meanwhile'),
      cpuSecondsPerGiB: z.number().optional().describe('per GiB delivered to a node'),
      peakRssBytes: z.array(bytes).describe('one per node; none: not seen'),
    })
    .optional(),
  containerdCpuSeconds: z.number().optional().describe('of all nodes; left out: one of them ended meanwhile'),
  cpu: z
    .strictObject({
      busyPercent: z.number().describe('of the whole machine, until lastByte'),
      stealPercent: z.number().describe('taken by the host, whole phase'),
    })
    .optional(),
  faults: z.array(z.strictObject({ at: duration, what: z.string() })).optional(),
  remarks: z.array(z.string()).optional().describe('worth knowing, without making the figures doubtful'),
})

const round = z.strictObject({
  number: z.int().min(0).describe('0: the warm-up'),
  attempt: z.int().min(1),
  image: z.string().describe("the image's or scene's name, a key of `images`"),
  mirror: z.string().describe('the name of one of `mirrors`'),
  position: z.int().min(1).describe('place in the order of this round'),
  started: instant,
  counts: z.boolean().describe('false: the warm-up, or repeated because of noise'),
  noise: z.array(z.string()).describe('why the figures of this round are doubtful; empty: a good round'),
  phases: z.strictObject({ create: phase.optional(), update: phase.optional() }),
})

const source = z.strictObject({
  reference: z.string(),
  digest: digest.optional().describe('left out: made anew for every round'),
  bytes: bytes.describe('as asked for, or compressed bytes of one platform'),
  layers: z.array(bytes),
})

const image = z.strictObject({
  name: z.string().describe('such as 10MB-4'),
  create: z.array(source),
  update: z.array(source),
})

export const resultSchema = z.strictObject({
  schema: z.literal(schemaName),
  name: z.string(),
  started: instant,
  updated: instant,
  complete: z.boolean().describe('false: broken off; the same command goes on'),
  tool,
  machine,
  set: z.strictObject({
    target: z.enum(['local', 'kubernetes', 'simulated']),
    seed: z.string(),
    rounds: z.int(),
    nodes: z.array(
      z.strictObject({
        name: z.string(),
        runtime: z.string().describe('such as containerd 2.3.4'),
        instanceType: z.string().optional(),
        cpu: z.string().optional().describe('as Kubernetes counts it'),
        memory: z.string().optional().describe('as Kubernetes counts it'),
      }),
    ),
    leftOut: z
      .array(z.strictObject({ name: z.string(), why: z.string() }))
      .optional()
      .describe('nodes of the cluster that are not measured'),
    kubernetes: z.string().optional().describe('version of the API server'),
    waveSize: z.int().min(1).describe('nodes at once in an update'),
    stagger: duration,
    upstreamRate: z.string().optional(),
    nodeRate: z.string().optional(),
    scene: z.string().optional(),
    storage: z.string().optional().describe('where nodes keep their files'),
    expectFailures: z.int().min(0).describe('failed pulls per phase that the scene expects at most'),
  }),
  links: z
    .strictObject({
      upstream: rate.describe('U: the registry to all nodes together'),
      upstreamSingle: rate.describe('r: one connection to the registry'),
      nodeOut: rate.describe('u: what one node sends'),
      nodeIn: rate.describe('d: what one node receives'),
    })
    .optional()
    .describe('measured once per set-up'),
  mirrors: z.array(z.strictObject({ name: z.string(), command: z.string().optional() })).min(1),
  images: z.array(image),
  rounds: z.array(round),
})

/** `docs/benchmark-result.schema.json`. */
export function resultReference(): string {
  return `${JSON.stringify(z.toJSONSchema(resultSchema), undefined, 2)}\n`
}

export type Result = z.infer<typeof resultSchema>
export type Round = z.infer<typeof round>
export type Phase = z.infer<typeof phase>
export type Pull = z.infer<typeof pull>
export type Blob = z.infer<typeof blob>
export type PhaseName = keyof Round['phases']
export type RequestCount = z.infer<typeof requests>
