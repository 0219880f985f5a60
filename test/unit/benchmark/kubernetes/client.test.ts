import type { ServerResponse } from 'node:http'
import { KubeConfig } from '@kubernetes/client-node'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { KubernetesClient, type WatchEvent } from '../../../../src/benchmark/kubernetes/client.ts'
import { UserError } from '../../../../src/lib/errors.ts'
import { waitUntil } from '../../../../src/testbed/process.ts'
import { ApiServer, answerJson } from '../../../support/api-server.ts'
import { testCertificate } from '../../../support/tls.ts'

interface Thing {
  metadata: { name: string; resourceVersion: string }
}

describe('asking the API server as the user of a kubeconfig', () => {
  let server: ApiServer
  let client: KubernetesClient
  let stop: AbortController

  beforeEach(async () => {
    stop = new AbortController()
    server = await ApiServer.create()
    await server.start()
    const config = new KubeConfig()
    config.loadFromString(
      JSON.stringify({
        'current-context': 'c',
        clusters: [
          {
            name: 'c',
            cluster: {
              server: `https://127.0.0.1:${server.address.port}`,
              'certificate-authority-data': Buffer.from(testCertificate).toString('base64'),
            },
          },
        ],
        users: [{ name: 'u', user: { token: 'first' } }],
        contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      }),
    )
    client = new KubernetesClient(config)
  })
  afterEach(async () => {
    stop.abort()
    await server.remove()
  })

  it('sends its token, and objects as JSON', async () => {
    let body = ''
    server.behaviour = (request, response) => {
      request.on('data', (part: Buffer) => (body += part.toString()))
      request.on('end', () => answerJson(response, 201, { token: request.headers.authorization }))
    }
    const request = { method: 'POST', path: '/api/v1/things', query: { a: 'b c' }, body: { kind: 'Thing' } } as const
    expect(await client.ask(request)).toEqual({ token: 'Bearer first' })
    expect(body).toBe('{"kind":"Thing"}')
    expect(server.asked).toEqual(['POST /api/v1/things?a=b+c'])
  })

  it.each([
    [401, /^GET \/x: 401: words of the server: log in again/],
    [403, /^GET \/x: 403: words of the server: .*benchmark kubernetes rights$/],
    [500, /^GET \/x: 500: words of the server$/],
  ])('says why it was refused, and what to do: %d', async (status, message) => {
    server.behaviour = (_request, response) => answerJson(response, status, { message: 'words of the server' })
    const error = await client.ask({ path: '/x' }).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(UserError)
    expect((error as Error).message).toMatch(message)
  })

  it('finds nothing where there is nothing, and removes it', async () => {
    server.behaviour = (_request, response) => answerJson(response, 404, { message: 'not found' })
    expect(await client.find({ path: '/x' })).toBeUndefined()
    await client.remove('/x')
    await expect(client.ask({ path: '/x' })).rejects.toThrow('404')
  })

  it('says that a server does not answer', async () => {
    await server.stop()
    await expect(client.ask({ path: '/x' })).rejects.toThrow(
      /^https:\/\/127\.0\.0\.1:\d+ does not answer: .*ECONNREFUSED/,
    )
  })

  it('says at once that a watch is not allowed', async () => {
    server.behaviour = ({ url }, response) => {
      if (url?.includes('watch') === true) answerJson(response, 403, { message: 'no watch' })
      else answerJson(response, 200, { items: [] })
    }
    await expect(client.watch({ path: '/things' }, () => undefined, stop.signal)).rejects.toThrow(/403: no watch/)
  })

  it.each([
    ['expired', (open: ServerResponse) => open.end('{"type":"ERROR","object":{"code":410}}\n')],
    ['was cut', (open: ServerResponse) => open.destroy()],
  ])('tells of what is there, of changes, and of what it missed since a watch %s', async (_how, breakOff) => {
    let open: ServerResponse | undefined
    let things = ['a']
    const thing = (name: string): Thing => ({ metadata: { name, resourceVersion: name } })
    server.behaviour = ({ url }, response) => {
      if (url?.includes('watch=true') === true) open = response.writeHead(200).on('close', () => (open = undefined))
      else answerJson(response, 200, { metadata: { resourceVersion: '1' }, items: things.map(thing) })
      open?.flushHeaders()
    }
    const seen: string[] = []
    const note = ({ type, object }: WatchEvent<Thing>, isNew: boolean) =>
      seen.push(`${isNew ? 'new' : 'there'} ${type} ${object.metadata.name}`)
    const send = (type: string, object: object) => open?.write(`${JSON.stringify({ type, object })}\n`)
    await client.watch<Thing>({ path: '/things' }, note, stop.signal)
    expect(seen).toEqual(['there ADDED a'])
    await waitUntil('a watch', () => Promise.resolve(open !== undefined), { timeoutMs: 5_000 })
    send('ADDED', thing('b'))
    send('BOOKMARK', thing('2'))
    send('MODIFIED', thing('b'))
    await waitUntil('events', () => Promise.resolve(seen.length === 3), { timeoutMs: 5_000 })
    expect(seen.slice(1)).toEqual(['new ADDED b', 'new MODIFIED b'])
    things = ['a', 'c']
    if (open !== undefined) breakOff(open)
    await waitUntil('the list', () => Promise.resolve(seen.length === 5), { timeoutMs: 5_000 })
    expect(seen.slice(3)).toEqual(['there ADDED a', 'there ADDED c'])
    await waitUntil('another watch', () => Promise.resolve(server.asked.length === 4), { timeoutMs: 5_000 })
    expect(server.asked.map((line) => line.replace(/.*(watch=true|things).*/, '$1'))).toEqual([
      'things',
      'watch=true',
      'things',
      'watch=true',
    ])
  })
})
