/** The image of the Dockerfile: what is in it, and how it runs in containerd as a DaemonSet would run it. */
import { execFile } from 'node:child_process'
import { chmod, chown, mkdir, mkdtemp, readFile, rm, rmdir, stat, utimes, writeFile } from 'node:fs/promises'
import { readdirSync, lstatSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { buildImage } from '../../image/build.ts'
import { writeBenchmarkImage } from '../../src/images/benchmark-image.ts'
import { blobPath } from '../../src/images/layout.ts'
import { architectures } from '../../src/images/wait-program.ts'
import { Cluster } from '../../src/testbed/cluster.ts'
import { type ContainerdNode, pauseImage } from '../../src/testbed/containerd-node.ts'
import { statusFrom } from '../../src/testbed/fetch.ts'
import { prepareQemu, prepareRunc, prepareShim } from '../../src/testbed/tools.ts'
import { eventually } from '../support/daemons.ts'
import { imageName, prepareImage } from '../support/image.ts'
import { Container, type ContainerSpec } from '../support/pod.ts'

const run = promisify(execFile)
const say = (line: string) => process.stderr.write(`set-up: ${line}\n`)
const MiB = 1024 * 1024
/** How often the time of a start is looked at. */
const starts = 5
const pullTimeoutMs = 120_000

/** As charts/spegel-ts has them. */
const nobody = { uid: 65_532, gid: 0 }
const root = { uid: 0, gid: 0 }
const configurationCapabilities = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER']

interface Manifest {
  config: { digest: `sha256:${string}` }
  layers: { digest: `sha256:${string}`; size: number }[]
}

describe('the image', () => {
  let folder: string
  let built: Awaited<ReturnType<typeof prepareImage>>

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'spegel-ts-image-test-'))
    built = await prepareImage(say)
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  const json = async <T>(digest: string) =>
    JSON.parse(await readFile(blobPath(built.layout, digest as `sha256:${string}`), 'utf8')) as T

  /** All files of the image for one platform, as a container sees them. */
  async function unpack(architecture: (typeof architectures)[number]): Promise<string> {
    const target = join(folder, architecture)
    await mkdir(target, { recursive: true })
    const { layers } = await json<Manifest>(built.image.manifests[architecture].digest)
    for (const { digest } of layers) await run('tar', ['-xzf', blobPath(built.layout, digest), '-C', target])
    return target
  }

  it('has the same digests when it is built again from nothing', async () => {
    const again = await buildImage(join(folder, 'again'), imageName, say)
    expect(again.target.digest).toBe(built.image.target.digest)
  }, 600_000)

  it.each(architectures)(
    'for %s holds Node, libraries and the program; no shell, no npm, no special rights',
    async (architecture) => {
      const { config, layers } = await json<Manifest>(built.image.manifests[architecture].digest)
      expect(await json(config.digest)).toMatchObject({
        architecture,
        os: 'linux',
        created: '1970-01-01T00:00:00Z',
        config: {
          User: '65532:0',
          Entrypoint: [
            '/usr/local/bin/node',
            '--max-semi-space-size=2',
            '--expose-gc',
            '/opt/spegel-ts/spegel-ts.mjs',
          ],
          Env: expect.arrayContaining(['MALLOC_ARENA_MAX=1']),
        },
      })
      const downloadMiB = layers.reduce((sum, { size }) => sum + size, 0) / MiB
      const target = await unpack(architecture)
      const files = readdirSync(target, { recursive: true, encoding: 'utf8' })
        .map((path) => ({ path, stats: lstatSync(join(target, path)) }))
        .filter(({ stats }) => !stats.isDirectory())
      const unpackedMiB = files.reduce((sum, { stats }) => sum + stats.size, 0) / MiB
      process.stderr.write(
        `${architecture}: ${downloadMiB.toFixed(1)} MiB to download, ${unpackedMiB.toFixed(1)} unpacked\n`,
      )
      expect(downloadMiB).toBeLessThan(60)

      const programs = files.filter(
        ({ stats, path }) => stats.isFile() && (stats.mode & 0o111) !== 0 && !/\.so\b/.test(path),
      )
      expect(programs.map(({ path }) => path)).toEqual(['usr/local/bin/node'])
      const node = await readFile(join(target, 'usr/local/bin/node'))
      // e_machine of its ELF header.
      expect(node.readUInt16LE(18)).toBe(architecture === 'amd64' ? 62 : 183)
      expect(files.filter(({ path }) => /node_modules|npm|\.ts$/.test(path)).map(({ path }) => path)).toEqual([])
      expect(files.filter(({ stats }) => (stats.mode & 0o6000) !== 0).map(({ path }) => path)).toEqual([])
      const writable = files.filter(({ stats }) => !stats.isSymbolicLink() && (stats.mode & 0o022) !== 0)
      expect(writable.map(({ path }) => path)).toEqual([])
      expect(new Set(files.map(({ stats }) => `${stats.uid}:${stats.gid} ${stats.mtimeMs}`))).toEqual(
        new Set(['0:0 0']),
      )
    },
  )

  it('runs on arm64', async () => {
    const target = await unpack('arm64')
    const qemu = await prepareQemu(say)
    const program = [join(target, 'usr/local/bin/node'), join(target, 'opt/spegel-ts/spegel-ts.mjs')]
    const { stdout } = await run(qemu, ['-L', target, ...program, 'version', '--format=json'])
    expect(JSON.parse(stdout)).toMatchObject({ arch: 'arm64', node: expect.stringMatching(/^v24\./) })
  })
})

