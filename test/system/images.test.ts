import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type BenchmarkImage, writeBenchmarkImage } from '../../src/images/benchmark-image.ts'
import { waitProgram } from '../../src/images/wait-program.ts'
import { Cluster } from '../../src/testbed/cluster.ts'
import { end, output, waitUntil } from '../../src/testbed/process.ts'
import { RegistryProcess } from '../../src/testbed/registry-process.ts'
import { prepareQemu, prepareRunc } from '../../src/testbed/tools.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 120_000
const peakMiBMax = 200
const pusher = join(import.meta.dirname, '../support/push-image-process.ts')
const say = (line: string) => process.stderr.write(`set-up: ${line}\n`)
/** The system call in which the program waits (rt_sigtimedwait). */
const waitCall = process.arch === 'arm64' ? '137' : '128'

/** The user `me` with the password `secret`. */
const htpasswd = 'me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n'

interface PushOutcome {
  pushed?: { sentBytes: number; skippedBytes: number }
  error?: string
  peakMiB: number
}

describe('benchmark images', () => {
  let cluster: Cluster
  let runc: string

  beforeAll(async () => {
    runc = await prepareRunc(say)
    cluster = await Cluster.create({ nodes: 1, containerd: 'containerdOld' })
  })
  afterAll(() => cluster.close())

  const layout = () => join(cluster.folder, 'benchmark')
  const make = (tag: string, sizeBytes: number, layers: number) =>
    writeBenchmarkImage(layout(), { name: `r.test/benchmark:${tag}`, sizeBytes, layers, seed: tag })

  /** Pushes from the client's network, with the credentials of this user. */
  async function push(image: BenchmarkImage, url: string, password?: string): Promise<PushOutcome> {
    const home = join(cluster.folder, 'home')
    await mkdir(home, { recursive: true })
    const entry = { auth: Buffer.from(`me:${password}`).toString('base64') }
    const auths = password === undefined ? {} : { [new URL(url).host]: entry }
    await writeFile(join(home, 'config.json'), JSON.stringify({ auths }))
    const args = [pusher, layout(), url, JSON.stringify(image.target)]
    const env = { ...process.env, DOCKER_CONFIG: home }
    return JSON.parse(await output(cluster.client.spawn(process.execPath, args, { env }))) as PushOutcome
  }

  it.each([
    [1, 'SIGTERM'],
    [4, 'SIGINT'],
  ] as const)('of %s layers is pushed, pulled and run; it waits, and %s ends it with 0', async (layers, signal) => {
    const tag = `v${layers}`
    const image = await make(tag, 10 * MiB, layers)
    const url = `${cluster.upstream.url}/benchmark:${tag}`
    const first = await push(image, url)
    expect(first.pushed).toMatchObject({ skippedBytes: 0 })
    const again = await push(image, url)
    expect(again.pushed).toEqual({ sentBytes: 0, skippedBytes: first.pushed?.sentBytes })

    const reference = `${cluster.registry}/benchmark:${tag}`
    const node = cluster.node(1)
    await node.cri.pull(reference, pullTimeoutMs)
    const ctr = (...args: string[]) => node.ctr(cluster.tools.ctr, args)
    const address = ['--address', node.socket, '--namespace', 'k8s.io']
    const container = node.host.spawn(
      cluster.tools.ctr,
      [...address, 'run', '--rm', '--net-host', '--runc-binary', runc, reference, tag],
      { stdio: 'inherit' },
    )
    try {
      const waits = async () => {
        const pid = new RegExp(String.raw`^${tag}\s+(\d+)\s+RUNNING`, 'm').exec(await ctr('tasks', 'ls'))?.[1]
        return (await readFile(`/proc/${pid}/syscall`, 'utf8')).startsWith(`${waitCall} `)
      }
      await waitUntil('the container waits', waits, { timeoutMs: 60_000, child: container })
      const ended = once(container, 'exit')
      await ctr('tasks', 'kill', '--signal', signal, tag)
      expect(await ended).toEqual([0, null])
    } finally {
      await end(container)
    }
  })

  it('are pushed in constant memory', async () => {
    const image = await make('large', 1024 * MiB, 1)
    const { pushed, peakMiB } = await push(image, `${cluster.upstream.url}/large:v1`)
    process.stderr.write(`1 GB pushed: peak ${peakMiB.toFixed(0)} MiB\n`)
    expect(pushed?.sentBytes).toBeGreaterThan(1023 * MiB)
    expect(peakMiB).toBeLessThan(peakMiBMax)
  })

  it('are pushed to a registry with a password; a wrong one and none are told', async () => {
    const registry = new RegistryProcess(
      cluster.node(1).host,
      cluster.tools.registry,
      join(cluster.folder, 'private'),
      { htpasswd },
    )
    await cluster.node(1).stopDaemon()
    await registry.start()
    try {
      const image = await make('private', MiB, 2)
      const url = `${registry.url}/team/benchmark:v1`
      const host = new URL(url).host
      const none = await push(image, url)
      expect(none.error).toMatch(/^cannot push to .*: the registry wants a login, and .*config\.json has none for/)
      const wrong = await push(image, url, 'wrong-secret')
      expect(wrong.error).toContain('the registry refuses the user name and password that')
      expect(wrong.error).toContain(`run docker login ${host}`)
      expect(wrong.error).not.toContain('wrong-secret')
      const right = await push(image, url, 'secret')
      expect(right).toMatchObject({ pushed: { skippedBytes: 0 } })
    } finally {
      await registry.stop()
    }
  })

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'have a program for arm64 that waits and ends with 0 on %s',
    async (signal) => {
      const qemu = await prepareQemu(say)
      const program = join(cluster.folder, 'wait-arm64')
      await writeFile(program, waitProgram('arm64'), { mode: 0o755 })
      const child = spawn(qemu, ['-strace', program], { stdio: ['ignore', 'inherit', 'pipe'] })
      let calls = ''
      child.stderr.on('data', (data: Buffer) => (calls += data.toString()))
      try {
        await waitUntil('waiting', () => Promise.resolve(calls.includes('rt_sigtimedwait')), {
          timeoutMs: 30_000,
          child,
        })
        child.kill(signal)
        expect(await once(child, 'exit')).toEqual([0, null])
        expect(calls).toMatch(/rt_sigprocmask\(SIG_BLOCK/)
      } finally {
        child.kill('SIGKILL')
      }
    },
  )
})
