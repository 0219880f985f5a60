/**
 * A running containerd reads generated hosts.toml files before, with and after our configuration: it never dies, and
 * what it does behind the mirror stays the same. SEED repeats a run, TREES sets the number of random files.
 */
import type { ChildProcess } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { configureHosts, restoreHosts } from '../../src/hosts/apply.ts'
import { errorMessage } from '../../src/lib/errors.ts'
import { Cluster } from '../../src/testbed/cluster.ts'
import { Authority } from '../support/authority.ts'
import { eventually } from '../support/daemons.ts'
import { HostsJudge, type TreeStep } from '../support/hosts-judge.ts'
import { hostsConfig } from '../support/hosts-scenario.ts'
import { bytesOf, hostsText } from '../support/hosts-trees.ts'

const mirrorPort = 30_020
const mirror = `http://127.0.0.1:${mirrorPort}`
const mirrorProgram = join(import.meta.dirname, '../support/absent-mirror-process.ts')
const pullTimeoutMs = 30_000
const logger = pino({ level: 'silent' })
const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const randomTrees = Number(process.env['TREES'] ?? 15)

/** REGISTRY stands for host and port of the registry, DIRECTORY for its directory of certs.d. */
const nastyTexts = [
  "server = 'http://REGISTRY'\n[host.'http://REGISTRY']\n",
  "server = 'http://REGISTRY'\n",
  "server = 'http://REGISTRY'\n[host]\nskip_verify = true\n",
  "server = 'http://REGISTRY'\n[host]\n",
  "server = 'http://REGISTRY'\nhost = 'https://x.example'\n",
  "server = 'http://REGISTRY'\n[[host]]\nserver = 'a'\n",
  "server = 'http://REGISTRY'\nhost.'http://REGISTRY'.skip_verify = true\n",
  "host = { 'http://REGISTRY' = { capabilities = ['pull', 'resolve'] } }\n",
  "\uFEFFserver = 'http://REGISTRY'\n[host.'http://REGISTRY']\n",
  "server = 'http://REGISTRY'\r\n[host.'http://REGISTRY']\r\n",
  "server = 'http://REGISTRY'\n[host.'http://REGISTRY']\n[host.'http://REGISTRY']\n",
  "server = 'http://REGISTRY'\ntext = '''\n[host.'https://x.example']\n'''\n[host.'http://REGISTRY']\n",
  "server = 'http://REGISTRY'\n[plugins]\n[host.'http://REGISTRY'.header]\nX-One = ['a', 'b']\n",
  "server = 'http://REGISTRY'\ncapabilities = ['fly']\n[host.'http://REGISTRY']\n",
  "ca = 'missing.crt'\nserver = 'http://REGISTRY'\n[host.'http://REGISTRY']\n",
  `server = 'http://REGISTRY'\n[host.'${mirror}']\n`,
  '',
  '\n',
  'broken',
]
const nastyTrees: Record<string, TreeStep[]> = {
  'an empty directory that hides _default': [
    { op: 'directory', path: 'DIRECTORY' },
    { op: 'file', path: 'certs.d/_default/hosts.toml', bytes: "server = 'http://REGISTRY'\n" },
  ],
  'only _default': [
    {
      op: 'file',
      path: 'certs.d/_default/hosts.toml',
      bytes: "server = 'http://REGISTRY'\n[host.'http://REGISTRY']\n",
    },
  ],
  'a link to a directory outside': [
    { op: 'directory', path: 'certs.d' },
    { op: 'file', path: 'outside/hosts.toml', bytes: "server = 'http://REGISTRY'\n[host.'http://REGISTRY']\n" },
    { op: 'link', path: 'DIRECTORY', to: '../outside' },
  ],
  'a dangling link': [
    { op: 'directory', path: 'certs.d' },
    { op: 'link', path: 'DIRECTORY', to: 'missing' },
  ],
  'a link to itself': [
    { op: 'directory', path: 'certs.d' },
    { op: 'link', path: 'certs.d/loop', to: 'loop' },
    { op: 'link', path: 'DIRECTORY', to: 'loop' },
  ],
  'a file in place of the directory': [{ op: 'file', path: 'DIRECTORY', bytes: 'a file' }],
  'a directory in place of hosts.toml': [{ op: 'directory', path: 'DIRECTORY/hosts.toml' }],
}

