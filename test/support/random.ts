/** Random numbers that a seed repeats. */

export interface Random {
  /** From 0 up to 1. */
  next(): number
  /** With mean 0 and standard deviation 1. */
  normal(): number
}

/** mulberry32: 32 bits of state are plenty for a test. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d_2b_79_f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())
  return { next, normal }
}

/** A factor around 1 with this coefficient of variation. */
export function lognormal(random: Random, variation: number): number {
  const sigma = Math.sqrt(Math.log(1 + variation ** 2))
  return Math.exp(sigma * random.normal() - sigma ** 2 / 2)
}
