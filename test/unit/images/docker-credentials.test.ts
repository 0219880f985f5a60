import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { dockerConfigPath, readDockerCredentials } from '../../../src/images/docker-credentials.ts'

describe('credentials of docker login', () => {
  let folder: string
  beforeEach(async () => (folder = await mkdtemp(join(tmpdir(), 'docker-'))))
  afterEach(() => rm(folder, { recursive: true }))

  const read = async (auths: unknown, registry: string) => {
    await writeFile(join(folder, 'config.json'), JSON.stringify({ auths }))
    return readDockerCredentials({ DOCKER_CONFIG: folder }, registry)
  }
  const auth = Buffer.from('me:a:b').toString('base64')
  const me = { username: 'me', password: 'a:b' }

  it.each([
    ['ghcr.io', 'ghcr.io'],
    ['https://ghcr.io', 'ghcr.io'],
    ['http://127.0.0.1:5000', '127.0.0.1:5000'],
    ['https://index.docker.io/v1/', 'docker.io'],
  ])('kept for %s are those of %s', async (key, registry) => {
    expect(await read({ [key]: { auth } }, registry)).toEqual(me)
  })

  it.each([
    ['of another registry', { 'other.io': { auth } }],
    ['in another program', { 'ghcr.io': {} }],
    ['that are a token of another kind', { 'ghcr.io': { auth: 'bWU6', identitytoken: 'x' } }],
    ['that are nothing', undefined],
  ])('%s are none', async (_name, auths) => {
    expect(await read(auths, 'ghcr.io')).toBeUndefined()
  })

  it('are in DOCKER_CONFIG, else below HOME; no file is no credentials', async () => {
    expect(dockerConfigPath({ DOCKER_CONFIG: '/a', HOME: '/b' })).toBe('/a/config.json')
    expect(dockerConfigPath({ HOME: '/b' })).toBe('/b/.docker/config.json')
    expect(await readDockerCredentials({ HOME: folder }, 'ghcr.io')).toBeUndefined()
  })
})
