/** What the daemon notices of certs.d and of its own address, with real directories and real listeners. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { type Server as HttpServer, createServer as createHttpServer } from 'node:http'
import { type AddressInfo, type Server, type Socket, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  ConfigurationWatch,
  type ProblemReason,
  type WatchConfig,
  problemReasons,
} from '../../../src/hosts/configuration-watch.ts'
import { instanceHeader } from '../../../src/lib/instance-header.ts'
import { createLogger } from '../../../src/logger.ts'
import { ManualClock } from '../../support/manual-clock.ts'

/** The watch is not stopped. */
const never = new AbortController().signal
const hourMs = 3_600_000
/** What this process would send. */
const instance = 'instance-of-this-process'

let root: string
let directory: string
let clock: ManualClock
let lines: Record<string, unknown>[]
let counts: Readonly<Record<ProblemReason, number>>
let port: number
let listeners: (Server | HttpServer)[]

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'configuration-watch-'))
  directory = join(root, 'certs.d')
  mkdirSync(directory)
  clock = new ManualClock()
  lines = []
  listeners = []
  port = await listen(daemonOf(instance))
})
afterEach(async () => {
  await Promise.all(listeners.map((server) => stop(server)))
  rmSync(root, { recursive: true })
})

function daemonOf(value: string | undefined, status = 200): HttpServer {
  return createHttpServer((_request, response) => {
    response.writeHead(status, value === undefined ? {} : { [instanceHeader]: value }).end()
  })
}

function listen(server: Server | HttpServer, host = '127.0.0.1', at = 0): Promise<number> {
  listeners.push(server)
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port: at, host }, () => resolve((server.address() as AddressInfo).port))
  })
}

function stop(server: Server | HttpServer): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    if ('closeAllConnections' in server) server.closeAllConnections()
  })
}

const mirror = () => `http://127.0.0.1:${port}`
const led = (target = mirror()) => `[host.'${target}']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'\n`

function write(name: string, text: string): void {
  mkdirSync(join(directory, name), { recursive: true })
  writeFileSync(join(directory, name, 'hosts.toml'), text)
}

function watchOf(change: Partial<WatchConfig> = {}): ConfigurationWatch {
  const logger = createLogger('DEBUG', { write: (line) => void lines.push(JSON.parse(line) as (typeof lines)[0]) })
  return new ConfigurationWatch(
    {
      directory,
      registries: [],
      isExcluded: () => false,
      targets: [],
      listen: { host: '', port },
      instance,
      ...change,
    },
    { clock, random: () => 0, logger, onCount: (all) => void (counts = all) },
  )
}

/** Two checks: a problem is reported when both find it. */
async function checkTwice(watch: ConfigurationWatch): Promise<string[]> {
  await watch.check(never)
  await watch.check(never)
  return watch.warnings()
}

const reasons = () => problemReasons.filter((reason) => counts[reason] > 0)
const warned = () => lines.filter(({ level }) => level === 'WARN')