describe.each(['containerdOld', 'containerdNew'] as const)('a container of the image beside %s', (containerd) => {
  let cluster: Cluster
  let image: string
  const containers: Container[] = []

  beforeAll(async () => {
    const built = await prepareImage(say)
    const runc = await prepareRunc(say)
    const shim = await prepareShim(say)
    cluster = await Cluster.create({
      nodes: 2,
      containerd,
      withoutDaemons: true,
      programFolders: [...(containerd === 'containerdNew' ? [dirname(shim)] : []), dirname(runc), old()],
    })
    await cluster.upstream.place(built.layout, built.image, 'spegel-ts', 'v1')
    image = `${cluster.registry}/spegel-ts:v1`
    await Promise.all(
      cluster.nodes.map(async (node) => {
        await importPause(node)
        await writeUsersHosts(node)
        await node.cri.pull(image, pullTimeoutMs)
      }),
    )
  })
  afterEach(async ({ task }) => {
    for (const container of containers.splice(0)) {
      if (task.result?.state === 'fail') process.stderr.write(`${await container.log()}\n`)
      await container.remove()
    }
  })
  afterAll(async () => {
    await cluster.close()
    await removeControlGroups()
  })

  /** The shim of the distribution is beside its containerd. */
  const old = () => join(import.meta.dirname, '../../.cache/tools/distribution/usr/bin')

  async function importPause(node: ContainerdNode): Promise<void> {
    const layout = join(node.folder, 'pause')
    await writeBenchmarkImage(layout, { name: pauseImage, sizeBytes: 64 * 1024, layers: 1, seed: 'pause' })
    await run('tar', ['-C', layout, '-cf', `${layout}.tar`, '.'])
    await node.ctr(cluster.tools.ctr, ['images', 'import', `${layout}.tar`])
  }

  /** What a user has before us: a registry without TLS. */
  async function writeUsersHosts(node: ContainerdNode): Promise<void> {
    const file = join(node.certsFolder, cluster.registry, 'hosts.toml')
    await mkdir(dirname(file), { recursive: true })
    const { url } = cluster.upstream
    await writeFile(file, `server = "${url}"\n[host."${url}"]\n  capabilities = ["pull", "resolve"]\n`)
  }

  const dataDir = (node: ContainerdNode) => join(node.folder, 'data')

  async function start(node: ContainerdNode, spec: Omit<ContainerSpec, 'image'>): Promise<Container> {
    for (const { path } of spec.mounts) await mkdir(path, { recursive: true })
    const container = await Container.run(node, { image, ...spec })
    containers.push(container)
    return container
  }

  const configure = (node: ContainerdNode, capabilities: readonly string[] = configurationCapabilities) =>
    start(node, {
      ...root,
      capabilities,
      args: [
        'configuration',
        `--containerd-registry-config-path=${node.certsFolder}`,
        '--mirror-targets=http://127.0.0.1:5000',
      ],
      mounts: [{ path: node.certsFolder, writable: true }],
    })

  const prepare = (node: ContainerdNode, { uid, gid } = nobody) =>
    start(node, {
      ...root,
      capabilities: ['CHOWN'],
      args: ['prepare', `--data-dir=${dataDir(node)}`, `--owner=${uid}:${gid}`],
      mounts: [{ path: dataDir(node), writable: true }],
    })

  /** The daemon as in a DaemonSet, without any capability. */
  const startRegistry = (node: ContainerdNode, user = nobody) =>
    start(node, {
      ...user,
      args: [
        'registry',
        `--containerd-sock=${node.socket}`,
        `--containerd-content-path=${node.contentPath}`,
        `--containerd-registry-config-path=${node.certsFolder}`,
        `--data-dir=${dataDir(node)}`,
        '--bootstrap-kind=static',
        ...(node === cluster.node(1) ? [] : ['--static-bootstrap-peers', ...cluster.peers]),
      ],
      mounts: [
        { path: dirname(node.socket) },
        { path: node.contentPath },
        { path: node.certsFolder },
        { path: dataDir(node), writable: true },
      ],
    })

  const readyz = (node: ContainerdNode) => statusFrom(node.host, 5000, '/readyz')
  const ready = (node: ContainerdNode) => eventually(async () => expect(await readyz(node)).toBe(200), 30_000)

  it('runs as nobody, without a capability, on a read-only root; serves the other node; ends with 0', async () => {
    for (const node of cluster.nodes) {
      expect(await (await configure(node)).ended()).toBe(0)
      expect(await (await prepare(node)).ended()).toBe(0)
    }
    const daemons: Container[] = []
    for (const node of cluster.nodes) {
      daemons.push(await startRegistry(node))
      await ready(node)
    }
    const [daemon] = daemons as [Container]
    const pid = await daemon.pid()
    const status = await readFile(`/proc/${pid}/status`, 'utf8')
    const field = (name: string) =>
      new RegExp(String.raw`^${name}:\s+(.*)$`, 'm').exec(status)?.[1]?.replaceAll('\t', ' ')
    expect(field('NSpid')).toBe(`${pid} 1`)
    expect(field('Uid')).toBe('65532 65532 65532 65532')
    expect(field('Gid')).toBe('0 0 0 0')
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) expect(field(set), set).toBe('0'.repeat(16))
    expect(field('NoNewPrivs')).toBe('1')
    // A filter.
    expect(field('Seccomp')).toBe('2')
    const mounts = await readFile(`/proc/${pid}/mountinfo`, 'utf8')
    expect(mounts).toMatch(/^\d+ \d+ \S+ \S+ \/ ro,/m)

    const { reference } = await cluster.publish('app:v1', { sizeBytes: 20 * MiB, layers: 3, seed: containerd })
    await cluster.node(1).cri.pull(reference, pullTimeoutMs)
    await cluster.upstream.stop()
    try {
      await eventually(() => cluster.node(2).cri.pull(reference, pullTimeoutMs))
    } finally {
      await cluster.upstream.start()
    }
    const complaints = (await daemon.log()).split('\n').filter((line) => /"level":"(WARN|ERROR|FATAL)"/.test(line))
    expect(complaints).toEqual([])

    process.stderr.write(`${containerd}: idle ${((await residentBytes(pid)) / MiB).toFixed(0)} MiB resident, `)
    process.stderr.write(`${((await daemon.workingSetBytes()) / MiB).toFixed(0)} MiB working set\n`)
    for (const container of daemons) {
      expect(await container.stop()).toBe(0)
      expect(await container.log()).toMatch(/"msg":"stopped"}\n$/)
    }
    const startsMs: number[] = []
    for (let i = 0; i < starts; i++) {
      const again = await startRegistry(cluster.node(1))
      await ready(cluster.node(1))
      startsMs.push(await listensAfterMs(again))
      await again.stop()
    }
    process.stderr.write(`${containerd}: listens so many ms after its start: ${startsMs.join(', ')}\n`)
  })

  it('goes on when containerd makes its socket anew', async () => {
    const node = cluster.node(1)
    expect(await (await prepare(node)).ended()).toBe(0)
    const daemon = await startRegistry(node)
    await ready(node)
    const pid = await daemon.pid()
    await node.stopContainerd()
    await eventually(async () => expect(await readyz(node)).toBe(503))
    await node.startContainerd()
    await ready(node)
    expect(await daemon.pid()).toBe(pid)
  })

  it('says in one line that it may not use the socket, outside of its group', async () => {
    const daemon = await startRegistry(cluster.node(1), { uid: 65_532, gid: 65_532 })
    expect(await daemon.ended()).toBe(1)
    expect(await daemon.log()).toMatch(/^spegel-ts: --containerd-sock: \S+: .*EACCES.*run as its user or group$/m)
  })

  it('says in one line that its folder is not its own', async () => {
    const node = cluster.node(2)
    await rm(dataDir(node), { recursive: true, force: true })
    const daemon = await startRegistry(node)
    expect(await daemon.ended()).toBe(1)
    expect(await daemon.log()).toMatch(/^spegel-ts: --data-dir: \S+: EACCES.*spegel-ts prepare/m)
  })

  it('reads a content store that is closed to all but root as root without capabilities, else by the socket', async () => {
    const node = cluster.node(1)
    await chmod(node.contentPath, 0o700)
    try {
      for (const [user, warnings] of [
        [
          nobody,
          [
            'flights are off: they need the content folder',
            expect.stringMatching(/^the content folder cannot be read/),
          ],
        ],
        [root, []],
      ] as const) {
        expect(await (await prepare(node, user)).ended()).toBe(0)
        const daemon = await startRegistry(node, user)
        await ready(node)
        const lines = (await daemon.log()).split('\n').filter((line) => line.includes('"level":"WARN"'))
        expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg).sort()).toEqual(warnings)
        expect(await daemon.stop()).toBe(0)
      }
    } finally {
      await chmod(node.contentPath, 0o755)
    }
  })

  it('restores files of other users with their owners, modes and times, and has no capability too many for that', async () => {
    const node = cluster.node(2)
    expect(await (await cleanUp(node)).exitCode()).toBe(0)
    const own = join(node.certsFolder, 'own.test:5000')
    await mkdir(own)
    await writeFile(join(own, 'hosts.toml'), 'server = "http://own.test:5000"\n[host."http://own.test:5000"]\n')
    await chown(join(own, 'hosts.toml'), 1000, 1000)
    await chmod(join(own, 'hosts.toml'), 0o600)
    await chown(own, 1000, 1000)
    await chmod(own, 0o700)
    await utimes(own, 1_000, 1_000)
    const before = await listing(node.certsFolder)

    for (const missing of configurationCapabilities) {
      const attempt = await configure(
        node,
        configurationCapabilities.filter((name) => name !== missing),
      )
      expect(await attempt.ended(), missing).toBe(1)
      expect(await attempt.log()).toMatch(/run as root, and mount it writable$/m)
    }
    expect(await (await configure(node)).ended()).toBe(0)
    expect(await listing(node.certsFolder)).not.toEqual(before)
    expect(await (await cleanUp(node)).exitCode()).toBe(0)
    expect(await listing(node.certsFolder)).toEqual(before)
  })

  /** Runs the clean-up until it says that it is done. */
  async function cleanUp(node: ContainerdNode): Promise<{ exitCode: () => Promise<number> }> {
    const container = await start(node, {
      ...root,
      capabilities: configurationCapabilities,
      args: ['cleanup', '--addr=127.0.0.1:8080', `--containerd-registry-config-path=${node.certsFolder}`],
      mounts: [{ path: node.certsFolder, writable: true }],
    })
    await eventually(async () => expect(await statusFrom(node.host, 8080, '/readyz')).toBe(200))
    return { exitCode: () => container.stop() }
  }
})

/** To the line that it writes when it listens. */
async function listensAfterMs(container: Container): Promise<number> {
  const line = (await container.log()).split('\n').find((text) => text.includes('"msg":"started"')) ?? '{}'
  return new Date((JSON.parse(line) as { time: string }).time).getTime() - container.startedMs
}

async function residentBytes(pid: number): Promise<number> {
  return Number(/^VmRSS:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}

/** All that is below a folder: names, kinds, modes, owners, times and contents. */
async function listing(folder: string): Promise<string[]> {
  const lines: string[] = []
  for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    const stats = await stat(join(folder, path))
    const content = stats.isFile() ? await readFile(join(folder, path), 'utf8') : ''
    lines.push(`${path} ${stats.mode.toString(8)} ${stats.uid}:${stats.gid} ${stats.mtimeMs} ${content}`)
  }
  return lines
}

/** The groups that runc made for our containers: empty by now. */
async function removeControlGroups(): Promise<void> {
  for (const controller of readdirSync('/sys/fs/cgroup')) {
    await rmdir(join('/sys/fs/cgroup', controller, `spegel-ts-test-${process.pid}`)).catch(() => undefined)
  }
}
