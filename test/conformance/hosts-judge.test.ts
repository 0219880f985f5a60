import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { HostsJudge } from '../support/hosts-judge.ts'

describe("the judge of hosts.toml, which runs containerd's own loader", () => {
  let judges: HostsJudge[] = []
  let root = ''

  beforeAll(async () => {
    judges = await HostsJudge.startAll()
  }, 600_000)
  afterAll(() => Promise.all(judges.map((judge) => judge.close())))
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'hosts-judge-'))
    return () => rm(root, { recursive: true })
  })

  async function judgeAll(text: string | undefined): Promise<Map<string, unknown>> {
    if (text !== undefined) {
      await mkdir(join(root, 'a.example'), { recursive: true })
      await writeFile(join(root, 'a.example/hosts.toml'), text)
    }
    const verdicts = new Map<string, unknown>()
    for (const judge of judges) verdicts.set(judge.version, (await judge.judge(root, ['a.example'])).get('a.example'))
    return verdicts
  }

  it('reports the hosts in order, with what decides TLS and dialling', async () => {
    const verdicts = await judgeAll(
      "server = 'https://upstream.example'\n[host.'http://127.0.0.1:5000']\nskip_verify = true\ndial_timeout = '2s'\n",
    )
    for (const [version, verdict] of verdicts) {
      expect(verdict).toMatchObject({
        hosts: [
          {
            scheme: 'https',
            host: '127.0.0.1:5000',
            httpFallback: true,
            skipVerify: true,
            dialTimeoutMs: version.startsWith('1.') ? 30_000 : 2_000,
          },
          { scheme: 'https', host: 'upstream.example', path: '/v2', dialTimeoutMs: 30_000 },
        ],
      })
    }
  })

  it('reports a panic of the loader and goes on', async () => {
    const verdicts = await judgeAll("[host]\nskip_verify = true\n[host.'http://127.0.0.1:5000']\n")
    expect(verdicts.get('1.6')).toMatchObject({ panic: expect.stringContaining('interface conversion') as string })
    expect(verdicts.get('2.3')).toMatchObject({ hosts: [{ host: 'a.example' }] })
    expect((await judgeAll('')).get('1.6')).toMatchObject({ hosts: [{ host: 'a.example' }] })
  })

  it('reports what containerd logs about a file that it cannot decode', async () => {
    for (const verdict of (await judgeAll('server = 1\n')).values()) {
      expect(verdict).toMatchObject({
        hosts: [{ host: 'a.example' }],
        logs: [expect.stringContaining('failed to decode') as string],
      })
    }
  })

  it('reports an error where containerd refuses the pull', async () => {
    const verdicts = await judgeAll("ca = 'missing.crt'\n[host.'https://b.example']\n")
    for (const verdict of verdicts.values()) {
      expect(verdict).toMatchObject({ error: expect.stringContaining('missing.crt') as string })
    }
  })
})