describe('certs.d', () => {
  beforeEach(() => {
    write('_default', led())
    write('docker.io', `server = 'https://registry-1.docker.io'\n\n${led()}`)
  })

  it('is right while each registry leads to the mirror', async () => {
    const watch = watchOf()
    expect(await checkTwice(watch)).toEqual([])
    expect(reasons()).toEqual([])
    expect(lines).toEqual([])
  })

  const rewritten = "server = 'https://registry-1.docker.io'\n[host.'https://cache.example']\n"
  const changes: [string, () => void, ProblemReason, RegExp][] = [
    [
      'a file is rewritten',
      () => write('docker.io', rewritten),
      'mirror_not_first',
      /docker\.io\/hosts\.toml: the first host is https:\/\/cache\.example/,
    ],
    [
      'the mirror comes second',
      () => write('docker.io', `[host.'https://cache.example']\n${led()}`),
      'mirror_not_first',
      /the first host is https:\/\/cache/,
    ],
    [
      "a second tool's address comes first",
      () => write('_default', `${led('http://127.0.0.1:1')}${led()}`),
      'mirror_not_first',
      /_default\/hosts\.toml: the first host is http:\/\/127\.0\.0\.1:1,/,
    ],
    [
      'the mirror may only be pushed to',
      () => write('docker.io', led().replace("['pull', 'resolve']", "['push']")),
      'mirror_not_first',
      /no host to pull from/,
    ],
    [
      'the mirror is addressed by TLS',
      () => write('docker.io', led(mirror().replace('http', 'https'))),
      'mirror_not_first',
      /the first host is https/,
    ],
    [
      'the mirror is addressed below a path',
      () => write('docker.io', led(`${mirror()}/cache`)),
      'mirror_not_first',
      /the first host is http/,
    ],
    [
      'the hosts are removed from a file',
      () => write('docker.io', "server = 'https://registry-1.docker.io'\n"),
      'mirror_not_first',
      /names no host/,
    ],
    [
      'a file is removed',
      () => rmSync(join(directory, 'docker.io/hosts.toml')),
      'missing',
      /docker\.io\/hosts\.toml: the file does not exist/,
    ],
    ['a file is emptied', () => write('docker.io', ''), 'missing', /the file is empty/],
    [
      '_default is removed',
      () => rmSync(join(directory, '_default'), { recursive: true }),
      'missing',
      /_default\/hosts\.toml: the directory does not exist/,
    ],
    [
      'the file in _default is removed',
      () => rmSync(join(directory, '_default/hosts.toml')),
      'missing',
      /_default\/hosts\.toml: the file does not exist/,
    ],
    [
      'a directory is added by hand',
      () => write('ghcr.io', rewritten),
      'mirror_not_first',
      /ghcr\.io: .*ghcr\.io\/hosts\.toml/,
    ],
    [
      'an empty directory is added',
      () => mkdirSync(join(directory, 'quay.io')),
      'missing',
      /quay\.io\/hosts\.toml: the file does not exist/,
    ],
    [
      'a directory with a port is added',
      () => write('reg.example_5000_', rewritten),
      'mirror_not_first',
      /reg\.example:5000: .*reg\.example_5000_/,
    ],
    [
      'a linked directory is added',
      () => {
        write('../elsewhere', rewritten)
        symlinkSync(join(directory, '../elsewhere'), join(directory, 'ghcr.io'))
      },
      'mirror_not_first',
      /ghcr\.io/,
    ],
    ['a file is no TOML', () => write('docker.io', 'server = '), 'invalid_file', /containerd cannot decode the file/],
    [
      'a host is no table',
      () => write('docker.io', '[host]\nskip_verify = true\n'),
      'invalid_file',
      /host\.skip_verify is no table/,
    ],
    ['the hosts are a list', () => write('docker.io', '[[host]]\n'), 'invalid_file', /host is no table/],
    [
      'a file is a named pipe',
      () => {
        rmSync(join(directory, 'docker.io/hosts.toml'))
        execFileSync('mkfifo', [join(directory, 'docker.io/hosts.toml')])
      },
      'unreadable',
      /not a regular file/,
    ],
    [
      'a file links to itself',
      () => {
        rmSync(join(directory, 'docker.io/hosts.toml'))
        symlinkSync('hosts.toml', join(directory, 'docker.io/hosts.toml'))
      },
      'unreadable',
      /ELOOP/,
    ],
  ]
  it.each(changes)('is reported when %s', async (_what, change, reason, message) => {
    const watch = watchOf()
    await watch.check(never)
    change()
    expect(await checkTwice(watch)).toEqual([expect.stringMatching(message)])
    expect(reasons()).toEqual([reason])
    expect(warned()).toHaveLength(1)
    if (reason !== 'unreadable') expect(JSON.stringify(warned())).toContain('spegel-ts configuration')
  })

  // As containerd's own loader decides, for 1.6 to 2.3.
  it.each<[string, string, ProblemReason | undefined]>([
    ['the API path', led('TARGET/v2'), undefined],
    ['capabilities in capitals', led('TARGET').replace("'pull'", "'PULL'"), undefined],
    ['an empty list of capabilities', "[host.'TARGET']\ncapabilities = []\n", undefined],
    ['unknown settings', `${led('TARGET')}unknown = 1\n[other]\n`, undefined],
    ['headers', `${led('TARGET')}[host.'TARGET'.header]\na = ['b']\n`, undefined],
    ['line ends of Windows', led('TARGET').replaceAll('\n', '\r\n'), undefined],
    ['an indented table with double quotes', '  [host."TARGET"]\n', undefined],
    [
      'a host to push to in front',
      `[host.'https://a.example']\ncapabilities = ['push']\n${led('TARGET')}`,
      undefined,
    ],
    ['a slash at the end of the host', led('TARGET/'), 'mirror_not_first'],
    ['a scheme in capitals', led('TARGET').replace('TARGET', 'HTTP_TARGET'), 'mirror_not_first'],
    ['no scheme', led('BARE_TARGET'), 'mirror_not_first'],
    ['another API path', `${led('TARGET')}override_path = true\n`, 'mirror_not_first'],
    ['an inline table', "host = { 'TARGET' = {} }\n", 'mirror_not_first'],
    ['dotted keys', "host.'TARGET'.capabilities = ['pull']\n", 'mirror_not_first'],
    ['a byte order mark', `\uFEFF${led('TARGET')}`, 'invalid_file'],
    ['a host twice', led('TARGET') + led('TARGET'), 'invalid_file'],
    ['an unknown capability', led('TARGET').replace("'pull'", "'pul'"), 'invalid_file'],
    ['a switch of the wrong type', `${led('TARGET')}skip_verify = 'yes'\n`, 'invalid_file'],
    ['a server of the wrong type', `server = 1\n${led('TARGET')}`, 'invalid_file'],
    ['a certificate of the wrong type', `${led('TARGET')}ca = 1\n`, 'invalid_file'],
    ['a header of the wrong type', `${led('TARGET')}[host.'TARGET'.header]\na = 1\n`, 'invalid_file'],
    ['a timeout without a unit', led('TARGET').replace('200ms', '200'), 'invalid_file'],
  ])('is judged as containerd reads a file with %s', async (_what, text, reason) => {
    const watch = watchOf()
    await watch.check(never)
    const bare = mirror().replace('http://', '')
    const written = text.replace('HTTP_TARGET', `HTTP://${bare}`).replace('BARE_TARGET', bare)
    write('docker.io', written.replaceAll('TARGET', mirror()))
    await checkTwice(watch)
    expect(reasons()).toEqual(reason === undefined ? [] : [reason])
  })

  it('is reported for each registry when all of it is removed', async () => {
    const watch = watchOf()
    await watch.check(never)
    rmSync(directory, { recursive: true })
    expect(await checkTwice(watch)).toEqual([expect.stringMatching(/_default/), expect.stringMatching(/docker\.io/)])
    expect(counts.missing).toBe(2)
  })

  it('leads a registry without a directory by _default', async () => {
    const watch = watchOf({ registries: ['docker.io', 'ghcr.io'] })
    await watch.check(never)
    rmSync(join(directory, 'docker.io'), { recursive: true })
    expect(await checkTwice(watch)).toEqual([])
  })

  it('is checked for the named registries only', async () => {
    write('ghcr.io', rewritten)
    write('docker.io', rewritten)
    const watch = watchOf({ registries: ['docker.io', 'quay.io'] })
    expect(await checkTwice(watch)).toEqual([expect.stringMatching(/docker\.io/)])
  })

  it('may leave out a registry that the operator excludes', async () => {
    write('ghcr.io', rewritten)
    const watch = watchOf({ isExcluded: (registry) => registry === 'ghcr.io' })
    expect(await checkTwice(watch)).toEqual([])
  })

  it('may have files, backups and unfinished files next to the registries', async () => {
    write('_backup', rewritten)
    write('_backup.partial', rewritten)
    writeFileSync(join(directory, 'README'), '')
    writeFileSync(join(directory, '.hosts.toml.1.tmp'), '')
    symlinkSync('nowhere', join(directory, 'ghcr.io'))
    expect(await checkTwice(watchOf())).toEqual([])
  })

  it('is not reported for what a single check finds', async () => {
    const watch = watchOf()
    await watch.check(never)
    renameSync(join(directory, 'docker.io'), join(directory, '_away'))
    mkdirSync(join(directory, 'docker.io'))
    await watch.check(never)
    rmSync(join(directory, 'docker.io'), { recursive: true })
    renameSync(join(directory, '_away'), join(directory, 'docker.io'))
    expect(await checkTwice(watch)).toEqual([])
    expect(lines).toEqual([])
  })

  it('is reported once, each hour again, and when it is right again', async () => {
    const watch = watchOf()
    write('docker.io', rewritten)
    await checkTwice(watch)
    clock.advance(hourMs - 1)
    await checkTwice(watch)
    expect(warned()).toHaveLength(1)
    clock.advance(1)
    await checkTwice(watch)
    expect(warned()).toHaveLength(2)
    write('docker.io', led())
    expect(await checkTwice(watch)).toEqual([])
    expect(lines.map(({ msg }) => msg)).toEqual([
      'containerd does not reach this mirror for all registries',
      'containerd does not reach this mirror for all registries',
      'containerd reaches this mirror again',
    ])
    expect(reasons()).toEqual([])
  })

  it('lists a bounded number of problems', async () => {
    for (let number = 0; number < 30; number++) write(`r${number}.example`, rewritten)
    const warnings = await checkTwice(watchOf())
    expect(warnings).toHaveLength(21)
    expect(warnings.at(-1)).toBe('configuration: 10 more')
    expect(counts.mirror_not_first).toBe(30)
  })
})

