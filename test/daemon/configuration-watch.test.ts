/** A whole daemon notices that containerd no longer reaches it, within a minute by its own clock. */
import { execFile } from 'node:child_process'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { type Server, type Socket, createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Authority } from '../support/authority.ts'
import { DaemonGroup, type TestDaemon } from '../support/daemons.ts'
import { ManualClock } from '../support/manual-clock.ts'

const run = promisify(execFile)
const spegel = fileURLToPath(new URL('../../bin/spegel-ts', import.meta.url))
const withinMs = 60_000
/** Real time for the files and connections of a check while the daemon's own clock moves by a second. */
const stepMs = 50

describe('a daemon whose containerd is configured by hosts.toml', () => {
  let group: DaemonGroup
  let clock: ManualClock
  let hostsFolder: string
  let foreign: Server | undefined
  const sockets = new Set<Socket>()

  beforeEach(async () => {
    group = new DaemonGroup()
    clock = new ManualClock()
    hostsFolder = join(await group.folder(), 'certs.d')
  })
  afterEach(async () => {
    await group.close()
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => (foreign === undefined ? resolve(undefined) : foreign.close(resolve)))
    foreign = undefined
  })

  const lead = async (registry: string, url: string) => {
    await mkdir(join(hostsFolder, registry), { recursive: true })
    await writeFile(join(hostsFolder, registry, 'hosts.toml'), `[host.'${url}']\ncapabilities = ['pull']\n`)
  }
  const takePort = (host: string, onConnection: (socket: Socket) => void) => {
    foreign = createServer((socket) => {
      sockets.add(socket.on('error', () => {}))
      onConnection(socket)
    })
    return new Promise<void>((resolve) => foreign?.listen({ host, port: 5000 }, resolve))
  }
  const readyz = async (url: string) => {
    const response = await fetch(`${url}/readyz`)
    return { status: response.status, ...((await response.json()) as { ready: boolean; warnings?: string[] }) }
  }
  const problems = async ({ metricsUrl }: TestDaemon) => {
    const text = await (await fetch(`${metricsUrl}/metrics`)).text()
    const values = [...text.matchAll(/^spegel_ts_configuration_problems\{reason="(\w+)"\} (\d+)$/gm)]
    return Object.fromEntries(values.map(([, reason, value]) => [reason, Number(value)]))
  }
  const warned = ({ lines }: TestDaemon) => lines.filter(({ level }) => level === 'WARN')
  /** Moves the daemon's clock by as much, with real time for the checks in between. */
  const pass = async (byMs: number) => {
    for (let passedMs = 0; passedMs < byMs; passedMs += 1_000) {
      clock.advance(1_000)
      await new Promise((resolve) => setTimeout(resolve, stepMs))
    }
  }
  /** Moves the daemon's clock until the condition holds, a minute at most. */
  const within = async (condition: () => boolean) => {
    for (let passedMs = 0; passedMs < withinMs && !condition(); passedMs += 1_000) await pass(1_000)
    expect(condition()).toBe(true)
  }
  const none = {
    missing: 0,
    invalid_file: 0,
    unreadable: 0,
    mirror_not_first: 0,
    foreign_listener: 0,
    no_response: 0,
    unreachable: 0,
  }

  it('has nothing to report while its own address is the first host', async () => {
    await lead('_default', `http://${group.address(1)}:5000`)
    const daemon = await group.start({ hostsFolder }, clock)
    await pass(withinMs)
    expect(warned(daemon)).toEqual([])
    expect(await readyz(daemon.url)).toEqual({ status: 200, ready: true, reasons: [] })
    expect(await problems(daemon)).toEqual(none)
  })

  it('has nothing to report about what configuration wrote over the files of a user', async () => {
    const url = `http://${group.address(1)}:5000`
    await lead('docker.io', 'https://cache.example')
    await lead('reg.example_8443_', 'https://reg.example:8443')
    await mkdir(join(hostsFolder, 'certificates.example'))
    const authority = await Authority.create(join(await group.folder(), 'authority'))
    await copyFile(authority.certificate, join(hostsFolder, 'certificates.example/ca.crt'))
    await run(spegel, ['configuration', `--containerd-registry-config-path=${hostsFolder}`, '--mirror-targets', url])
    const daemon = await group.start({ hostsFolder, mirrorTargets: [url] }, clock)
    await pass(withinMs)
    expect(warned(daemon)).toEqual([])
    // As a distribution does that writes its own files when it starts.
    await lead('reg.example_8443_', 'https://reg.example:8443')
    await within(() => warned(daemon).length > 0)
    expect((await readyz(daemon.url)).warnings).toEqual([expect.stringMatching(/ reg\.example:8443: /)])
  })

  it('reports that a file was rewritten, stays ready, and reports when it is right again', async () => {
    await lead('_default', `http://${group.address(1)}:5000`)
    const daemon = await group.start({ hostsFolder }, clock)
    await lead('docker.io', 'https://cache.example')
    await within(() => warned(daemon).length > 0)
    const message = expect.stringMatching(
      /docker\.io\/hosts\.toml: the first host is https:\/\/cache\.example, not this mirror: run spegel-ts configuration/,
    )
    expect(warned(daemon)).toMatchObject([{ count: 1, problems: [message] }])
    for (const url of [daemon.url, daemon.metricsUrl]) {
      expect(await readyz(url)).toMatchObject({ status: 200, ready: true, warnings: [message] })
    }
    expect(await problems(daemon)).toEqual({ ...none, mirror_not_first: 1 })
    await lead('docker.io', `http://${group.address(1)}:5000`)
    await within(() => daemon.lines.some(({ msg }) => msg === 'containerd reaches this mirror again'))
    expect(await readyz(daemon.url)).toEqual({ status: 200, ready: true, reasons: [] })
    expect(await problems(daemon)).toEqual(none)
  })

  it('leaves out a registry that a filter excludes', async () => {
    await lead('_default', `http://${group.address(1)}:5000`)
    await lead('internal.example', 'https://internal.example')
    const daemon = await group.start({ hostsFolder, registryFilters: [/^internal\.example\//] }, clock)
    await pass(withinMs)
    expect(warned(daemon)).toEqual([])
  })

  // The daemon listens on one address of the machine, and containerd is sent to another one with the same port.
  it('reports a program that answers at the address in hosts.toml', async () => {
    await lead('_default', `http://${group.address(50)}:5000`)
    await takePort(group.address(50), (socket) => {
      socket.end('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
    })
    const daemon = await group.start({ hostsFolder }, clock)
    await within(() => warned(daemon).length > 0)
    expect((await readyz(daemon.url)).warnings).toEqual([
      expect.stringMatching(/:5000: it answers \/livez with status 404, and is not this mirror: stop the program/),
    ])
    expect(await problems(daemon)).toEqual({ ...none, foreign_listener: 1 })
  })

  it('reports a program that accepts connections at the address in hosts.toml and never answers', async () => {
    await lead('_default', `http://${group.address(50)}:5000`)
    await takePort(group.address(50), () => {})
    const daemon = await group.start({ hostsFolder }, clock)
    await within(() => warned(daemon).length > 0)
    expect((await readyz(daemon.url)).warnings).toEqual([expect.stringMatching(/no response within 3000 ms/)])
    expect(await problems(daemon)).toEqual({ ...none, no_response: 1 })
  })

  it('reports another spegel-ts daemon at the address in hosts.toml', async () => {
    await lead('_default', `http://${group.address(2)}:5000`)
    const daemon = await group.start({ hostsFolder }, clock)
    await group.start()
    await within(() => warned(daemon).length > 0)
    expect(await problems(daemon)).toEqual({ ...none, foreign_listener: 1 })
  })
})
