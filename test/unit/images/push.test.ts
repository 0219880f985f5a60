import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { writeBenchmarkImage } from '../../../src/images/benchmark-image.ts'
import { blobPath, type Descriptor } from '../../../src/images/layout.ts'
import { type PushInit, pushImage } from '../../../src/images/push.ts'
import { parsePushTarget } from '../../../src/images/push-target.ts'
import { errorMessage, UserError } from '../../../src/lib/errors.ts'
import { BadRegistry } from '../../support/bad-registry.ts'
import { testCertificate, testKey } from '../../support/tls.ts'

const KiB = 1024
const tooSlowMs = 300

describe('pushing', () => {
  let layout: string
  let image: Awaited<ReturnType<typeof writeBenchmarkImage>>
  let registry: BadRegistry
  let url: string

  beforeEach(async () => {
    layout = await mkdtemp(join(tmpdir(), 'push-'))
    const spec = { name: 'r.test/b:v1', sizeBytes: 900 * KiB, layers: 3, seed: randomUUID() }
    image = await writeBenchmarkImage(layout, spec)
    registry = await BadRegistry.start()
    url = `${registry.origin}/team/bench:v1`
  })
  afterEach(async () => {
    registry.close()
    await rm(layout, { recursive: true, force: true })
  })

  const push = (change: Partial<PushInit> = {}) =>
    pushImage({ layout, image, url, env: { DOCKER_CONFIG: layout }, ...change })
  const login = (entry: object) =>
    writeFile(join(layout, 'config.json'), JSON.stringify({ auths: { [new URL(registry.origin).host]: entry } }))
  const size = (...parts: Descriptor[]) => parts.reduce((sum, part) => sum + part.size, 0)
  const everything = () => [image.target, ...image.manifests, ...image.configs, ...image.layers]
  /** The message of the UserError that pushing ends with. */
  const failure = async (change: Partial<PushInit> = {}) => {
    const error: unknown = await push(change).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(UserError)
    expect(errorMessage(error)).not.toContain('\n')
    return errorMessage(error)
  }

  it('sends each blob and manifest once, the tag last, and nothing at the second time', async () => {
    const done: number[] = []
    const total = size(...everything())
    const onProgress = (doneBytes: number, totalBytes: number) => {
      expect(totalBytes).toBe(total)
      done.push(doneBytes)
    }
    expect(await push({ onProgress })).toEqual({ sentBytes: total, skippedBytes: 0 })
    expect(done).toEqual(done.toSorted((a, b) => a - b))
    expect(done.at(-1)).toBe(total)
    expect([...registry.blobs].sort()).toEqual([...image.layers, ...image.configs].map(({ digest }) => digest).sort())
    expect([...registry.manifests.keys()].at(-1)).toBe('v1')
    expect(registry.manifests.get('v1')).toBe(image.target.digest)
    expect(registry.count('PUT')).toBe(everything().length)
    expect(await push()).toEqual({ sentBytes: 0, skippedBytes: total })
    expect(registry.count('PUT')).toBe(everything().length)
    expect(registry.count('POST')).toBe(image.layers.length + image.configs.length)
  })

  it('sends only what is not there', async () => {
    const [first] = image.layers
    if (first === undefined) throw new Error('no layer')
    registry.blobs.add(first.digest)
    expect(await push()).toEqual({ sentBytes: size(...everything()) - first.size, skippedBytes: first.size })
  })

  it('moves a tag that stands for something else', async () => {
    await push()
    registry.manifests.set('v1', 'sha256:other')
    expect(await push()).toMatchObject({ sentBytes: image.target.size })
    expect(registry.manifests.get('v1')).toBe(image.target.digest)
  })

  it('sends bodies to a registry that does not say that it wants them', async () => {
    registry.knowsContinue = false
    const [first, ...others] = image.layers
    for (const { digest } of others) registry.blobs.add(digest)
    await push()
    expect(registry.blobs).toContain(first?.digest)
  })

  it('believes a redirect to a blob elsewhere, and says nobody there who it is', async () => {
    await login({ username: 'me', password: 'secret' })
    const elsewhere = await BadRegistry.start()
    try {
      for (const { digest } of image.layers) elsewhere.blobs.add(digest)
      registry.intervene = (request, response) => {
        if (needsBasic(request, response)) return true
        if (request.method !== 'HEAD' || !request.url?.includes('/blobs/')) return false
        response.writeHead(307, { location: `${elsewhere.origin}${request.url}` }).end()
        return true
      }
      expect(await push()).toMatchObject({ skippedBytes: size(...image.layers) })
      expect(elsewhere.seen.length).toBeGreaterThan(0)
      expect(elsewhere.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([])
    } finally {
      elsewhere.close()
    }
  })

  it('gets a token with the user name and password, and a new one when it is no longer good', async () => {
    await login({ auth: Buffer.from('me:se:cret').toString('base64') })
    let [tokens, used] = [0, 0]
    registry.intervene = (request, response) => {
      if (request.url?.startsWith('/token?')) {
        tokens += 1
        used = 0
        const { searchParams } = new URL(request.url, registry.origin)
        expect(Object.fromEntries(searchParams)).toEqual({
          service: 'registry',
          scope: 'repository:team/bench:pull,push',
        })
        expect(request.headers.authorization).toBe(`Basic ${Buffer.from('me:se:cret').toString('base64')}`)
        response.end(JSON.stringify({ token: `t${tokens}` }))
        return true
      }
      used += 1
      if (request.headers.authorization === `Bearer t${tokens}` && used < 5) return false
      request.resume()
      const challenge = `Bearer realm="${registry.origin}/token",service="registry",scope="repository:team/bench:pull"`
      response.writeHead(401, { 'www-authenticate': challenge }).end()
      return true
    }
    expect(await push()).toMatchObject({ skippedBytes: 0 })
    expect(tokens).toBeGreaterThan(3)
    expect(registry.manifests.get('v1')).toBe(image.target.digest)
  })

  it('says that a login is needed, and where it was looked for', async () => {
    registry.intervene = needsBasic
    expect(await failure()).toMatch(
      new RegExp(`^cannot push to ${url}: blob sha256:.*wants a login, and ${layout}/config.json has none for 127`),
    )
  })

  it.each([
    ['the registry', () => registry.intervene],
    [
      'the token server',
      () => (request: IncomingMessage, response: ServerResponse) => {
        const challenge = `Bearer realm="${registry.origin}/token",service="registry"`
        response.writeHead(401, request.url?.startsWith('/token') ? {} : { 'www-authenticate': challenge }).end()
        return true
      },
    ],
  ])('says that the password is refused by %s, without telling it', async (_who, intervention) => {
    await login({ username: 'me', password: 'wrong-secret' })
    registry.intervene = needsBasic
    registry.intervene = intervention()
    const message = await failure()
    expect(message).toMatch(
      /refuses the user name and password that .*config\.json has for 127.*: run docker login 127/,
    )
    expect(message).not.toContain('wrong-secret')
  })

  it('repeats what the registry says, on one line', async () => {
    registry.intervene = (request, response) => {
      if (request.method !== 'POST') return false
      response.writeHead(500).end('{"errors":[{"code":"UNKNOWN","message":"disk\\nfull"}]}')
      return true
    }
    expect(await failure()).toMatch(
      /blob sha256:\w+: the registry answered 500 \(UNKNOWN, disk full\): try again later/,
    )
  })

  it('says that a body is too large for what stands before the registry', async () => {
    registry.intervene = (request, response) => {
      if (request.method !== 'PUT') return false
      response.writeHead(413).end('<html>Too   large</html>')
      return true
    }
    expect(await failure()).toMatch(/the registry answered 413 \(<html>Too large<\/html>\)/)
  })

  it.each(['HEAD', 'POST', 'PUT'])('gives up when nothing moves in a %s', async (method) => {
    registry.intervene = (request) => request.method === method
    expect(await failure({ stallTimeoutMs: tooSlowMs })).toMatch(/nothing moved for 0.3 s: run it again/)
  })

  it('takes longer than the limit when something moves', async () => {
    const limitMs = 1_000
    registry.intervene = (_request, response) => {
      if (registry.seen.length > 1) return false
      // A header in pieces, each within the limit, all beyond it.
      const lines = ['HTTP/1.1 404 Not Found\r\n', 'a: b\r\n', 'c: d\r\n', 'e: f\r\n', 'connection: close\r\n\r\n']
      const next = () => {
        response.socket?.write(lines.shift() ?? '')
        if (lines.length === 0) response.socket?.end()
        else setTimeout(next, limitMs / 3)
      }
      next()
      return true
    }
    expect(await push({ stallTimeoutMs: limitMs })).toMatchObject({ skippedBytes: 0 })
  })

  it('ends with the reason when it is aborted', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    registry.intervene = (request) => {
      if (request.method === 'PUT') controller.abort(reason)
      return request.method === 'PUT'
    }
    await expect(push({ signal: controller.signal })).rejects.toBe(reason)
  })

  it('says that nobody is there', async () => {
    registry.close()
    expect(await failure()).toMatch(/ECONNREFUSED.*: check the host and the port$/)
  })

  it('says that the registry has no TLS', async () => {
    expect(await failure({ url: url.replace('http://', '') })).toMatch(
      /: write http:\/\/ before a registry without TLS$/,
    )
  })

  it('says which file of the layout is not there', async () => {
    await rm(blobPath(layout, image.layers[1]?.digest ?? 'sha256:'))
    expect(await failure()).toMatch(/^cannot read the image in .*ENOENT/)
  })

  it('does not repeat a config.json that it cannot read', async () => {
    await writeFile(join(layout, 'config.json'), '{"auths": {"x": {"auth": "hunter2"')
    expect(await failure()).toBe(`${layout}/config.json is not JSON: mend it, or make it anew with docker login`)
  })
})