describe('a directory that the daemon may not read', () => {
  // Root may read everything, so the process becomes another user for the check.
  const asNobody = async (action: () => Promise<void>) => {
    process.seteuid?.(65_534)
    try {
      await action()
    } finally {
      process.seteuid?.(0)
    }
  }

  it.skipIf(process.getuid?.() !== 0)('is reported once as not checked', async () => {
    write('_default', led())
    execFileSync('chmod', ['755', root])
    execFileSync('chmod', ['700', directory])
    const watch = watchOf()
    await asNobody(async () => {
      expect(await checkTwice(watch)).toEqual([expect.stringMatching(/cannot be checked: EACCES/)])
      clock.advance(2 * hourMs)
      await checkTwice(watch)
    })
    expect(reasons()).toEqual(['unreadable'])
    expect(warned()).toHaveLength(1)
  })

  it.skipIf(process.getuid?.() !== 0)('is reported for a single file too', async () => {
    write('_default', led())
    write('docker.io', led())
    execFileSync('chmod', ['755', root, directory])
    execFileSync('chmod', ['600', join(directory, 'docker.io/hosts.toml')])
    const watch = watchOf()
    await asNobody(async () => {
      expect(await checkTwice(watch)).toEqual([
        expect.stringMatching(/docker\.io\/hosts\.toml: it cannot be checked/),
      ])
    })
  })
})

