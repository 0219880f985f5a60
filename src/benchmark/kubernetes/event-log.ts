/** Events of pods in a namespace, with the moment at which each arrived. */
import type { KubernetesClient } from './client.ts'
import { type PodEvent, type SeenEvent, nodeOf } from './pull-events.ts'

export class EventLog {
  readonly #seen: SeenEvent[] = []
  readonly #uids = new Set<string>()
  readonly #say: (line: string) => void
  #onEvent: () => void = () => undefined

  private constructor(say: (line: string) => void) {
    this.#say = say
  }

  /** Says which pulls fail, since the kubelets try again for ever. Until the signal aborts. */
  static async open(
    client: KubernetesClient,
    namespace: string,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<EventLog> {
    const log = new EventLog(say)
    const path = `/api/v1/namespaces/${namespace}/events`
    const query = { fieldSelector: 'involvedObject.kind=Pod' }
    await client.watch<PodEvent>({ path, query }, ({ type, object }, isNew) => log.#add(type, object, isNew), signal)
    return log
  }

  /** For `since`. */
  get count(): number {
    return this.#seen.length
  }

  since(count: number): readonly SeenEvent[] {
    return this.#seen.slice(count)
  }

  /** Resolves when the predicate holds, or after the time. */
  async until(predicate: () => boolean, timeoutMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#onEvent = () => predicate() && resolve()
    const timer = setTimeout(resolve, timeoutMs)
    this.#onEvent()
    await promise
    clearTimeout(timer)
    this.#onEvent = () => undefined
  }

  /** One that is told again only has another count. */
  #add(type: string, event: PodEvent, isNew: boolean): void {
    if (type === 'DELETED' || this.#uids.has(event.metadata.uid)) return
    this.#uids.add(event.metadata.uid)
    this.#seen.push({ event, arrivedMs: Date.now(), isNew })
    const isFailedPull = event.reason === 'Failed' && event.message.startsWith('Failed to pull image')
    if (isNew && isFailedPull) this.#say(`warning: ${nodeOf(event)}: ${event.message}`)
    this.#onEvent()
  }
}
