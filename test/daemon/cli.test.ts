import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { writeImage } from '../../src/images/image.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'

const spegel = join(import.meta.dirname, '../../bin/spegel-ts')

interface Ended {
  code: number | null
  stdout: string
  stderr: string
}

function start(args: readonly string[], options: { cwd?: string; env?: NodeJS.ProcessEnv; program?: string } = {}) {
  const child = spawn(options.program ?? spegel, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (data: Buffer) => (output.stdout += data.toString()))
  child.stderr.on('data', (data: Buffer) => (output.stderr += data.toString()))
  const ended = once(child, 'close').then((): Ended => ({ code: child.exitCode, ...output }))
  return { child, output, ended }
}

describe('the command line', () => {
  let folder = ''
  let group: DaemonGroup
  const children: ChildProcess[] = []

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cli-'))
    group = new DaemonGroup()
  })
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    await rm(folder, { recursive: true, force: true })
  })

  it('works from any folder and through a link, with the Node of the checkout', async () => {
    await symlink(spegel, join(folder, 'link'))
    const { code, stdout } = await start(['version', '--format=json'], { cwd: folder, program: join(folder, 'link') })
      .ended
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      node: expect.stringMatching(/^v24\./),
    })
  })

  it.each([
    [['registry', '--no-such-flag'], 2, /unknown option '--no-such-flag'.*see spegel-ts registry --help/],
    [['nonsense'], 2, /"nonsense" is not a command: choose one of registry, configuration/],
    [[], 2, /no command/],
    [['registry', 'extra', '--static-bootstrap-peers', '127.0.0.1:5001'], 2, /too many arguments/],
    [['registry'], 2, /how to find a first peer/],
    [['registry', '--bootstrap-kind', 'dns'], 2, /--bootstrap-kind dns needs --dns-bootstrap-domain/],
    [['registry', '--bootstrap-kind', 'magic'], 2, /"magic" is not one of dns, http, kubernetes, static/],
    [
      ['registry', '--bootstrap-kind', 'kubernetes'],
      2,
      /--bootstrap-kind kubernetes needs --kubernetes-bootstrap-service/,
    ],
    [['registry', '--kubernetes-bootstrap-service', 'a/b'], 2, /"a\/b" is not the name of a Service/],
    [
      ['registry', '--kubernetes-bootstrap-service', 'mirror', '--kubernetes-service-host', ''],
      2,
      /--kubernetes-bootstrap-service needs --kubernetes-service-host outside of a pod/,
    ],
    [['registry', '--http-bootstrap-url', 'nope'], 2, /--http-bootstrap-url: "nope" is not a URL/],
    [
      ['registry', '--mirror-resolve-timeout', '20'],
      2,
      /"20" is not a duration: write a number with a unit, such as 20ms/,
    ],
    [['registry', '--registry-filters', '('], 2, /--registry-filters: "\(" is not a regular expression/],
    [['registry', '--static-bootstrap-peers', 'x'], 2, /--static-bootstrap-peers: "x" is not a peer/],
    [
      ['registry', '--static-bootstrap-peers', '127.0.0.1:5001', '10.0.0.1:99999'],
      2,
      /--static-bootstrap-peers: "10\.0\.0\.1:99999" has the port "99999": a port is a number from 1 to 65535: write IP:PORT/,
    ],
    [
      ['registry', '--static-bootstrap-peers', '127.0.0.1:1', '--containerd-sock', '/none'],
      1,
      /--containerd-sock: \/none: ENOENT.*start containerd/,
    ],
    [
      ['registry', '--static-bootstrap-peers', '127.0.0.1:1', '--oci-layout', '/none'],
      1,
      /--oci-layout: \/none is not a folder/,
    ],
    [['configuration'], 2, /--mirror-targets: name at least one URL/],
    [['configuration', '--mirror-targets', 'x'], 2, /--mirror-targets: "x" is not a URL/],
    [['prepare', '--owner', '1:1'], 2, /--data-dir is required/],
    [['prepare', '--data-dir', '/tmp', '--owner', 'nobody'], 2, /--owner: "nobody" is not an owner: write UID:GID/],
    [['prepare', '--data-dir', '/dev/null', '--owner', '1:1'], 1, /--data-dir: \/dev\/null: EEXIST/],
    [['cleanup'], 2, /--addr is required/],
    [['cleanup-wait', '--probe-endpoint', ':80'], 2, /has no host/],
    [['cleanup-wait'], 2, /give either --probe-endpoint or --daemonset/],
    [['cleanup-wait', '--probe-endpoint', 'a:1', '--daemonset', 'a/b'], 2, /give either/],
    [['cleanup-wait', '--daemonset', 'b'], 2, /--daemonset: "b" is not a DaemonSet: write NAMESPACE\/NAME/],
    [
      ['cleanup-wait', '--daemonset', 'a/b', '--kubernetes-service-host', ''],
      2,
      /--daemonset needs --kubernetes-service-host outside of a pod/,
    ],
  ] as const)('answers %j with exit code %i and one line', async (args, code, message) => {
    const ended = await start(args).ended
    expect(ended.stderr).toMatch(message)
    expect(
      ended.stderr
        .trim()
        .split('\n')
        .filter((line) => !line.startsWith('{')),
    ).toHaveLength(1)
    expect(ended.code).toBe(code)
  })

  it('lists options with their environment names and defaults', async () => {
    const { code, stdout } = await start(['registry', '--help']).ended
    expect(code).toBe(0)
    expect(stdout.replaceAll(/\s+/g, ' ')).toMatch(
      /--registry-addr <addr> .{20,150}\(default :5000, env REGISTRY_ADDR\)/,
    )
    expect((await start(['--help']).ended).stdout).toMatch(/cleanup-wait/)
  })

  const daemonArgs = (...more: string[]) => [
    'registry',
    '--oci-layout',
    folder,
    '--registry-addr',
    `${group.address(1)}:5000`,
    '--router-addr',
    `${group.address(1)}:5001`,
    '--metrics-addr',
    `${group.address(1)}:9090`,
    '--bootstrap-kind=static',
    ...more,
  ]

  async function startDaemon(args: readonly string[] = daemonArgs(), env: NodeJS.ProcessEnv = {}) {
    const started = start(args, { env })
    children.push(started.child)
    await eventually(async () => expect((await fetch(`http://${group.address(1)}:5000/readyz`)).status).toBe(200))
    return started
  }

  it('takes everything from the environment as well, lists with commas, and --log-level before the command', async () => {
    const { child, ended } = await startDaemon(['--log-level', 'WARN', 'registry'], {
      OCI_LAYOUT: folder,
      REGISTRY_ADDR: `${group.address(1)}:5000`,
      ROUTER_ADDR: `${group.address(1)}:5001`,
      METRICS_ADDR: `${group.address(1)}:9090`,
      STATIC_BOOTSTRAP_PEERS: `${group.address(1)}:5001,/ip4/${group.address(1)}/tcp/5001`,
      DEBUG_WEB_ENABLED: 'false',
      MIRROR_RESOLVE_TIMEOUT: '20ms',
    })
    child.kill('SIGTERM')
    expect(await ended).toEqual({ code: 0, stdout: '', stderr: '' })
  })

  it('is ready for what a manifest for Spegel passes', async () => {
    const { child, ended } = await startDaemon(
      daemonArgs(
        '--log-level=INFO',
        '--mirror-resolve-retries=3',
        '--mirror-resolve-timeout=20ms',
        '--debug-web-enabled=true',
        '--containerd-sock=/run/containerd/containerd.sock',
        '--containerd-namespace=k8s.io',
        '--containerd-content-path=/var/lib/containerd/io.containerd.content.v1.content',
        '--mirrored-registries',
        'https://docker.io',
        'https://ghcr.io',
        '--registry-filters',
        ':latest$',
        '^ghcr.io/private',
        '--http-bootstrap-peer=',
      ),
    )
    child.kill('SIGINT')
    expect((await ended).code).toBe(0)
  })

  it('lets a running transfer end within the grace time after SIGTERM, and exits 0', async () => {
    const { body, child, ended } = await slowTransfer()
    child.kill('SIGTERM')
    await eventually(() => expect(refused()).resolves.toBe(true))
    body.socket.resume()
    await once(body.socket, 'end')
    expect(body.receivedBytes()).toBeGreaterThan(body.size)
    expect((await ended).code).toBe(0)
  })

  it('ends a transfer that does not end within the grace time, and exits 0', async () => {
    const { child, ended, body } = await slowTransfer('--shutdown-grace=200ms')
    child.kill('SIGTERM')
    body.socket.resume()
    body.socket.pause()
    expect((await ended).code).toBe(0)
  })

  it('ends at once on a second signal', async () => {
    const { child, ended } = await slowTransfer()
    child.kill('SIGTERM')
    await eventually(() => expect(refused()).resolves.toBe(true))
    child.kill('SIGTERM')
    expect((await ended).code).toBe(1)
  })

  /** True when nobody listens any more. */
  function refused(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(5000, group.address(1))
      socket.on('connect', () => {
        socket.destroy()
        resolve(false)
      })
      socket.on('error', () => resolve(true))
    })
  }

  /** A daemon with one transfer that its client does not read. */
  async function slowTransfer(...options: string[]) {
    const image = await writeImage(folder, {
      name: 'reg.test/a:v1',
      sizeBytes: 64 * 1024 * 1024,
      layers: 1,
      seed: 'slow',
    })
    const { child, ended } = await startDaemon(daemonArgs(...options))
    const [layer] = image.layers
    const socket = connect(5000, group.address(1))
    let receivedBytes = 0
    socket.on('data', (data) => (receivedBytes += data.length))
    socket.on('error', () => undefined)
    socket.write(`GET /v2/a/blobs/${layer?.digest} HTTP/1.1\r\nhost: x\r\n\r\n`)
    await once(socket, 'data')
    socket.pause()
    return { child, ended, body: { socket, size: layer?.size ?? 0, receivedBytes: () => receivedBytes } }
  }
})

