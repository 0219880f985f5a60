import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { kubernetesBootstrapper } from '../../../src/bootstrap/kubernetes.ts'
import { ApiServer, answerJson } from '../../support/api-server.ts'

const list = '/apis/discovery.k8s.io/v1/namespaces/mirrors/endpointslices'

describe('the kubernetes bootstrap', () => {
  let server: ApiServer

  beforeEach(async () => {
    server = await ApiServer.create()
    await server.start()
    server.slices = [{ addressType: 'IPv4', endpoints: [{ addresses: ['10.0.0.1'] }] }]
  })
  afterEach(() => server.remove())

  const ask = (signal = AbortSignal.timeout(5_000)) => {
    const { address: apiServer, credentialsFolder } = server
    return kubernetesBootstrapper({ service: 'spegel-ts-bootstrap', apiServer, credentialsFolder }, 5001).peers(
      signal,
    )
  }

  it('asks for a page of the EndpointSlices of its Service in its namespace, as its service account', async () => {
    expect(await ask()).toEqual(['/ip4/10.0.0.1/tcp/5001'])
    expect(server.asked).toEqual([
      `GET ${list}?labelSelector=kubernetes.io%2Fservice-name%3Dspegel-ts-bootstrap&limit=4`,
    ])
  })

  it('takes the addresses of both families, of pods that are ready or not, without those that end', async () => {
    server.slices = [
      {
        addressType: 'IPv4',
        endpoints: [
          { addresses: ['10.0.0.1'], conditions: { ready: true, serving: true, terminating: false } },
          { addresses: ['10.0.0.2'], conditions: { ready: false, serving: false, terminating: false } },
          { addresses: ['10.0.0.3'], conditions: { ready: false, serving: true, terminating: true } },
        ],
      },
      { addressType: 'IPv6', endpoints: [{ addresses: ['fd00::1'] }] },
      // An address may be in two slices while the controller moves it.
      { addressType: 'IPv4', endpoints: [{ addresses: ['10.0.0.1'], conditions: {} }] },
      { addressType: 'FQDN', endpoints: [{ addresses: ['node.example'] }] },
      { addressType: 'IPv4', endpoints: null },
    ]
    expect(await ask()).toEqual(['/ip4/10.0.0.1/tcp/5001', '/ip4/10.0.0.2/tcp/5001', '/ip6/fd00::1/tcp/5001'])
  })

  it('knows nobody where the Service has no pods yet', async () => {
    server.slices = [{ addressType: 'IPv4', endpoints: [] }]
    expect(await ask()).toEqual([])
  })

  it('takes the token that is there when it asks', async () => {
    await ask()
    server.token = 'second'
    await expect(ask()).rejects.toThrow(/^127\.0\.0\.1:\d+ answered 401: Unauthorized$/)
    await server.writeCredential('token', 'second')
    expect(await ask()).toHaveLength(1)
  })

  it.each<[string, RegExp, NonNullable<ApiServer['behaviour']>]>([
    [
      'may not ask',
      /answered 403: let the service account list endpointslices: endpointslices\.discovery\.k8s\.io is forbidden$/,
      (_request, response) =>
        answerJson(response, 403, { message: 'endpointslices.discovery.k8s.io is forbidden', code: 403 }),
    ],
    [
      'is told to come later',
      /answered 429$/,
      (_request, response) => void response.writeHead(429).end('Too many requests'),
    ],
    [
      'is answered by something else',
      /answered no list of EndpointSlices$/,
      (_request, response) => void response.end('<html>'),
    ],
    ['is answered null', /answered no list/, (_request, response) => answerJson(response, 200, null)],
    [
      'names a Service that is not there',
      /there is no EndpointSlice of a Service "spegel-ts-bootstrap" in namespace mirrors$/,
      (_request, response) => answerJson(response, 200, { items: [] }),
    ],
    [
      'is answered without an end',
      /answered more than 1048576 bytes/,
      (_request, response) => {
        const more = () => {
          while (response.write(Buffer.alloc(64 * 1024)));
        }
        response.on('drain', more)
        more()
      },
    ],
    [
      'is answered half',
      /aborted|socket hang up|ECONNRESET/,
      (_request, response) => {
        response.writeHead(200, { 'content-length': 100 }).write('{')
        setImmediate(() => response.destroy())
      },
    ],
  ])('says what is wrong when it %s', async (_name, message, behaviour) => {
    server.behaviour = behaviour
    await expect(ask()).rejects.toThrow(message)
  })

  it('gives up with its signal where nobody answers', async () => {
    server.behaviour = () => undefined
    await expect(ask(AbortSignal.timeout(200))).rejects.toThrow(/aborted/)
  })

  it('says that the API server is down', async () => {
    await server.stop()
    await expect(ask()).rejects.toThrow(/ECONNREFUSED/)
  })

  it('trusts only the authority of its cluster', async () => {
    await server.writeCredential('ca.crt', '')
    await expect(ask()).rejects.toThrow(/self-signed certificate/)
    expect(server.asked).toEqual([])
  })

  it('says that the pod has no token', async () => {
    await server.remove()
    await expect(ask()).rejects.toThrow(/^the pod has no service account token \(automountServiceAccountToken\)$/)
    server = await ApiServer.create()
  })
})
