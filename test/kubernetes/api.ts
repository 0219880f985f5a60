/**
 * The API server, asked through `kubectl proxy` on a socket: the tests are not in the cluster's network, and a process
 * of kubectl for each question would cost 0.1 CPU seconds.
 */
import { Pool } from 'undici'

export class ApiError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** What the tests read of the objects that they ask for. */
interface ObjectMeta {
  name: string
  uid: string
  namespace?: string
  labels?: Record<string, string>
  deletionTimestamp?: string
}

export interface Condition {
  type: string
  status: string
  reason?: string
}

export interface Pod {
  metadata: ObjectMeta
  spec: { nodeName?: string }
  status: {
    phase: string
    podIP?: string
    conditions?: Condition[]
    containerStatuses?: { name: string; restartCount: number; state: ContainerState }[]
  }
}

interface ContainerState {
  waiting?: { reason: string }
  running?: { startedAt: string }
}

export interface NodeObject {
  metadata: ObjectMeta
  spec: { taints?: { key: string }[] }
  status: { conditions: Condition[]; nodeInfo: { containerRuntimeVersion: string; kubeletVersion: string } }
}

export interface PodEvent {
  involvedObject: { kind: string; name: string }
  reason: string
  message: string
  source: { component: string; host?: string }
  firstTimestamp: string
  lastTimestamp: string
}

export class ClusterApi {
  readonly #pool: Pool

  constructor(socketPath: string) {
    this.#pool = new Pool('http://localhost', { socketPath, connections: 4 })
  }

  /** Rejects with an ApiError when the answer is not 2xx; 502 when the API server is down. */
  async get<Answer>(path: string): Promise<Answer> {
    return JSON.parse(await this.#ask('GET', path)) as Answer
  }

  /** Undefined when there is no such thing. */
  async find<Answer>(path: string): Promise<Answer | undefined> {
    return this.get<Answer>(path).catch((error: unknown) => {
      if (error instanceof ApiError && error.status === 404) return undefined
      throw error
    })
  }

  async create(path: string, object: unknown): Promise<void> {
    await this.#ask('POST', path, object)
  }

  /** At once: nothing is asked to end by itself. */
  async delete(path: string): Promise<void> {
    await this.#ask('DELETE', `${path}?gracePeriodSeconds=0`)
  }

  /** Answers text, such as `ok`. */
  health(): Promise<string> {
    return this.#ask('GET', '/readyz')
  }

  async nodes(): Promise<NodeObject[]> {
    return (await this.get<{ items: NodeObject[] }>('/api/v1/nodes')).items
  }

  async pods(namespace: string, labels = ''): Promise<Pod[]> {
    const query = `labelSelector=${encodeURIComponent(labels)}`
    return (await this.get<{ items: Pod[] }>(`/api/v1/namespaces/${namespace}/pods?${query}`)).items
  }

  /** In the order in which they were made. */
  async podEvents(namespace: string): Promise<PodEvent[]> {
    const query = 'fieldSelector=involvedObject.kind%3DPod'
    const { items } = await this.get<{ items: PodEvent[] }>(`/api/v1/namespaces/${namespace}/events?${query}`)
    return items
  }

  async close(): Promise<void> {
    await this.#pool.destroy()
  }

  async #ask(method: 'GET' | 'POST' | 'DELETE', path: string, object?: unknown): Promise<string> {
    const { statusCode, body } = await this.#pool.request({
      method,
      path,
      ...(object === undefined
        ? {}
        : { body: JSON.stringify(object), headers: { 'content-type': 'application/json' } }),
    })
    const text = await body.text()
    if (statusCode >= 300) throw new ApiError(statusCode, `${method} ${path}: ${statusCode} ${text.slice(0, 500)}`)
    return text
  }
}

export function hasCondition(conditions: readonly Condition[] | undefined, type: string): boolean {
  return conditions?.some((condition) => condition.type === type && condition.status === 'True') === true
}
