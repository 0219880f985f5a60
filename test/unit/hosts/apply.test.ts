import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  readlink,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { pino } from 'pino'
import { parse } from 'smol-toml'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { configureHosts, restoreHosts } from '../../../src/hosts/apply.ts'
import type { HostsConfig } from '../../../src/hosts/plan.ts'
import { Authority } from '../../support/authority.ts'

const logger = pino({ level: 'silent' })
const spegel = join(import.meta.dirname, '../../../bin/spegel-ts')
const withoutRights = join(import.meta.dirname, '../../support/without-rights.ts')

/** Everything that a directory is: names, kinds, modes, owners, times, bytes. */
async function snapshot(path: string): Promise<Record<string, unknown>> {
  const stats = await lstat(path)
  const entry = { mode: stats.mode, uid: stats.uid, gid: stats.gid, mtimeMs: Math.round(stats.mtimeMs) }
  if (stats.isSymbolicLink()) return { ...entry, link: await readlink(path) }
  if (!stats.isDirectory()) return { ...entry, bytes: (await readFile(path)).toString('hex') }
  const children: Record<string, unknown> = {}
  for (const name of (await readdir(path)).sort()) children[name] = await snapshot(join(path, name))
  return { ...entry, children }
}

describe('configuration and cleanup', () => {
  let parent = ''
  let folder = ''
  /** Contents of PEM files: containerd fails for a registry with a certificate that it cannot load. */
  let ca = ''
  let client = { certificate: '', key: '' }

  beforeAll(async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hosts-authority-'))
    const authority = await Authority.create(directory)
    const issued = await authority.issue('me', '/CN=me')
    ca = await readFile(authority.certificate, 'utf8')
    client = { certificate: await readFile(issued.certificate, 'utf8'), key: await readFile(issued.key, 'utf8') }
    await rm(directory, { recursive: true })
  })

  beforeEach(async () => {
    parent = await mkdtemp(join(tmpdir(), 'hosts-'))
    await chmod(parent, 0o755)
    folder = join(parent, 'certs.d')
    await mkdir(folder)
  })
  afterEach(() => rm(parent, { recursive: true, force: true }))

  const config = (change: Partial<HostsConfig> = {}): HostsConfig => ({
    directory: folder,
    containerdVersion: undefined,
    registries: [{ host: '_default', server: undefined }],
    targets: ['http://127.0.0.1:5000'],
    resolveTags: true,
    prependExisting: true,
    authorization: undefined,
    ...change,
  })

  async function foreign(): Promise<void> {
    await mkdir(join(folder, 'docker.io'))
    await writeFile(
      join(folder, 'docker.io/hosts.toml'),
      'server = "https://own"\n[host."https://cache"]\nca = "ca.crt"\n',
    )
    await writeFile(join(folder, 'docker.io/ca.crt'), ca)
    await chmod(join(folder, 'docker.io/ca.crt'), 0o640)
    await chown(join(folder, 'docker.io/ca.crt'), process.getuid?.() ?? 0, process.getgid?.() ?? 0)
    await mkdir(join(folder, 'plain.example:5000'), { mode: 0o700 })
    await writeFile(join(folder, 'plain.example:5000/client.key'), 'key')
    await symlink('docker.io', join(folder, 'index.docker.io'))
    await writeFile(join(folder, 'README'), 'notes')
    await utimes(join(folder, 'docker.io/hosts.toml'), 1_000, 2_000)
    await utimes(join(folder, 'docker.io'), 1_000, 3_000)
  }

  const states: [string, () => Promise<void>][] = [
    ['empty', () => Promise.resolve()],
    ['foreign hosts.toml', foreign],
    [
      'our own hosts.toml without a backup',
      async () => {
        await mkdir(join(folder, '_default'))
        await writeFile(join(folder, '_default/hosts.toml'), "[host.'http://127.0.0.1:5000']\n")
      },
    ],
    [
      'half-written backup',
      async () => {
        await foreign()
        await mkdir(join(folder, '_backup.partial/docker.io'), { recursive: true })
        await writeFile(join(folder, '_backup.partial/docker.io/hosts.toml'), 'serv')
      },
    ],
  ]

  it.each(states)('gives back what was there: %s', async (name, make) => {
    await make()
    const before = await snapshot(folder)
    await configureHosts(config(), logger)
    expect(await readFile(join(folder, '_default/hosts.toml'), 'utf8')).toContain('http://127.0.0.1:5000')
    await configureHosts(config({ targets: ['http://127.0.0.1:5000', 'http://10.0.0.1:5000'] }), logger)
    expect(await restoreHosts(folder)).toBe('restored')
    if (name === 'half-written backup') delete (before['children'] as Record<string, unknown>)['_backup.partial']
    const after = await snapshot(folder)
    // Taking our leftovers away is a change of the folder itself.
    if (name === 'half-written backup') after['mtimeMs'] = before['mtimeMs']
    expect(after).toEqual(before)
    expect(await restoreHosts(folder)).toBe('nothing to restore')
    expect(await readdir(parent)).toEqual(['certs.d'])
  })

  it('takes a folder away again that was not there', async () => {
    await rm(folder, { recursive: true })
    await configureHosts(config(), logger)
    await configureHosts(config({ registries: [{ host: 'ghcr.io', server: 'https://ghcr.io' }] }), logger)
    expect((await readdir(folder)).filter((name) => !name.startsWith('_'))).toEqual(['ghcr.io'])
    expect(await restoreHosts(folder)).toBe('restored')
    expect(await readdir(parent)).toEqual([])
    expect(await restoreHosts(folder)).toBe('nothing to restore')
  })

  it('leaves it where it is for who has it mounted, until it is taken away', async () => {
    await rm(folder, { recursive: true })
    await configureHosts(config(), logger)
    const { ino } = await lstat(folder)
    const written = withoutTimes(await snapshot(folder))
    for (const outcome of ['restored', 'nothing to restore']) {
      expect(await restoreHosts(folder, { keepDirectory: true })).toBe(outcome)
      expect((await readdir(folder)).filter((name) => !name.startsWith('_'))).toEqual([])
      expect((await lstat(folder)).ino).toBe(ino)
    }
    await configureHosts(config(), logger)
    expect(withoutTimes(await snapshot(folder))).toEqual(written)
    expect((await lstat(folder)).ino).toBe(ino)
    expect(await restoreHosts(folder)).toBe('restored')
    expect(await readdir(parent)).toEqual([])
  })

  it('takes it away also when it was broken off while making or removing it', async () => {
    await rm(folder, { recursive: true })
    await mkdir(`${folder}.partial`)
    await configureHosts(config(), logger)
    await mkdir(`${folder}.done/_default`, { recursive: true })
    expect(await restoreHosts(folder)).toBe('restored')
    expect(await readdir(parent)).toEqual([])
    await mkdir(`${folder}.done/_default`, { recursive: true })
    expect(await restoreHosts(folder)).toBe('nothing to restore')
    expect(await readdir(parent)).toEqual([])
  })

  it('takes a backup that is there, Spegel’s for example, for the user’s files', async () => {
    await foreign()
    const before = await snapshot(folder)
    await mkdir(join(parent, 'moved'))
    for (const name of await readdir(folder))
      await cp(join(folder, name), join(parent, 'moved', name), {
        recursive: true,
        preserveTimestamps: true,
        verbatimSymlinks: true,
      })
    await rm(folder, { recursive: true })
    await mkdir(join(folder, '_default'), { recursive: true })
    await cp(join(parent, 'moved'), join(folder, '_backup'), {
      recursive: true,
      preserveTimestamps: true,
      verbatimSymlinks: true,
    })
    await writeFile(join(folder, '_default/hosts.toml'), "[host.'http://other']\ndial_timeout = '200ms'")
    await configureHosts(config(), logger)
    expect(await readFile(join(folder, '_default/hosts.toml'), 'utf8')).not.toContain('other')
    expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).toContain('https://own')
    await restoreHosts(folder)
    expect(withoutTimes(await snapshot(folder))).toEqual(withoutTimes(before))
  })

  it('keeps what came or changed after the backup was made, and gives it back', async () => {
    await foreign()
    await configureHosts(config(), logger)
    // An administrator adds a registry, another one a certificate to ours, a third is renewed.
    const added = join(folder, 'harbor.corp')
    const harbor = "server = 'https://harbor.corp'\n[host.'https://harbor.corp']\nca = '/etc/ca.crt'\n"
    await mkdir(added)
    await writeFile(join(added, 'hosts.toml'), harbor)
    await writeFile(join(folder, '_default/ca.crt'), ca)
    // What a distribution writes when it starts.
    await writeFile(join(folder, 'docker.io/hosts.toml'), "server = 'https://later'\n")
    // Somebody was killed while writing.
    await writeFile(join(folder, 'docker.io/.spegel-ts.hosts.toml.123.tmp'), 'half')
    for (let round = 0; round < 2; round++) {
      await configureHosts(config(), logger)
      const rendered = await readFile(join(added, 'hosts.toml'), 'utf8')
      expect(rendered).toContain("[host.'http://127.0.0.1:5000']")
      expect(rendered.endsWith("[host.'https://harbor.corp']\nca = '/etc/ca.crt'\n")).toBe(true)
      expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).toContain('https://later')
      expect(await readFile(join(folder, '_default/ca.crt'), 'utf8')).toBe(ca)
    }
    // And after the last time that anybody looked.
    await mkdir(join(folder, 'quay.corp'))
    await writeFile(join(folder, 'quay.corp/ca.crt'), 'quay')
    await restoreHosts(folder)
    expect(await readFile(join(added, 'hosts.toml'), 'utf8')).toBe(harbor)
    expect(await readdir(join(folder, '_default'))).toEqual(['ca.crt'])
    expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).toBe("server = 'https://later'\n")
    expect(await readFile(join(folder, 'quay.corp/ca.crt'), 'utf8')).toBe('quay')
    expect((await readdir(folder)).filter((name) => /^_(?!default)/.test(name))).toEqual([])
  })

  it('keeps edits of the live file outside of our block, and an edit of the backup', async () => {
    await foreign()
    await configureHosts(config(), logger)
    const path = join(folder, 'docker.io/hosts.toml')
    const own = 'server = "https://own"\n[host."https://cache"]\nca = "ca.crt"\n'
    await writeFile(path, `${await readFile(path, 'utf8')}[host."https://second"]\n`)
    await writeFile(join(folder, '_default/hosts.toml'), '[host."https://all"]\n', { flag: 'a' })
    await configureHosts(config(), logger)
    expect(Object.keys(parse(await readFile(path, 'utf8'))['host'] as object)).toEqual([
      'http://127.0.0.1:5000',
      'https://cache',
      'https://second',
    ])
    expect(await readFile(join(folder, '_backup/docker.io/hosts.toml'), 'utf8')).toBe(
      `${own}[host."https://second"]\n`,
    )
    await writeFile(join(folder, '_backup/docker.io/hosts.toml'), '[host."https://third"]\n')
    await configureHosts(config(), logger)
    expect(await readFile(path, 'utf8')).toContain('https://third')
    await restoreHosts(folder)
    expect(await readFile(path, 'utf8')).toBe('[host."https://third"]\n')
    expect(await readFile(join(folder, '_default/hosts.toml'), 'utf8')).toBe('[host."https://all"]\n')
  })

  it('keeps everything that changed between a first run that was interrupted and the next', async () => {
    await foreign()
    await mkdir(join(folder, 'b.example'))
    await writeFile(join(folder, 'b.example/hosts.toml'), '[host."https://b"]\n')
    await mkdir(join(folder, 'broken.example'))
    await writeFile(join(folder, 'broken.example/hosts.toml'), 'server = ')
    await configureHosts(config(), logger)
    await writeFile(join(folder, 'b.example/hosts.toml'), '[host."https://edited"]\n')
    await writeFile(join(folder, 'b.example/ca.crt'), ca)
    await mkdir(join(folder, 'c.example'))
    await writeFile(join(folder, 'c.example/hosts.toml'), '[host."https://c"]\n')
    await writeFile(join(folder, 'broken.example/hosts.toml'), '[host."https://repaired"]\n')
    await configureHosts(config(), logger)
    for (const name of ['b.example', 'c.example', 'broken.example']) {
      expect(await readFile(join(folder, name, 'hosts.toml'), 'utf8')).toContain('http://127.0.0.1:5000')
    }
    await restoreHosts(folder)
    expect(await readFile(join(folder, 'b.example/hosts.toml'), 'utf8')).toBe('[host."https://edited"]\n')
    expect(await readFile(join(folder, 'b.example/ca.crt'), 'utf8')).toBe(ca)
    expect(await readFile(join(folder, 'c.example/hosts.toml'), 'utf8')).toBe('[host."https://c"]\n')
    expect(await readFile(join(folder, 'broken.example/hosts.toml'), 'utf8')).toBe('[host."https://repaired"]\n')
  })

  it('recognises its own files after the backup was deleted', async () => {
    await foreign()
    const shared = join(parent, 'shared')
    await mkdir(shared)
    await writeFile(join(shared, 'hosts.toml'), '[host."https://shared"]\n')
    await symlink(shared, join(folder, 'linked.example'))
    const before = await snapshot(folder)
    await configureHosts(config({ targets: ['http://10.9.9.9:5000'] }), logger)
    await rm(join(folder, '_backup'), { recursive: true })
    await configureHosts(config(), logger)
    for (const name of ['docker.io', '_default', 'linked.example']) {
      expect(await readFile(join(folder, name, 'hosts.toml'), 'utf8')).not.toContain('10.9.9.9')
      expect(await readFile(join(folder, name, 'hosts.toml'), 'utf8')).toContain('127.0.0.1:5000')
    }
    await rm(join(folder, '_backup'), { recursive: true })
    expect(await restoreHosts(folder)).toBe('restored')
    expect(withoutTimes(await snapshot(folder))).toEqual(withoutTimes(before))
  })

  it('honours what the user deleted, files and whole registries', async () => {
    await foreign()
    await configureHosts(config(), logger)
    await rm(join(folder, 'docker.io/ca.crt'))
    await rm(join(folder, 'plain.example:5000'), { recursive: true })
    await configureHosts(config(), logger)
    await restoreHosts(folder)
    expect(await readdir(join(folder, 'docker.io'))).toEqual(['hosts.toml'])
    expect((await readdir(folder)).sort()).toEqual(['README', 'docker.io', 'index.docker.io'])
  })

  it.each([
    ['absolute', (shared: string) => shared],
    ['relative', () => '../shared'],
  ])(
    'puts the mirror in front of what an %s link leads to, writes nothing there, and puts the link back',
    async (_kind, textOf) => {
      const shared = join(parent, 'shared')
      await mkdir(shared)
      await writeFile(join(shared, 'hosts.toml'), '[host."https://shared"]\nca = "ca.crt"\n')
      await writeFile(join(shared, 'ca.crt'), ca)
      await symlink(textOf(shared), join(folder, 'linked.example'))
      const before = await snapshot(shared)
      for (const prependExisting of [true, false]) {
        for (const registries of [
          [{ host: 'linked.example', server: undefined }],
          [{ host: '_default', server: undefined }],
        ]) {
          await configureHosts(config({ registries, prependExisting }), logger)
          const text = await readFile(join(folder, 'linked.example/hosts.toml'), 'utf8')
          expect(text).toContain('http://127.0.0.1:5000')
          expect(text.includes('https://shared')).toBe(prependExisting)
          expect(await readFile(join(folder, 'linked.example/ca.crt'), 'utf8')).toBe(ca)
          expect(await snapshot(shared)).toEqual(before)
        }
      }
      await restoreHosts(folder)
      expect(await readlink(join(folder, 'linked.example'))).toBe(textOf(shared))
      expect(await snapshot(shared)).toEqual(before)
    },
  )

  it('mirrors a directory that is empty or holds only a README, which hides _default', async () => {
    await mkdir(join(folder, 'empty.example'))
    await mkdir(join(folder, 'notes.example'))
    await writeFile(join(folder, 'notes.example/README'), 'notes')
    const before = await snapshot(folder)
    await configureHosts(config(), logger)
    for (const name of ['empty.example', 'notes.example']) {
      expect(await readFile(join(folder, name, 'hosts.toml'), 'utf8')).toContain('http://127.0.0.1:5000')
    }
    await restoreHosts(folder)
    expect(await snapshot(folder)).toEqual(before)
  })

  it('writes to the directory that containerd looks up, with the port in its name', async () => {
    await mkdir(join(folder, 'port.example_8443_'))
    await writeFile(join(folder, 'port.example_8443_/hosts.toml'), '[host."https://cache"]\n')
    const registries = [
      { host: 'port.example:8443', server: 'https://port.example:8443' },
      { host: 'other.example:443', server: 'https://other.example:443' },
    ]
    await configureHosts(config({ registries }), logger)
    expect(await readFile(join(folder, 'port.example_8443_/hosts.toml'), 'utf8')).toContain('http://127.0.0.1:5000')
    expect(await readdir(folder)).not.toContain('port.example:8443')
    expect(await readFile(join(folder, 'other.example:443/hosts.toml'), 'utf8')).toContain('http://127.0.0.1:5000')
  })

  it('gives a named registry what _default has for it, behind the mirror', async () => {
    await mkdir(join(folder, '_default'))
    await writeFile(join(folder, '_default/hosts.toml'), '[host."https://all"]\nca = "ca.crt"\n')
    await writeFile(join(folder, '_default/ca.crt'), ca)
    const before = await snapshot(folder)
    await configureHosts(config({ registries: [{ host: 'ghcr.io', server: 'https://ghcr.io' }] }), logger)
    expect(Object.keys(parse(await readFile(join(folder, 'ghcr.io/hosts.toml'), 'utf8'))['host'] as object)).toEqual([
      'http://127.0.0.1:5000',
      'https://all',
    ])
    expect(await readFile(join(folder, 'ghcr.io/ca.crt'), 'utf8')).toBe(ca)
    expect(await readFile(join(folder, '_default/hosts.toml'), 'utf8')).not.toContain('127.0.0.1')
    await restoreHosts(folder)
    expect(await snapshot(folder)).toEqual(before)
  })

  it('leaves a registry out of scope as it was though it links to one that is mirrored', async () => {
    await mkdir(join(folder, 'a.example'))
    await writeFile(join(folder, 'a.example/hosts.toml'), '[host."https://a"]\n')
    await symlink('a.example', join(folder, 'b.example'))
    await mkdir(join(folder, 'c.example'))
    await symlink('../a.example/hosts.toml', join(folder, 'c.example/hosts.toml'))
    const before = await snapshot(folder)
    await configureHosts(config({ registries: [{ host: 'a.example', server: 'https://a.example' }] }), logger)
    for (const name of ['b.example', 'c.example']) {
      expect(Object.keys(parse(await readFile(join(folder, name, 'hosts.toml'), 'utf8'))['host'] as object)).toEqual([
        'https://a',
      ])
    }
    await restoreHosts(folder)
    expect(await snapshot(folder)).toEqual(before)
  })

  it('follows links that name certs.d as the node does, from a container that has it elsewhere', async () => {
    const directory = join(parent, 'host/opt/spegel-ts-test/certs.d')
    await mkdir(join(directory, 'a.example'), { recursive: true })
    await writeFile(join(directory, 'a.example/hosts.toml'), '[host."https://a"]\n')
    await symlink('/opt/spegel-ts-test/certs.d/a.example', join(directory, 'b.example'))
    const before = await snapshot(directory)
    const { lines, warnings } = collected()
    await configureHosts(config({ directory }), lines)
    expect(warnings).toEqual([])
    expect(await readFile(join(directory, 'b.example/hosts.toml'), 'utf8')).toMatch(/127\.0\.0\.1[^]*https:\/\/a/)
    await restoreHosts(directory)
    expect(await snapshot(directory)).toEqual(before)
  })

  it.each(['configured once more', 'not looked at again'])(
    'leaves a folder that was not there when somebody put something into it (%s)',
    async (how) => {
      await rm(folder, { recursive: true })
      await configureHosts(config(), logger)
      await mkdir(join(folder, 'harbor.corp'))
      await writeFile(join(folder, 'harbor.corp/ca.crt'), 'harbor')
      if (how === 'configured once more') await configureHosts(config(), logger)
      expect(await restoreHosts(folder)).toBe('restored')
      expect(await readdir(folder)).toEqual(['harbor.corp'])
      expect(await readdir(join(folder, 'harbor.corp'))).toEqual(['ca.crt'])
    },
  )

  it('changes nothing without the right to, and says so in one line', async () => {
    await foreign()
    await chmod(folder, 0o555)
    const before = await snapshot(folder)
    const { stdout } = await promisify(execFile)(process.execPath, [withoutRights, folder])
    expect(stdout).toMatch(/^UserError: --containerd-registry-config-path: .*EACCES.*run as root.*writable$/)
    expect(await snapshot(folder)).toEqual(before)
    await chmod(folder, 0o755)
  })

  it('asks the mirror first for every registry that has a folder of its own, and keeps the rest as it is', async () => {
    await foreign()
    await configureHosts(config(), logger)
    const docker = await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')
    expect(docker.indexOf('127.0.0.1:5000')).toBeLessThan(docker.indexOf('https://cache'))
    expect(docker).toMatch(/^server = "https:\/\/own"$/m)
    expect(await readFile(join(folder, 'docker.io/ca.crt'), 'utf8')).toBe(ca)
    expect(await readFile(join(folder, 'plain.example:5000/client.key'), 'utf8')).toBe('key')
  })

  it('names the certificates of a directory without hosts.toml, which would no longer be read', async () => {
    for (const [name, files] of Object.entries({
      'ca.example': { 'b.crt': ca, 'a.crt': ca, README: 'notes' },
      'client.example': {
        'ca.crt': ca,
        'me.cert': client.certificate,
        'me.key': client.key,
        'both.cert': client.certificate + client.key,
      },
      'bad.example': { 'ca.crt': 'not a certificate' },
    })) {
      await mkdir(join(folder, name))
      for (const [file, content] of Object.entries(files)) await writeFile(join(folder, name, file), content)
    }
    await mkdir(join(folder, 'ca.example/old.crt'))
    const before = await snapshot(folder)
    const mirror = { capabilities: ['pull', 'resolve'], dial_timeout: '200ms' }
    const written = async (name: string) => parse(await readFile(join(folder, name, 'hosts.toml'), 'utf8'))
    const { lines, warnings } = collected()
    await configureHosts(config(), lines)
    const files = ['a.crt', 'b.crt']
    expect(await written('ca.example')).toEqual({
      ca: files,
      host: { 'http://127.0.0.1:5000': { ...mirror, ca: files } },
    })
    expect(await written('client.example')).toEqual({
      ca: ['ca.crt'],
      client: [
        ['both.cert', 'both.cert'],
        ['me.cert', 'me.key'],
      ],
      host: { 'http://127.0.0.1:5000': mirror },
    })
    expect(await readdir(join(folder, 'bad.example'))).toEqual(['ca.crt'])
    expect(warnings).toEqual([
      expect.objectContaining({
        registry: 'bad.example',
        reason: expect.stringContaining('ca.crt contains no certificate'),
      }),
    ])

    await configureHosts(config({ registries: [{ host: 'ca.example', server: 'https://ca.example' }] }), logger)
    expect(await written('ca.example')).toMatchObject({ ca: files })
    expect(await readdir(join(folder, 'client.example'))).not.toContain('hosts.toml')

    await configureHosts(config({ prependExisting: false }), logger)
    expect(await written('ca.example')).toEqual({ host: { 'http://127.0.0.1:5000': mirror } })
    await restoreHosts(folder)
    expect(await snapshot(folder)).toEqual(before)
  })

  it('leaves registries alone that it is not asked to mirror', async () => {
    await foreign()
    await configureHosts(config({ registries: [{ host: 'ghcr.io', server: 'https://ghcr.io' }] }), logger)
    expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).not.toContain('127.0.0.1')
    expect(await readFile(join(folder, 'ghcr.io/hosts.toml'), 'utf8')).toContain('127.0.0.1')
  })

  it('sets configurations aside where existing ones are not wanted, as Spegel does', async () => {
    await foreign()
    const before = await snapshot(folder)
    const { lines, warnings } = collected()
    await configureHosts(config({ prependExisting: false }), lines)
    for (const name of ['docker.io', 'index.docker.io', 'plain.example:5000', '_default']) {
      const { host } = parse(await readFile(join(folder, name, 'hosts.toml'), 'utf8'))
      expect(Object.keys(host as object)).toEqual(['http://127.0.0.1:5000'])
    }
    expect(warnings.map(({ registry }) => registry)).toEqual(['README', 'docker.io', 'index.docker.io'])
    await restoreHosts(folder)
    expect(await snapshot(folder)).toEqual(before)
  })

  it('leaves a registry alone whose hosts.toml leads to where it cannot go, and says so', async () => {
    await foreign()
    await mkdir(join(folder, 'linked.example'))
    await symlink('/nowhere/hosts.toml', join(folder, 'linked.example/hosts.toml'))
    const lines: string[] = []
    await configureHosts(config(), pino({}, { write: (line) => void lines.push(line) }))
    expect(lines.join('')).toContain('"registry":"linked.example"')
    expect(await readlink(join(folder, 'linked.example/hosts.toml'))).toBe('/nowhere/hosts.toml')
    expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).toContain('http://127.0.0.1:5000')
  })

  it('lets nobody read more than before', async () => {
    await foreign()
    await chmod(join(folder, 'docker.io/hosts.toml'), 0o600)
    await configureHosts(config(), logger)
    const modeOf = async (name: string) => (await lstat(join(folder, name, 'hosts.toml'))).mode & 0o777
    // And group root: the daemon is of it.
    expect([await modeOf('docker.io'), await modeOf('_default')]).toEqual([0o640, 0o644])
    await configureHosts(config({ authorization: 'Basic c2VjcmV0' }), logger)
    expect([await modeOf('docker.io'), await modeOf('_default')]).toEqual([0o640, 0o640])
  })

  it('can be killed at any moment and run again', async () => {
    await foreign()
    const before = await snapshot(folder)
    const args = [
      'configuration',
      '--containerd-registry-config-path',
      folder,
      '--mirror-targets',
      'http://127.0.0.1:5000',
    ]
    for (let round = 0; round < 12; round++) {
      const child = spawn(spegel, args, { stdio: 'ignore' })
      const ended = once(child, 'exit')
      // From before the first file operation to after the last: they happen 300 to 450 ms after the start here.
      const timer = setTimeout(() => child.kill('SIGKILL'), 250 + round * 20)
      await ended
      clearTimeout(timer)
    }
    await configureHosts(config(), logger)
    await restoreHosts(folder)
    expect(withoutTimes(await snapshot(folder))).toEqual(withoutTimes(before))
  }, 60_000)

  it('reports a file that containerd cannot decode and leaves that registry alone', async () => {
    await foreign()
    await writeFile(join(folder, 'docker.io/hosts.toml'), 'server = "https://a"\n[host]\nskip_verify = true\n')
    const before = await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')
    const { lines, warnings } = collected()
    await configureHosts(config(), lines)
    expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).toBe(before)
    expect(await readFile(join(folder, '_default/hosts.toml'), 'utf8')).toContain('127.0.0.1')
    expect(warnings.find(({ registry }) => registry === 'docker.io')).toMatchObject({
      file: join(folder, 'docker.io/hosts.toml'),
      reason: expect.stringContaining('wrong type'),
      remedy: expect.stringContaining('[host."https://cache.example"]'),
    })
  })

  it.each([
    ['a dangling link', () => symlink('missing', folder)],
    ['a link to itself', () => symlink('certs.d', folder)],
    ['a file', () => writeFile(folder, '')],
  ])('says in one line that certs.d is %s', async (_what, make) => {
    await rm(folder, { recursive: true })
    await make()
    const message = /^--containerd-registry-config-path: .* is not a directory .*: name containerd's certs\.d$/
    await expect(configureHosts(config(), logger)).rejects.toThrow(message)
    await expect(restoreHosts(folder)).rejects.toThrow(message)
  })

  it('fails once below /proc, where a directory can never be made', async () => {
    await expect(configureHosts(config({ directory: '/proc/spegel-ts/certs.d' }), logger)).rejects.toThrow(
      /^--containerd-registry-config-path: /,
    )
  })
})

interface Warning {
  registry: string
  file: string
  reason: string
  remedy: string
}

/** A logger and the warnings that it was given. */
function collected() {
  const warnings: Warning[] = []
  const lines = pino({ level: 'warn' }, { write: (line) => void warnings.push(JSON.parse(line) as Warning) })
  return { lines, warnings }
}

function withoutTimes(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (key, inner: unknown) => (key === 'mtimeMs' ? undefined : inner)))
}
