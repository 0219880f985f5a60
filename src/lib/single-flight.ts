/** Joins calls with the same key while one of them runs. The table holds only what is running. */
export class SingleFlight<T> {
  readonly #running = new Map<string, Promise<T>>()

  run(key: string, call: () => Promise<T>): Promise<T> {
    const running = this.#running.get(key)
    if (running !== undefined) return running
    const started = call().finally(() => this.#running.delete(key))
    this.#running.set(key, started)
    return started
  }
}
