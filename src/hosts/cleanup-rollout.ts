/**
 * Waits until the DaemonSet that restores hosts.toml is done on every node, and removes it. Kubernetes counts the nodes:
 * the addresses of a service only tell who has come so far.
 */
import type { Clock } from '../lib/clock.ts'
import { UserError, errorMessage, isProgrammerError } from '../lib/errors.ts'
import { formatDuration } from '../lib/duration.ts'
import { awakeTimeout } from '../lib/patience.ts'
import { ApiError, type KubernetesApi } from '../kubernetes/api.ts'
import type { Logger } from '../logger.ts'

/** Of one question to the API server. */
const answerTimeoutMs = 10_000

export interface CleanupRolloutConfig {
  namespace: string
  /** Of the DaemonSet. Its pods are ready when their node is restored. */
  name: string
  /** For all of it. */
  timeoutMs: number
  periodMs: number
}

/** What is used of an apps/v1 DaemonSet. */
interface DaemonSet {
  metadata?: { generation?: number }
  status?: { observedGeneration?: number; desiredNumberScheduled?: number; numberReady?: number }
}

/** Throws a UserError when the time is over; then the DaemonSet stays, for the nodes that are missing. */
export async function waitForRollout(
  config: CleanupRolloutConfig,
  api: KubernetesApi,
  clock: Clock,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name, timeoutMs, periodMs } = config
  const path = `/apis/apps/v1/namespaces/${namespace}/daemonsets/${name}`
  const query = async (method: 'GET' | 'DELETE', text = '') => {
    // One that takes the connection and says nothing would be waited for beyond our own time.
    using patience = awakeTimeout(clock, answerTimeoutMs)
    const inTime = AbortSignal.any([signal, patience.signal])
    return await api.request({ method, path, query: text, needs: `get and delete daemonset ${name}` }, inTime)
  }
  const untilMs = clock.nowMs() + timeoutMs
  let said = 'Kubernetes has not looked at the DaemonSet yet'
  /** Asks until the answer is good. What goes wrong meanwhile may mend: the API server restarts, a permission is new. */
  const until = async (isDone: () => Promise<boolean>): Promise<boolean> => {
    for (;;) {
      const done = await isDone().catch((error: unknown) => {
        if (signal.aborted || isProgrammerError(error)) throw error
        said = errorMessage(error)
        return false
      })
      if (done) return true
      logger.info({ daemonset: `${namespace}/${name}` }, said)
      if (clock.nowMs() + periodMs > untilMs) return false
      await clock.sleep(periodMs, signal)
    }
  }

  const restored = await until(async () => {
    const progress = progressOf(await query('GET'))
    if (progress !== undefined) said = `${progress.ready} of ${progress.nodes} nodes are restored`
    return progress !== undefined && progress.ready >= progress.nodes
  })
  if (!restored) throw new UserError(stays(config, said))
  logger.info({ daemonset: `${namespace}/${name}` }, said)

  // Foreground: it is there until its pods are gone.
  await until(() => query('DELETE', 'propagationPolicy=Foreground').then(() => true, isGone))
  const removed = await until(() => query('GET').then(() => false, isGone))
  if (!removed) logger.warn({ daemonset: `${namespace}/${name}` }, 'all nodes are restored, but its pods do not end')
}

/** Undefined: the controller has not counted yet. */
function progressOf({ metadata, status }: DaemonSet): { ready: number; nodes: number } | undefined {
  const { observedGeneration = 0, numberReady: ready = 0, desiredNumberScheduled: nodes = 0 } = status ?? {}
  return observedGeneration < (metadata?.generation ?? 1) ? undefined : { ready, nodes }
}

function isGone(error: unknown): boolean {
  if (error instanceof ApiError && error.status === 404) return true
  throw error
}

function stays({ namespace, name, timeoutMs }: CleanupRolloutConfig, said: string): string {
  return [
    `--timeout: after ${formatDuration(timeoutMs)}: ${said}.`,
    `DaemonSet ${name} stays, and restores the missing nodes when they are back.`,
    `Which they are: kubectl -n ${namespace} get pods -o wide | grep ${name}.`,
    `When all are ready, remove it: kubectl -n ${namespace} delete daemonset ${name}`,
  ].join(' ')
}
