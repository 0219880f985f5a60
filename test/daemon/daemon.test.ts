import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createServer } from 'node:net'
import { basicAuth } from '../../src/registry/auth.ts'
import { metricSpecs } from '../../src/metrics.ts'
import { ApiServer } from '../support/api-server.ts'
import { DaemonGroup, type TestDaemon, eventually } from '../support/daemons.ts'

describe('a daemon', () => {
  let group: DaemonGroup

  beforeEach(() => void (group = new DaemonGroup()))
  afterEach(() => group.close())

  const status = async (url: string, headers: Record<string, string> = {}) => (await fetch(url, { headers })).status
  const messages = ({ lines }: TestDaemon) => lines.filter(({ level }) => level !== 'DEBUG').map(({ msg }) => msg)

  it('is ready and quiet when it is alone, and says so once', async () => {
    const lone = await group.start()
    await eventually(async () => expect(await status(`${lone.url}/readyz`)).toBe(200))
    expect(await (await fetch(`${lone.url}/readyz`)).json()).toEqual({ ready: true, reasons: [] })
    // Several rounds of looking for peers.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    expect(messages(lone).filter((message) => String(message).startsWith('alone'))).toHaveLength(1)
    expect(messages(lone)).toHaveLength(2)
    expect(lone.lines.filter(({ level }) => level === 'WARN' || level === 'ERROR')).toEqual([])
  })

  it('names why it is not ready, on both ports, and is alive all the same', async () => {
    const daemon = await group.start({ bootstrap: { kind: 'static', peers: [`/ip4/${group.address(99)}/tcp/5001`] } })
    for (const url of [daemon.url, daemon.metricsUrl]) {
      await eventually(async () => {
        const response = await fetch(`${url}/readyz`)
        expect(response.status).toBe(503)
        expect(await response.json()).toMatchObject({
          ready: false,
          reasons: [expect.stringMatching(/^router: none of the peers from static answers: .*:5001/)],
        })
      })
      expect(await status(`${url}/livez`)).toBe(200)
    }
  })

  it('becomes ready when the first peer comes, and tells of it', async () => {
    const daemon = await group.start({ bootstrap: { kind: 'static', peers: [`/ip4/${group.address(2)}/tcp/5001`] } })
    await eventually(async () => expect(await status(`${daemon.url}/readyz`)).toBe(503))
    await group.start()
    await eventually(async () => expect(await status(`${daemon.url}/readyz`)).toBe(200))
  })

  it('finds peers over HTTP that tell who they are', async () => {
    const listen = { host: group.address(1), port: 5002 }
    const first = await group.start({ identityListen: listen })
    const url = new URL(`http://${listen.host}:${listen.port}/id`)
    expect(await (await fetch(url)).json()).toEqual({
      ID: first.daemon.id,
      Addrs: [`/ip4/${first.ip}/tcp/5001`],
    })
    expect(await status(`http://${listen.host}:${listen.port}/other`)).toBe(404)
    const second = await group.start({ bootstrap: { kind: 'http', url } })
    await group.image(first)
    await eventually(async () => expect(await status(`${second.url}/v2/app/manifests/v1?ns=reg.test`)).toBe(200))
  })

  it('finds peers by Kubernetes once its API server answers, and goes on without it', async () => {
    const apiServer = await ApiServer.create()
    try {
      await apiServer.start()
      const bootstrap = {
        kind: 'kubernetes' as const,
        service: 'spegel-ts-bootstrap',
        apiServer: apiServer.address,
        credentialsFolder: apiServer.credentialsFolder,
      }
      await apiServer.stop()
      const first = await group.start({ bootstrap })
      const second = await group.start({ bootstrap })
      const reasons = async ({ url }: TestDaemon) => (await fetch(`${url}/readyz`)).text()
      for (const daemon of [first, second]) {
        await eventually(async () =>
          expect(await reasons(daemon)).toContain(
            'router: kubernetes spegel-ts-bootstrap cannot be asked: connect ECONNREFUSED',
          ),
        )
      }
      const endpoints = [first, second].map(({ ip }) => ({ addresses: [ip], conditions: { ready: false } }))
      apiServer.slices = [{ addressType: 'IPv4', endpoints }]
      await apiServer.start()
      for (const { url } of [first, second]) {
        await eventually(async () => expect(await status(`${url}/readyz`)).toBe(200), 15_000)
      }
      await apiServer.stop()
      await group.image(first)
      await eventually(async () => expect(await status(`${second.url}/v2/app/manifests/v1?ns=reg.test`)).toBe(200))
      expect(await status(`${second.url}/readyz`)).toBe(200)
      const warnings = second.lines.filter(({ level }) => level === 'WARN').map(({ msg }) => msg)
      expect(warnings).toEqual([expect.stringMatching(/cannot be asked: connect ECONNREFUSED/)])
    } finally {
      await apiServer.remove()
    }
  })

  it('finds the node behind an address that names the wrong peer id, without a crash', async () => {
    const first = await group.start()
    const wrong = `/ip4/${first.ip}/tcp/5001/p2p/12D3KooWGrV1gAJLg8wgvTVSNM4Bvo39Qoqb45ZAUjw6YNf9SNjp`
    const second = await group.start({ bootstrap: { kind: 'static', peers: [wrong] } })
    await eventually(async () =>
      expect(await (await fetch(`${second.url}/readyz`)).text()).toContain('none of the peers'),
    )
  })

  it('asks for the shared password, and shows none to the world', async () => {
    const auth = basicAuth('user', 'päss:word')
    const first = await group.start({ auth })
    const second = await group.start({ auth })
    await group.image(first)
    const url = `${second.url}/v2/app/manifests/v1?ns=reg.test`
    for (const headers of [{}, { authorization: 'Basic Og==' }, { authorization: `${auth.header}x` }]) {
      const response = await fetch(url, { headers })
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toBeNull()
      expect(await response.json()).toMatchObject({ errors: [{ code: 'UNAUTHORIZED' }] })
    }
    await eventually(async () => expect(await status(url, { authorization: auth.header })).toBe(200))
    expect(await status(`${second.url}/readyz`)).toBe(200)
    expect(JSON.stringify([...first.lines, ...second.lines])).not.toContain(auth.header.slice(6))
  })

  it('does not mind a password when none is needed', async () => {
    const daemon = await group.start()
    expect(await status(`${daemon.url}/v2/`, { authorization: 'Basic Og==' })).toBe(200)
  })

  it('neither answers nor offers what is filtered', async () => {
    const change = { mirroredRegistries: ['reg.test'], registryFilters: [/:latest$/, /^reg\.test\/private\//] }
    const first = await group.start(change)
    const second = await group.start(change)
    const images = {
      'reg.test/app:v1': 200,
      'reg.test/app:latest': 404,
      'reg.test/private/app:v1': 404,
      'other.test/app:v1': 404,
    }
    for (const name of Object.keys(images)) await group.image(first, { name, sizeBytes: 100_000, layers: 1 })
    const urlOf = (daemon: TestDaemon, name: string) => {
      const [, registry = '', repository = '', tag = ''] = /^([^/]+)\/(.+):(.+)$/.exec(name) ?? []
      return `${daemon.url}/v2/${repository}/manifests/${tag}?ns=${registry}`
    }
    await eventually(async () => expect(await status(urlOf(second, 'reg.test/app:v1'))).toBe(200))
    for (const [name, expected] of Object.entries(images)) {
      expect(await status(urlOf(first, name)), name).toBe(expected)
      expect(await status(urlOf(second, name)), name).toBe(expected)
    }
    const metrics = await (await fetch(`${first.metricsUrl}/metrics`)).text()
    expect(metrics).toContain('spegel_advertised_image_tags{registry="reg.test"} 1')
    expect(metrics).not.toContain('registry="other.test"')
  })

  it('counts what it does under the names that are documented', async () => {
    const first = await group.start()
    const second = await group.start()
    const image = await group.image(first)
    const layer = image.layers[0]
    const url = `${second.url}/v2/app/blobs/${layer?.digest}?ns=reg.test`
    await eventually(async () => expect((await fetch(url)).status).toBe(200))
    await (await fetch(url)).arrayBuffer()
    await fetch(`${second.url}/v2/app/manifests/none?ns=reg.test`)
    const text = await (await fetch(`${second.metricsUrl}/metrics`)).text()
    for (const { name } of Object.values(metricSpecs)) expect(text).toContain(`# HELP ${name} `)
    expect(text).toMatch(/^spegel_mirror_requests_total\{registry="reg\.test",cache="hit"\} [1-9]/m)
    expect(text).toMatch(/^spegel_mirror_requests_total\{registry="reg\.test",cache="miss"\} [1-9]/m)
    expect(text).toMatch(/^spegel_mirror_misses_total\{reason="no-provider"\} [1-9]/m)
    expect(text).toMatch(/^spegel_dht_peers 1$/m)
    expect(text).toMatch(/^http_requests_inflight\{handler="\/v2\/\*"\} 0$/m)
    const sent = Number(/^spegel_sent_bytes_total\{source="peer",to="containerd"\} (\d+)$/m.exec(text)?.[1])
    expect(sent).toBeGreaterThanOrEqual(layer?.size ?? Infinity)
    const firstText = await (await fetch(`${first.metricsUrl}/metrics`)).text()
    expect(firstText).toMatch(new RegExp(`^spegel_sent_bytes_total\\{source="store",to="peer"\\} ${sent}$`, 'm'))
    // Manifest, config, two layers, and the tag.
    expect(firstText).toMatch(/^spegel_provided_keys 5$/m)
    expect(firstText).toMatch(/^spegel_advertised_content_digests 4$/m)
    const line = second.lines.find(({ msg, key }) => msg === 'mirrored' && key === layer?.digest)
    expect(line).toMatchObject({
      outcome: 'hit',
      source: first.ip,
      bytes: layer?.size,
      registry: 'reg.test',
      method: 'GET',
    })
    expect(line?.['ms']).toEqual(expect.any(Number))
  })

  it('refuses other methods and other paths', async () => {
    const daemon = await group.start()
    expect(await status(`${daemon.url}/v2/`)).toBe(200)
    expect(await status(`${daemon.url}/v2`)).toBe(200)
    expect(await status(`${daemon.url}/`)).toBe(404)
    expect(await status(`${daemon.url}/v2/app/tags/list`)).toBe(404)
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
      const response = await fetch(`${daemon.url}/v2/app/manifests/v1`, { method })
      expect(response.status, method).toBe(405)
      expect(await response.json()).toMatchObject({ errors: [{ code: 'UNSUPPORTED' }] })
    }
  })

  it.each(['registryListen', 'metricsListen', 'routerListen'] as const)(
    'says in one line that an address is taken: %s',
    async (which) => {
      const taken = createServer()
      await new Promise<void>((resolve) => taken.listen(7_000, group.address(1), resolve))
      await expect(group.start({ [which]: { host: group.address(1), port: 7_000 } })).rejects.toThrow(
        /^--(registry|metrics|router)-addr: cannot listen on 127\.\S+:7000: .*: stop what listens there, or choose another address$/,
      )
      await new Promise((resolve) => taken.close(resolve))
      // Nothing of the failed start is left: the same addresses can be had again.
      await group.start()
    },
  )
})
