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
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type HostsConfig, configureHosts, restoreHosts } from '../../../src/hosts/apply.ts'

const logger = pino({ level: 'silent' })
const spegel = join(import.meta.dirname, '../../../bin/spegel-ts')
const withoutRights = join(import.meta.dirname, '../../support/without-rights.ts')

/** Everything that a folder is: names, kinds, modes, owners, times, bytes. */
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

  beforeEach(async () => {
    parent = await mkdtemp(join(tmpdir(), 'hosts-'))
    await chmod(parent, 0o755)
    folder = join(parent, 'certs.d')
    await mkdir(folder)
  })
  afterEach(() => rm(parent, { recursive: true, force: true }))

  const config = (change: Partial<HostsConfig> = {}): HostsConfig => ({
    folder,
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
    await writeFile(join(folder, 'docker.io/ca.crt'), 'certificate')
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
      expect(await restoreHosts(folder, { keepFolder: true })).toBe(outcome)
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
    await writeFile(join(folder, '_default/hosts.toml'), "[host.'http://other']\n")
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
    await mkdir(added)
    await writeFile(join(added, 'hosts.toml'), "server = 'https://harbor.corp'\nca = '/etc/ca.crt'\n")
    await writeFile(join(folder, '_default/ca.crt'), 'new')
    // What a distribution writes when it starts.
    await writeFile(join(folder, 'docker.io/hosts.toml'), "server = 'https://later'\n")
    // Somebody was killed while writing.
    await writeFile(join(folder, 'docker.io/.hosts.toml.123.tmp'), 'half')
    for (let round = 0; round < 2; round++) {
      await configureHosts(config(), logger)
      const rendered = await readFile(join(added, 'hosts.toml'), 'utf8')
      expect(rendered).toContain("[host.'http://127.0.0.1:5000']")
      expect(parse(rendered)['ca']).toBe('/etc/ca.crt')
      expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).toContain('https://later')
      expect(await readFile(join(folder, '_default/ca.crt'), 'utf8')).toBe('new')
    }
    // And after the last time that anybody looked.
    await mkdir(join(folder, 'quay.corp'))
    await writeFile(join(folder, 'quay.corp/ca.crt'), 'quay')
    await restoreHosts(folder)
    expect(await readFile(join(added, 'hosts.toml'), 'utf8')).toBe(
      "server = 'https://harbor.corp'\nca = '/etc/ca.crt'\n",
    )
    expect(await readdir(join(folder, '_default'))).toEqual(['ca.crt'])
    expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).toBe("server = 'https://later'\n")
    expect(await readFile(join(folder, 'quay.corp/ca.crt'), 'utf8')).toBe('quay')
    expect((await readdir(folder)).filter((name) => /^_(?!default)/.test(name))).toEqual([])
  })

  it('takes a copy of a file of ours for the user’s, and a mended backup for newer than what is live', async () => {
    await foreign()
    await configureHosts(config(), logger)
    await cp(join(folder, 'docker.io'), join(folder, 'harbor.corp'), { recursive: true })
    await mkdir(join(folder, 'typo.corp'))
    await writeFile(join(folder, 'typo.corp/hosts.toml'), 'server = ')
    await expect(configureHosts(config(), logger)).rejects.toThrow('_backup/typo.corp/hosts.toml')
    await writeFile(join(folder, '_backup/typo.corp/hosts.toml'), "server = 'https://mended'\n")
    await configureHosts(config(), logger)
    expect(await readFile(join(folder, 'typo.corp/hosts.toml'), 'utf8')).toContain('https://mended')
    expect(await readFile(join(folder, 'harbor.corp/hosts.toml'), 'utf8')).toContain('https://cache')
    await restoreHosts(folder)
    expect(await readdir(folder)).toEqual(expect.arrayContaining(['harbor.corp', 'typo.corp']))
  })

  it('writes nothing where a registry’s folder leads to, and puts the link back', async () => {
    const shared = join(parent, 'shared')
    await mkdir(shared)
    await writeFile(join(shared, 'hosts.toml'), "server = 'https://shared'\n")
    await writeFile(join(shared, 'ca.crt'), 'shared')
    await symlink(shared, join(folder, 'linked.example'))
    const before = await snapshot(shared)
    for (const prependExisting of [true, false]) {
      const registries = [{ host: 'linked.example', server: undefined }]
      await configureHosts(config({ registries, prependExisting }), logger)
      expect(await readFile(join(folder, 'linked.example/hosts.toml'), 'utf8')).toContain('http://127.0.0.1:5000')
      expect(await snapshot(shared)).toEqual(before)
    }
    await restoreHosts(folder)
    expect(await readlink(join(folder, 'linked.example'))).toBe(shared)
    expect(await snapshot(shared)).toEqual(before)
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
    expect(await readFile(join(folder, 'docker.io/ca.crt'), 'utf8')).toBe('certificate')
    expect(await readFile(join(folder, 'plain.example:5000/client.key'), 'utf8')).toBe('key')
  })

  it('names the certificates of a folder without hosts.toml, which would no longer be read', async () => {
    for (const [name, files] of Object.entries({
      'ca.example': ['b.crt', 'a.crt', 'README'],
      'client.example': ['ca.crt', 'me.cert', 'me.key', 'both.cert'],
      'none.example': ['notes'],
    })) {
      await mkdir(join(folder, name))
      for (const file of files) await writeFile(join(folder, name, file), file)
    }
    await mkdir(join(folder, 'ca.example/old.crt'))
    const before = await snapshot(folder)
    const mirror = { capabilities: ['pull', 'resolve'], dial_timeout: '200ms' }
    const written = async (name: string) => parse(await readFile(join(folder, name, 'hosts.toml'), 'utf8'))
    await configureHosts(config(), logger)
    const ca = ['a.crt', 'b.crt']
    expect(await written('ca.example')).toEqual({ ca, host: { 'http://127.0.0.1:5000': { ...mirror, ca } } })
    expect(await written('client.example')).toEqual({
      ca: ['ca.crt'],
      client: [
        ['both.cert', 'both.cert'],
        ['me.cert', 'me.key'],
      ],
      host: { 'http://127.0.0.1:5000': mirror },
    })
    expect(await readdir(join(folder, 'none.example'))).toEqual(['notes'])
    expect(await readFile(join(folder, 'ca.example/b.crt'), 'utf8')).toBe('b.crt')

    await configureHosts(config({ registries: [{ host: 'ca.example', server: 'https://ca.example' }] }), logger)
    expect(await written('ca.example')).toMatchObject({ server: 'https://ca.example', ca })
    expect(await readdir(join(folder, 'client.example'))).not.toContain('hosts.toml')

    await configureHosts(config({ prependExisting: false }), logger)
    expect((await readdir(join(folder, 'ca.example'))).sort()).toEqual(['README', 'a.crt', 'b.crt', 'old.crt'])
    await restoreHosts(folder)
    expect(withoutTimes(await snapshot(folder))).toEqual(withoutTimes(before))
  })

  it('leaves registries alone that it is not asked to mirror', async () => {
    await foreign()
    await configureHosts(config({ registries: [{ host: 'ghcr.io', server: 'https://ghcr.io' }] }), logger)
    expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).not.toContain('127.0.0.1')
    expect(await readFile(join(folder, 'ghcr.io/hosts.toml'), 'utf8')).toContain('127.0.0.1')
  })

  it('sets configurations aside when told not to prepend, as Spegel does', async () => {
    await foreign()
    await configureHosts(config({ prependExisting: false }), logger)
    expect((await readdir(folder)).sort()).toEqual(['README', '_backup', '_default', '_marked', 'plain.example:5000'])
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

  it('does not touch a thing when a file of the user does not parse', async () => {
    await foreign()
    await writeFile(join(folder, 'docker.io/hosts.toml'), 'server = ')
    const before = await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')
    await expect(configureHosts(config(), logger)).rejects.toThrow(/docker\.io\/hosts\.toml/)
    expect(await readFile(join(folder, 'docker.io/hosts.toml'), 'utf8')).toBe(before)
    expect(await readdir(folder)).not.toContain('_default')
  })
})

function withoutTimes(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (key, inner: unknown) => (key === 'mtimeMs' ? undefined : inner)))
}
