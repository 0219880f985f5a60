/** All names beyond the limit. */
export const otherName = 'other'

/** Names that come from outside, for metrics: the first so many as they are, all others as one. A series costs memory. */
export class BoundedNames {
  readonly #names = new Set<string>()
  readonly #namesMax: number

  constructor(namesMax: number) {
    this.#namesMax = namesMax
  }

  /** The name, or `otherName`. */
  label(name: string): string {
    if (this.#names.has(name)) return name
    if (this.#names.size >= this.#namesMax) return otherName
    this.#names.add(name)
    return name
  }
}
