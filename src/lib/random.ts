/** Chance as a collaborator, so that tests and seeds can decide it. */
import { createHash } from 'node:crypto'

/** Chance as a collaborator: a number in [0, 1). */
export type Random = () => number

export const systemRandom: Random = Math.random

/** A reproducible sequence (mulberry32), for tests and for images made from a seed. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** A reproducible sequence for a text. */
export function textRandom(text: string): Random {
  return seededRandom(createHash('sha256').update(text).digest().readUInt32LE(0))
}

/** A new array in random order (Fisher–Yates). */
export function shuffled<T>(items: readonly T[], random: Random): T[] {
  const result = [...items]
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const a = result[i] as T
    result[i] = result[j] as T
    result[j] = a
  }
  return result
}
