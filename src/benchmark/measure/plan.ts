/** What is measured in which order: a pure function of the seed, so that a run that was broken off goes on the same. */
import { shuffled, textRandom } from '../../lib/random.ts'
import type { ImageSet, MirrorSpec } from '../target.ts'

/** One mirror's turn with one image. */
export interface Turn {
  /** 0 warms up. */
  round: number
  images: ImageSet
  mirror: MirrorSpec
  /** From 1: place among the mirrors of this round and image. */
  position: number
}

/** All turns of one round with one image: measured and, when the machine was noisy, repeated together. */
export function turnsOf(round: number, images: ImageSet, mirrors: readonly MirrorSpec[], seed: string): Turn[] {
  const taking = mirrors.filter(({ rounds }) => rounds === undefined || (round >= 1 && round <= rounds))
  const order = shuffled(taking, textRandom(`${seed} ${images.name} ${round}`))
  return order.map((mirror, index) => ({ round, images, mirror, position: index + 1 }))
}
