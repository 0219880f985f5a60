/** An action that never runs twice at once: calls during a run share one further run, since they may know more. */
export class OneAtATime {
  readonly #action: () => Promise<void>
  #running: Promise<void> | undefined
  #again = false

  constructor(action: () => Promise<void>) {
    this.#action = action
  }

  /** Settles when nobody asks for a further run; rejects as the action does. */
  run(): Promise<void> {
    if (this.#running !== undefined) {
      this.#again = true
      return this.#running
    }
    this.#running = this.#runUntilQuiet().finally(() => (this.#running = undefined))
    return this.#running
  }

  async #runUntilQuiet(): Promise<void> {
    do {
      this.#again = false
      await this.#action()
    } while (this.#again)
  }
}