describe.each(['containerdOld', 'containerdNew'] as const)('a running %s', (containerd) => {
  let cluster: Cluster
  let judges: HostsJudge[] = []
  let mirrorProcess: ChildProcess
  let mirrorRequests: string[] = []
  let reference = ''
  let certificates: TreeStep[] = []

  beforeAll(async () => {
    judges = await HostsJudge.startAll()
    cluster = await Cluster.create({ nodes: 1, containerd, withoutDaemons: true })
    const { host } = cluster.node(1)
    mirrorProcess = host.spawn(process.execPath, [mirrorProgram, String(mirrorPort)], {
      stdio: ['ignore', 'pipe', 2],
    })
    await new Promise<void>((resolve) => {
      mirrorProcess.stdout?.on('data', (data: Buffer) => {
        const lines = data.toString().split('\n').filter(Boolean)
        if (lines.includes('ready')) resolve()
        mirrorRequests.push(...lines.filter((line) => line !== 'ready'))
      })
    })
    ;({ reference } = await cluster.publish('small:v1', { sizeBytes: 4_096, layers: 1, seed: 'small' }))
    const authority = await Authority.create(join(cluster.folder, 'authority'))
    const client = await authority.issue('client', '/CN=client')
    const [ca, certificate, key] = await Promise.all(
      [authority.certificate, client.certificate, client.key].map((path) => readFile(path, 'utf8')),
    )
    const files = {
      'ca.crt': ca,
      'other.crt': ca,
      'client.cert': certificate,
      'client.key': key,
      'both.pem': `${certificate}${key}`,
    }
    certificates = Object.entries(files).map(([name, bytes = '']) => ({
      op: 'file',
      path: `DIRECTORY/${name}`,
      bytes,
    }))
    process.stderr.write(`hosts-running: SEED=${seed}\n`)
  })
  afterAll(async () => {
    mirrorProcess.kill()
    await Promise.all(judges.map((judge) => judge.close()))
    await cluster.close()
  })

  const version = containerd === 'containerdOld' ? '1.6' : '2.3'
  const theJudge = () => {
    const found = judges.find((judge) => judge.version === version)
    if (found === undefined) throw new Error(`no judge for ${version}`)
    return found
  }
  const verdict = async () =>
    (await theJudge().judge(cluster.node(1).certsFolder, [cluster.registry])).get(cluster.registry)

  /** The result of a pull, and what it requested of the registry. */
  async function pull(): Promise<{ isPulled: boolean; requests: string[]; error: string }> {
    const seen = cluster.upstream.requests().length
    const error = await cluster
      .node(1)
      .cri.pull(reference, pullTimeoutMs)
      .then(
        () => '',
        (cause: unknown) => errorMessage(cause),
      )
    if (cluster.node(1).containerdPid === undefined) throw new Error(`containerd ended during a pull: ${error}`)
    if (error === '') await cluster.node(1).cri.remove(reference)
    const requests = cluster.upstream.requests().slice(seen)
    return { isPulled: error === '', requests: requests.map(({ method, path }) => `${method} ${path}`).sort(), error }
  }

  /** Undefined: containerd itself cannot stand the tree, whatever we do. */
  async function tryTree(steps: readonly TreeStep[]): Promise<'mirrored' | 'as before' | undefined> {
    const node = cluster.node(1)
    const own = `certs.d/${cluster.registry}`
    await Promise.all(
      [node.certsFolder, join(node.folder, 'outside')].map((path) => rm(path, { recursive: true, force: true })),
    )
    const place = (path: string) => path.replaceAll('REGISTRY', cluster.registry).replaceAll('DIRECTORY', own)
    await theJudge().make(
      node.folder,
      steps.map((step) => ({ ...step, path: place(step.path), bytes: bytesOf(place(step.bytes ?? '')) })),
    )
    if ((await verdict())?.panic !== undefined) return undefined
    const before = await pull()
    const options = { registries: ['_default'], targets: [mirror], prependExisting: true, resolveTags: true }
    await configureHosts(hostsConfig(node.certsFolder, { ...options, authorization: undefined }), logger)
    const isMirrored = (await verdict())?.hosts?.[0]?.host === `127.0.0.1:${mirrorPort}`
    mirrorRequests = []
    const during = await pull()
    expect({ ...during, error: '' }).toEqual({ ...before, error: '' })
    if (isMirrored) await eventually(() => Promise.resolve(expect(mirrorRequests).not.toEqual([])))
    await restoreHosts(node.certsFolder)
    mirrorRequests = []
    const after = await pull()
    expect({ ...after, error: '' }).toEqual({ ...before, error: '' })
    return isMirrored ? 'mirrored' : 'as before'
  }

  const fileTree = (text: string): TreeStep[] => [
    { op: 'directory', path: 'DIRECTORY' },
    { op: 'file', path: 'DIRECTORY/hosts.toml', bytes: text },
  ]

  it('requests an ordinary registry from the mirror first', async () => {
    expect(await tryTree(fileTree("server = 'http://REGISTRY'\n[host.'http://REGISTRY']\n"))).toBe('mirrored')
  })

  it.each(nastyTexts)('lives on, and falls back as before, with the file %j', async (text) => {
    await tryTree(fileTree(text))
  })

  it.each(Object.entries(nastyTrees))('lives on, and falls back as before, with %s', async (_name, steps) => {
    await tryTree(steps)
  })

  it(`lives on, and falls back as before, with random files`, async () => {
    const texts = fc.sample(hostsText, { seed, numRuns: randomTrees })
    const counts = new Map<unknown, number>()
    for (const text of texts) {
      const reachable = text
        .replaceAll('https://upstream.example', 'http://REGISTRY')
        .replaceAll('upstream.example:5000', 'REGISTRY')
        .replaceAll('{root}', cluster.folder)
      const result = await tryTree([...fileTree(reachable), ...certificates]).catch((cause: unknown) => {
        throw new Error(`SEED=${seed}: ${JSON.stringify(reachable)}: ${errorMessage(cause)}`, { cause })
      })
      counts.set(result, (counts.get(result) ?? 0) + 1)
    }
    expect(counts.get('mirrored')).toBeGreaterThan(0)
    process.stderr.write(`hosts-running ${containerd}: ${JSON.stringify([...counts])}\n`)
  })
})
