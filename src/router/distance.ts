/** Closeness in the key space (Kademlia): the XOR of two positions, as a number. */

export interface Positioned {
  readonly kadId: Uint8Array
}

/** Negative when `a` is closer to the target than `b`. */
export function compareDistance(target: Uint8Array, a: Positioned, b: Positioned): number {
  for (let i = 0; i < target.length; i++) {
    const byte = target[i] as number
    const difference = ((a.kadId[i] as number) ^ byte) - ((b.kadId[i] as number) ^ byte)
    if (difference !== 0) return difference
  }
  return 0
}

/** The `count` closest to the target, closest first. */
export function closest<T extends Positioned>(target: Uint8Array, items: Iterable<T>, count: number): T[] {
  return [...items].sort((a, b) => compareDistance(target, a, b)).slice(0, count)
}
