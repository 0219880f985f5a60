import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { waitForRollout } from '../../../src/hosts/cleanup-rollout.ts'
import { KubernetesApi } from '../../../src/kubernetes/api.ts'
import { systemClock } from '../../../src/lib/clock.ts'
import { ApiServer, answerJson } from '../../support/api-server.ts'

const path = '/apis/apps/v1/namespaces/mirrors/daemonsets/cleanup'
const asked = { read: `GET ${path}`, remove: `DELETE ${path}?propagationPolicy=Foreground` }

/** How a DaemonSet looks that the controller has counted, or has not. */
function daemonSet(ready: number, nodes: number, counted = true) {
  const status = counted
    ? { observedGeneration: 1, desiredNumberScheduled: nodes, numberReady: ready }
    : { desiredNumberScheduled: 0, numberReady: 0 }
  return { metadata: { generation: 1 }, status }
}

describe('waiting for the clean-up', () => {
  let server: ApiServer
  let said: string[]

  beforeEach(async () => {
    server = await ApiServer.create()
    await server.start()
    said = []
  })
  afterEach(() => server.remove())

  /** Answers one after the other; after the last one the DaemonSet is not there. */
  const answers = (...states: (object | number)[]) => {
    server.behaviour = (request, response) => {
      const state = request.method === 'DELETE' ? {} : (states.shift() ?? 404)
      if (typeof state === 'number') answerJson(response, state, { message: `as the test wants: ${state}` })
      else answerJson(response, 200, state)
    }
  }
  const wait = (timeoutMs = 5_000, signal = new AbortController().signal) => {
    const { address: apiServer, credentialsFolder } = server
    const api = new KubernetesApi({ apiServer, credentialsFolder })
    const write = (line: string) => void said.push((JSON.parse(line) as { msg: string }).msg)
    const config = { namespace: 'mirrors', name: 'cleanup', timeoutMs, periodMs: 10 }
    return waitForRollout(config, api, systemClock, pino({}, { write }), signal)
  }

  it('goes on until all nodes are ready, removes the DaemonSet, and waits until its pods are gone', async () => {
    answers(daemonSet(0, 3), daemonSet(2, 3), daemonSet(3, 3), daemonSet(3, 3))
    await wait()
    expect(server.asked).toEqual([asked.read, asked.read, asked.read, asked.remove, asked.read, asked.read])
    expect(said.slice(0, 3)).toEqual([0, 2, 3].map((ready) => `${ready} of 3 nodes are restored`))
  })

  it('does not take a count of nodes that was not made yet for none', async () => {
    answers(daemonSet(0, 0, false), daemonSet(0, 2), daemonSet(2, 2))
    await wait()
    expect(said[0]).toBe('Kubernetes has not looked at the DaemonSet yet')
    expect(server.asked.indexOf(asked.remove)).toBe(3)
  })

  it('is done where there are no nodes', async () => {
    answers(daemonSet(0, 0))
    await wait()
    expect(server.asked[1]).toBe(asked.remove)
  })

  it('bears an API server that is away, or does not allow it yet', async () => {
    answers(503, 403, daemonSet(1, 1))
    await wait()
    expect(said[1]).toMatch(
      /answered 403: let the service account get and delete daemonset cleanup: as the test wants/,
    )
    expect(server.asked).toContain(asked.remove)
  })

  it('fails when the time is over, says what is missing and how to go on, and leaves the DaemonSet', async () => {
    server.behaviour = (_request, response) => answerJson(response, 200, daemonSet(2, 3))
    await expect(wait(50)).rejects.toThrow(
      /^--timeout: after 50ms: 2 of 3 nodes are restored\. DaemonSet cleanup stays.*kubectl -n mirrors delete daemonset cleanup$/,
    )
    expect(server.asked).not.toContain(asked.remove)
  })

  it('says when there is no such DaemonSet', async () => {
    answers()
    await expect(wait(50)).rejects.toThrow(/answered 404: as the test wants: 404/)
  })

  it('is content with restored nodes whose pods do not end', async () => {
    server.behaviour = (_request, response) => answerJson(response, 200, daemonSet(1, 1))
    await wait(50)
    expect(said.at(-1)).toBe('all nodes are restored, but its pods do not end')
  })

  it('ends with its signal', async () => {
    server.behaviour = (_request, response) => answerJson(response, 200, daemonSet(0, 1))
    const stop = new AbortController()
    const waiting = wait(60_000, stop.signal)
    stop.abort(new Error('stopped'))
    await expect(waiting).rejects.toThrow(/stopped|aborted/)
  })
})