describe('pushing over TLS', () => {
  const known = getCACertificates('default')
  let folder: string
  let registry: BadRegistry
  let image: Awaited<ReturnType<typeof writeBenchmarkImage>>

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'push-tls-'))
    image = await writeBenchmarkImage(folder, { name: 'r.test/b:v1', sizeBytes: 900 * KiB, layers: 1, seed: 'tls' })
    registry = await BadRegistry.start({ key: testKey, cert: testCertificate })
    const auths = { [new URL(registry.origin).host]: { username: 'me', password: 'secret' } }
    await writeFile(join(folder, 'config.json'), JSON.stringify({ auths }))
  })
  afterEach(async () => {
    setDefaultCACertificates(known)
    registry.close()
    await rm(folder, { recursive: true })
  })

  const push = () => {
    const url = `${registry.origin.replace('https://', '')}/team/bench:v1`
    return pushImage({ layout: folder, image, url, env: { DOCKER_CONFIG: folder } })
  }

  it('works with a certificate that is trusted', async () => {
    setDefaultCACertificates([...known, testCertificate])
    registry.intervene = needsBasic
    expect(await push()).toMatchObject({ skippedBytes: 0 })
    expect(registry.manifests.get('v1')).toBe(image.target.digest)
  })

  it('says what to do about a certificate that is not trusted', async () => {
    await expect(push()).rejects.toThrow(/self-signed certificate.*: name its authority in NODE_EXTRA_CA_CERTS$/)
  })

  it('sends no password to a token server without TLS', async () => {
    setDefaultCACertificates([...known, testCertificate])
    const tokenServer = await BadRegistry.start()
    try {
      registry.intervene = (_request, response) => {
        response.writeHead(401, { 'www-authenticate': `Bearer realm="${tokenServer.origin}/token"` }).end()
        return true
      }
      await expect(push()).rejects.toThrow(/wants the password sent to http:.* without TLS: not done/)
      expect(tokenServer.seen).toEqual([])
    } finally {
      tokenServer.close()
    }
  })
})