describe('the build', () => {
  it('runs from one folder without node_modules beside it', async () => {
    const root = join(import.meta.dirname, '../..')
    const folder = await mkdtemp(join(tmpdir(), 'build-'))
    const group = new DaemonGroup()
    try {
      expect((await start([join(root, 'build.ts')], { program: process.execPath }).ended).code).toBe(0)
      await cp(join(root, 'dist'), join(folder, 'dist'), { recursive: true })
      await mkdir(join(folder, 'layout'))
      const image = await writeImage(join(folder, 'layout'), {
        name: 'reg.test/a:v1',
        sizeBytes: 1_000,
        layers: 1,
        seed: 'x',
      })
      const address = group.address(1)
      const { child, ended } = start(
        [
          join(folder, 'dist/spegel-ts.mjs'),
          'registry',
          `--oci-layout=${join(folder, 'layout')}`,
          `--registry-addr=${address}:5000`,
          `--router-addr=${address}:5001`,
          `--metrics-addr=${address}:9090`,
          '--bootstrap-kind=static',
        ],
        { program: process.execPath, cwd: folder },
      )
      await eventually(async () => {
        const response = await fetch(`http://${address}:5000/v2/a/blobs/${image.config.digest}`)
        expect(response.status).toBe(200)
      })
      child.kill('SIGTERM')
      expect(await ended).toMatchObject({ code: 0, stdout: '' })
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
