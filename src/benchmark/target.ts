/** The port between measuring and what is measured: a set of nodes that can pull images. */
import type { Result, Phase, PhaseName } from './result/schema.ts'

/** A mirror under test. */
export interface MirrorSpec {
  name: string
  /** How it is started, with placeholders, or what is installed; undefined: no mirror. */
  command: string | undefined
  /** Only in the first so many rounds, and without a warm-up. Undefined: in all. */
  rounds?: number
}

/** Images of one comparison: `create` is what all nodes pull first, `update` what replaces it. */
export interface ImageSet {
  name: string
  create: readonly ImageSource[]
  update: readonly ImageSource[]
}

/** One image, and where it comes from. */
export type ImageSource =
  | { kind: 'layout'; reference: string; layout: string }
  /** In a registry, where it stays. */
  | { kind: 'reference'; reference: string }
  /** Made anew for every round, so that no cache can have it. */
  | { kind: 'generated'; reference: string; sizeBytes: number; layers: number; sharedLayers: number }

export interface PhaseOrder {
  mirror: MirrorSpec
  images: ImageSet
  phase: PhaseName
  /** What is left to chance differs from round to round, and is the same for all mirrors of one. */
  round: number
}

export interface Measured {
  phase: Phase
  /** What the scene wanted to happen, and did not. */
  missed: string[]
}

export interface Target {
  readonly kind: Result['set']['target']
  /** Builds what is needed; after it images can be pulled. */
  open(signal: AbortSignal): Promise<Pick<Result, 'links'> & { nodes: Result['set']['nodes'] }>
  /** Makes the images of both phases ready to be pulled. `salt` differs for every round, mirror and try. */
  prepare(images: ImageSet, salt: string): Promise<void>
  /** Pulls on all nodes, and says how it went. Rejects when the target itself is broken, not when pulls fail. */
  measure(order: PhaseOrder, signal: AbortSignal): Promise<Measured>
  /** After it no node has any of the prepared images. */
  clear(): Promise<void>
  /** Removes everything it made. */
  close(): Promise<void>
}