describe('where to push', () => {
  it.each([
    ['http://127.0.0.1:5000/team/bench:v1', 'http://127.0.0.1:5000', '127.0.0.1:5000', 'team/bench', 'v1'],
    ['ghcr.io/team/bench:v1-10MB-1', 'https://ghcr.io', 'ghcr.io', 'team/bench', 'v1-10MB-1'],
    ['https://reg.test/bench:v1', 'https://reg.test', 'reg.test', 'bench', 'v1'],
    ['reg.test:443/bench:v1', 'https://reg.test', 'reg.test:443', 'bench', 'v1'],
    ['docker.io/team/bench:v1', 'https://registry-1.docker.io', 'docker.io', 'team/bench', 'v1'],
  ])('%s', (name, origin, registry, repository, tag) => {
    expect(parsePushTarget(name)).toEqual({ name, origin, registry, repository, tag })
  })

  it.each([
    '',
    'bench:v1',
    'reg.test/bench',
    'reg.test/Bench:v1',
    'ftp://reg.test/a:b',
    'reg.test/a:b c',
    'reg.test:99999/a:b',
  ])('is not %j', (text) => {
    expect(() => parsePushTarget(text)).toThrow(/is not where an image can be pushed: write HOST/)
  })

  it('repeats no password', () => {
    expect(() => parsePushTarget('http://me:secret@reg.test/a:b')).toThrow(UserError)
    expect(() => parsePushTarget('http://me:secret@reg.test/a:b')).not.toThrow(/secret/)
  })
})

function needsBasic(request: IncomingMessage, response: ServerResponse): boolean {
  if (request.headers.authorization === `Basic ${Buffer.from('me:secret').toString('base64')}`) return false
  request.resume()
  response.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end()
  return true
}