describe('a directory that was never configured for the mirror', () => {
  it.each<[string, () => void]>([
    ['does not exist', () => rmSync(directory, { recursive: true })],
    ['is empty', () => {}],
    ["has a user's files", () => write('docker.io', "[host.'https://cache.example']\n")],
  ])('is left alone when it %s', async (_what, make) => {
    make()
    expect(await checkTwice(watchOf())).toEqual([])
    expect(await checkTwice(watchOf({ registries: ['docker.io'] }))).toEqual([])
    expect(lines).toEqual([])
  })

  it('is reported when the operator named the targets', async () => {
    const watch = watchOf({ targets: [mirror()] })
    expect(await checkTwice(watch)).toEqual([expect.stringMatching(/_default/)])
  })

  it('is reported when configuration has run there, and nothing is left of it', async () => {
    writeFileSync(join(directory, '_marked'), '')
    write('docker.io', "[host.'https://cache.example']\n")
    expect(await checkTwice(watchOf())).toEqual([expect.stringMatching(/_default/)])
  })

  it('is not checked when configuration named another address, which is logged once', async () => {
    writeFileSync(join(directory, '_marked'), '')
    write('_default', `# BEGIN spegel-ts (see _backup)\n${led('http://mirror.invalid:30020')}# END spegel-ts\n`)
    const watch = watchOf()
    expect(await checkTwice(watch)).toEqual([])
    expect(lines.map(({ level, msg }) => [level, msg])).toEqual([['INFO', expect.stringMatching(/--mirror-targets/)]])
    expect(await checkTwice(watchOf({ targets: ['http://mirror.invalid:30020/'] }))).toEqual([])
  })

  it("is reported when a second tool put its address before the mirror's", async () => {
    writeFileSync(join(directory, '_marked'), '')
    write('_default', `[host.'http://127.0.0.1:1']\n# BEGIN spegel-ts (see _backup)\n${led()}# END spegel-ts\n`)
    expect(await checkTwice(watchOf())).toEqual([expect.stringMatching(/the first host is http:\/\/127\.0\.0\.1:1,/)])
  })

  it('may be configured for some registries only', async () => {
    write('docker.io', led())
    write('ghcr.io', "[host.'https://cache.example']\n")
    writeFileSync(join(directory, '_marked'), '')
    expect(await checkTwice(watchOf())).toEqual([])
  })
})

describe('the address of the mirror', () => {
  beforeEach(() => write('_default', led()))
  const takeOver = async (server: Server | HttpServer) => {
    await stop(listeners[0] as Server)
    await listen(server, '127.0.0.1', port)
  }
  /** Checks that wait for a response that does not come. */
  const checkTwiceSilently = async (watch: ConfigurationWatch) => {
    for (let check = 0; check < 2; check++) {
      const done = Promise.withResolvers<boolean>()
      const checked = watch.check(never).finally(() => done.resolve(true))
      const isDone = () =>
        Promise.race([done.promise, new Promise<false>((resolve) => setTimeout(resolve, 10, false))])
      while (!(await isDone())) clock.advance(500)
      await checked
    }
    return watch.warnings()
  }

  it.each<[string, () => Server | HttpServer, ProblemReason, RegExp]>([
    ['a web server', () => daemonOf(undefined), 'foreign_listener', /status 200, and is not this mirror/],
    ['a server without the page', () => daemonOf(undefined, 404), 'foreign_listener', /status 404/],
    ['another daemon', () => daemonOf('another'), 'foreign_listener', /another spegel-ts daemon/],
    [
      'a server of another protocol',
      () => createServer((socket) => void socket.resume().end('SSH-2.0-x\r\n')),
      'foreign_listener',
      /Parse Error/,
    ],
    [
      'a server that closes connections',
      () => createServer((socket) => void socket.resume().end()),
      'no_response',
      /closed without a response/,
    ],
  ])('is reported when %s answers there', async (_what, server, reason, message) => {
    const watch = watchOf()
    await watch.check(never)
    await takeOver(server())
    expect(await checkTwice(watch)).toEqual([expect.stringMatching(message)])
    expect(reasons()).toEqual([reason])
    expect(JSON.stringify(warned())).toContain('spegel-ts configuration')
  })

  it('is reported when a program accepts connections there and never answers', async () => {
    const watch = watchOf()
    const sockets = new Set<{ destroy: () => unknown }>()
    await takeOver(createServer((socket) => void sockets.add(socket.on('error', () => {}))))
    expect(await checkTwiceSilently(watch)).toEqual([expect.stringMatching(/no response within 3000 ms/)])
    for (const socket of sockets) socket.destroy()
  })

  it('is reported when nothing listens there any more', async () => {
    const watch = watchOf()
    await watch.check(never)
    await stop(listeners[0] as Server)
    expect(await checkTwice(watch)).toEqual([expect.stringMatching(/ECONNREFUSED/)])
    expect(reasons()).toEqual(['unreachable'])
  })

  it('is not reported when it was never reachable from here: containerd may be in another network', async () => {
    await stop(listeners[0] as Server)
    expect(await checkTwice(watchOf())).toEqual([])
  })

  it('may be answered by the daemon of another node, or by a proxy that cannot reach it, behind a Service', async () => {
    const service = await listen(daemonOf('another'))
    const proxy = await listen(daemonOf(undefined, 503))
    write('docker.io', led(`http://127.0.0.1:${service}`))
    write('ghcr.io', led(`http://127.0.0.1:${proxy}`))
    const targets = [`http://127.0.0.1:${service}`, `http://127.0.0.1:${proxy}`]
    expect(await checkTwice(watchOf({ targets }))).toEqual([])
  })

  it('is probed where the operator says, also without a directory', async () => {
    rmSync(directory, { recursive: true })
    const foreign = await listen(daemonOf(undefined))
    await checkTwice(watchOf({ targets: [`http://127.0.0.1:${foreign}`] }))
    expect(counts.foreign_listener).toBe(1)
  })
})

describe('the watch', () => {
  it('reports within a minute, checks at random moments, and ends at once', async () => {
    write('_default', led())
    const stopping = new AbortController()
    const watch = watchOf()
    const running = watch.run(stopping.signal)
    await settle()
    write('_default', "[host.'https://cache.example']\n")
    let passedMs = 0
    while (warned().length === 0 && passedMs < 120_000) {
      clock.advance(1_000)
      passedMs += 1_000
      await settle()
    }
    expect(passedMs).toBeLessThanOrEqual(60_000)
    stopping.abort()
    await running
  })

  it('ends at once while a program at its address does not answer', async () => {
    write('_default', led())
    await stop(listeners[0] as Server)
    const sockets: Socket[] = []
    const connected = Promise.withResolvers<void>()
    const silent = createServer((socket) => {
      sockets.push(socket.on('error', () => {}))
      connected.resolve()
    })
    await listen(silent, '127.0.0.1', port)
    const stopping = new AbortController()
    const running = watchOf().run(stopping.signal)
    await connected.promise
    stopping.abort()
    await running
    for (const socket of sockets) socket.destroy()
    expect(lines).toEqual([])
  })

  const settle = () => new Promise((resolve) => setTimeout(resolve, 30))
})
