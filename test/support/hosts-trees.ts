/**
 * Random certs.d trees as plain data, so that a failing one can be shrunk and printed. `treeSteps` turns one into file
 * operations. All paths are relative to a parent directory with `certs.d` and `outside` (where links may lead).
 */
import fc from 'fast-check'
import type { TreeStep } from './hosts-judge.ts'

export interface HostsTree {
  /** False: certs.d does not exist. */
  exists: boolean
  /** certs.d is a link to a directory, or to nothing. */
  link: 'none' | 'directory' | 'dangling'
  entries: readonly TreeEntryData[]
}

type TreeEntryData =
  | { kind: 'directory'; name: string; hosts: HostsFile; files: readonly FileName[]; attributes: Attributes }
  /** `to` as stored in the link; `{root}` stands for the parent directory. */
  | { kind: 'link'; name: string; to: string }
  | { kind: 'file'; name: string; attributes: Attributes }
  | { kind: 'fifo'; name: string }

type HostsFile =
  | { kind: 'absent' }
  | { kind: 'text'; text: string; attributes: Attributes }
  | { kind: 'link'; to: string }
  /** Another name of the file `outside/hosts.toml`. */
  | { kind: 'hardlink' }
  | { kind: 'directory' }

interface Attributes {
  mode: number
  /** Owner and group. */
  owner: number
  nanoseconds: number
  xattr: boolean
}

type FileName = (typeof fileNames)[number]

/** Names by which containerd is asked, whether or not the tree has them. */
export const registryNames = [
  'docker.io',
  'registry.example',
  'registry.example:5000',
  'registry.example:443',
  'registry.example:80',
  'Capital.example',
  'localhost',
  'localhost:5000',
  '127.0.0.1:5000',
  '[fd00::1]:5000',
  '[::1]',
  'quay.io',
  'unlisted.example',
  'unlisted.example:5000',
] as const

/** Directories that containerd looks up for a registry, first match first (hostPaths of containerd). */
export function directoryNames(registry: string): string[] {
  const colon = registry.lastIndexOf(':')
  const underscored = colon > 0 ? [`${registry.slice(0, colon)}_${registry.slice(colon + 1)}_`] : []
  return [...underscored, registry, '_default']
}

const listedNames = registryNames.filter((name) => !name.startsWith('unlisted'))
const entryNames = [...new Set(listedNames.flatMap((name) => directoryNames(name)))]
const foreignNames = ['README', '.hidden', 'lost+found', 'not a registry', 'registry.example.bak']

/** What each name stands for is in `treeSteps`. */
const fileNames = [
  'ca.crt',
  'other.crt',
  'broken.crt',
  'dangling.crt',
  'directory.crt',
  'client.cert with client.key',
  'client.cert',
  'both.pem',
  'broken.cert',
  'README',
  '.foreign',
  'subdirectory',
  'pipe',
] as const

const hostKeys = [
  'https://mirror.example',
  'https://mirror.example/',
  'https://Mirror.Example:5000',
  'mirror.example',
  'mirror.example:5000/v2',
  'http://127.0.0.1:5000',
  'http://127.0.0.1:5000/',
  'HTTP://127.0.0.1:5000',
  'http://127.0.0.1:30020',
  'http://[fd00::1]:5000',
  'https://[fd00::2]/path',
  'https://mirror.example/with/path',
  'ftp://mirror.example',
  'http://a b',
  '',
]

const goodSettings = [
  "capabilities = ['pull', 'resolve']",
  "capabilities = ['pull']",
  'capabilities = ["PULL", "push"]',
  'capabilities = [\n  "pull", # comment\n  "resolve",\n]',
  "ca = 'ca.crt'",
  "ca = ['ca.crt', 'other.crt']",
  "ca = '{root}/outside/ca.crt'",
  "client = [['client.cert', 'client.key']]",
  "client = 'both.pem'",
  'skip_verify = true',
  'skip_verify = false',
  'override_path = true',
  "dial_timeout = '3s'",
  "header = { X-One = 'a', X-Two = ['b', 'c'] }",
]
const oddSettings = [
  "capabilities = 'pull'",
  "capabilities = ['fly']",
  "capabilities = ['referrers']",
  'capabilities = []',
  'ca = 1',
  'ca = []',
  "ca = 'missing.crt'",
  "ca = 'broken.crt'",
  "client = [['client.cert']]",
  'client = true',
  "client = ['missing.cert']",
  "skip_verify = 'true'",
  'skip_verify = 1',
  'override_path = 1',
  'dial_timeout = 5',
  "dial_timeout = '5'",
  "dial_timeout = ''",
  "header = ['a']",
  'header = { X-Number = 5 }',
  "unknown = 'key'",
  'unknown = 2024-01-01T00:00:00Z',
  'unknown = [1, "two"]',
  'unknown = 0x1F',
  'unknown = inf',
  'unknown = { a = 1, }',
  'unknown.dotted.key = 1',
  '"quoted key" = 1',
  "'' = 1",
  'text = """\n[host."https://inside.example"]\nskip_verify = true\n"""',
  "text = '''\n# BEGIN spegel-ts\n[host.'https://inside.example']\n'''",
  'escaped = "\\u005Bhost\\u005D \\e \\x41"',
  'bell = "\u0007"',
  'unicode = "ünïcode \u{1F600}"',
  'bytes = "\uFFFF"',
  'nul = "\u0000"',
  '# a comment',
  '# BEGIN spegel-ts',
  '# END spegel-ts',
  '# [host."https://comment.example"]',
  '\ttabs\t=\t1\t',
  '   ',
  'no value',
  'a = 1 b = 2',
  '[',
]
const topSettings = [
  "server = 'https://upstream.example'",
  "server = 'upstream.example:5000'",
  "server = 'http://upstream.example:5000/'",
  "server = 'https://upstream.example/path/'",
  'server = "https://upstream.example/v2"',
  "server = 'http://127.0.0.1:5000'",
]
const oddTopSettings = [
  'server = 1',
  "server = ''",
  "server = 'ftp://upstream.example'",
  "server = 'https://a b'",
  "server = ['https://upstream.example']",
  '"server" = "https://quoted.example"',
  'server = """https://multi.example"""',
  "host = 'https://x.example'",
  'host = []',
  'host = 1',
  'host = {}',
  "host = { 'https://inline.example' = { skip_verify = true } }",
  "host.'https://dotted.example'.skip_verify = true",
  "host.'https://dotted.example' = { capabilities = ['pull'] }",
  "[host]\n'https://below.example' = { skip_verify = true }",
  "[host]\n'https://below.example'.skip_verify = true",
  '[host]',
  '[host]\nskip_verify = true',
  '[[host]]',
  "[[host]]\nserver = 'https://array.example'",
  "[[host.'https://array.example']]",
  '[host.host]',
  '[Host."https://capital.example"]',
  ' [ host . "https://spaced.example" ] # comment',
  '[host."https://escaped.example\\u002Fpath"]',
  "[host.bare]\ncapabilities = ['pull']",
  "[host.'https://mirror.example'.header]\nX-Before = 'a'",
  "[host.'https://mirror.example'.header]\nX-Array = ['a', 'b']",
  "[host.'https://mirror.example'.unknown]\na = 1",
  '[plugins]',
  "[plugins.'io.containerd.grpc.v1.cri']\nconfig_path = '/etc/containerd/certs.d'",
  "[header]\nX-Server = 'a'",
  '[server]',
  '[]',
]

const settings = fc.oneof(
  { weight: 30, arbitrary: fc.constantFrom(...goodSettings) },
  { weight: 1, arbitrary: fc.constantFrom(...oddSettings) },
)
const settingsList = fc.uniqueArray(settings, { maxLength: 3, selector: (line) => line.split(' ')[0] })
const hostTable = fc
  .tuple(
    fc.oneof({ weight: 12, arbitrary: fc.constantFrom(...hostKeys.slice(0, 4)) }, fc.constantFrom(...hostKeys)),
    settingsList,
    fc.option(fc.constantFrom("X-Header = 'a'", "X-Header = 'b'", "X-Headers = ['a', 'b']", 'X-Number = 1'), {
      freq: 1,
    }),
    fc.constantFrom('"', '"', "'"),
  )
  .map(([key, lines, header, quote]) => [
    `[host.${quote}${key}${quote}]`,
    // There is one table of headers, inline or with a header of its own.
    ...lines.filter((line) => header === null || !line.startsWith('header')),
    ...(header === null ? [] : [`[host.${quote}${key}${quote}.header]`, header]),
  ])
const hostTables = (minLength: number) =>
  fc.uniqueArray(hostTable, { minLength, maxLength: 3, selector: ([header]) => header?.replaceAll(/["']/g, '') })
const topLines = fc
  .tuple(fc.option(fc.constantFrom(...topSettings), { freq: 2 }), settingsList)
  .map(([server, lines]) => [...(server === null ? [] : [server]), ...lines])

const usualText = fc
  .tuple(topLines, fc.oneof({ weight: 8, arbitrary: hostTables(1) }, { weight: 1, arbitrary: hostTables(0) }))
  .map(([top, tables]) => [...top, ...tables.flat()])
/** An odd fragment somewhere in a usual text. */
const oddText = fc
  .tuple(
    usualText,
    fc.array(fc.tuple(fc.nat(12), fc.constantFrom(...oddTopSettings, ...oddSettings)), {
      minLength: 1,
      maxLength: 2,
    }),
  )
  .map(([lines, odd]) =>
    odd.reduce((all, [at, fragment]) => [...all.slice(0, at), fragment, ...all.slice(at)], lines),
  )
const weighted = (usual: string, ...odd: string[]) =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, { weight: odd.length, arbitrary: fc.constantFrom(...odd) })
export const hostsText = fc
  .tuple(
    fc.oneof({ weight: 2, arbitrary: usualText }, { weight: 1, arbitrary: oddText }),
    weighted('\n', '\r\n', '\r\n', '\n\n', '\r'),
    weighted('', '\uFEFF', ' ', '\n'),
    weighted('\n', '', '\n\n', '\r\n', ' ', '\n\uFFFF', '\n\t'),
  )
  .map(([lines, newline, start, end]) => `${start}${lines.join('\n').replaceAll('\n', newline)}${end}`)

const attributes = (modes: readonly number[]): fc.Arbitrary<Attributes> =>
  fc.record({
    mode: fc.constantFrom(...modes),
    owner: fc.constantFrom(0, 0, 0, 1234),
    nanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
    xattr: fc.oneof({ weight: 8, arbitrary: fc.constant(false) }, fc.constant(true)),
  })
const fileAttributes = attributes([0o644, 0o644, 0o600, 0o640, 0o444])
const directoryAttributes = attributes([0o755, 0o755, 0o700, 0o2775])

const hostsFile: fc.Arbitrary<HostsFile> = fc.oneof(
  { weight: 2, arbitrary: fc.constant<HostsFile>({ kind: 'absent' }) },
  { weight: 10, arbitrary: fc.record({ kind: fc.constant('text'), text: hostsText, attributes: fileAttributes }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('link'),
      to: fc.constantFrom(
        '../docker.io/hosts.toml',
        '../_default/hosts.toml',
        '../../outside/hosts.toml',
        '{root}/outside/hosts.toml',
        'missing.toml',
        'hosts.toml',
      ),
    }),
  },
  { weight: 1, arbitrary: fc.constantFrom<HostsFile>({ kind: 'hardlink' }, { kind: 'directory' }) },
)

const entryName = fc.constantFrom(...entryNames, '_default', 'docker.io', 'registry.example:5000')
const directoryEntry = fc
  .record({
    kind: fc.constant('directory' as const),
    name: entryName,
    hosts: hostsFile,
    files: fc.uniqueArray(fc.constantFrom(...fileNames), { maxLength: 3 }),
    attributes: directoryAttributes,
    /** The certificates that hosts.toml names exist, most of the time. */
    isComplete: fc.oneof({ weight: 6, arbitrary: fc.constant(true) }, fc.constant(false)),
  })
  .map(({ isComplete, ...directory }) =>
    isComplete
      ? { ...directory, files: [...new Set([...directory.files, ...namedFiles(directory.hosts)])] }
      : directory,
  )

function namedFiles(hosts: HostsFile): FileName[] {
  if (hosts.kind !== 'text') return []
  const names: [string, FileName][] = [
    ["'ca.crt'", 'ca.crt'],
    ["'other.crt'", 'other.crt'],
    ['client.key', 'client.cert with client.key'],
    ['both.pem', 'both.pem'],
  ]
  return names.flatMap(([word, name]) => (hosts.text.includes(word) ? [name] : []))
}
const linkEntry = fc
  .record({
    kind: fc.constant('link' as const),
    name: entryName,
    to: fc.constantFrom(
      'docker.io',
      './_default',
      'registry.example',
      '{root}/certs.d/registry.example_5000_',
      '../outside/registry',
      '{root}/outside/registry',
      '{root}/outside/empty',
      '../outside/file',
      'missing.example',
      '{self}',
      'localhost/',
    ),
  })
  .map((entry) => ({ ...entry, to: entry.to.replace('{self}', entry.name) }))
const entry: fc.Arbitrary<TreeEntryData> = fc.oneof(
  { weight: 8, arbitrary: directoryEntry },
  { weight: 2, arbitrary: linkEntry },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('file'), name: entryName, attributes: fileAttributes }) },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.record({ kind: fc.constant('file'), name: fc.constantFrom(...foreignNames), attributes: fileAttributes }),
      fc.record({ kind: fc.constant('fifo'), name: fc.constantFrom(...foreignNames) }),
      directoryEntry.map((each) => ({ ...each, name: 'foreign directory' })),
    ),
  },
)

export const hostsTree: fc.Arbitrary<HostsTree> = fc.record({
  exists: fc.oneof({ weight: 19, arbitrary: fc.constant(true) }, fc.constant(false)),
  link: fc.oneof(
    { weight: 18, arbitrary: fc.constant('none' as const) },
    fc.constantFrom('directory' as const, 'directory' as const, 'dangling' as const),
  ),
  entries: fc.uniqueArray(entry, { maxLength: 6, selector: ({ name }) => name }),
})

/** PEM texts that the trees use. */
export interface Pems {
  ca: string
  otherCa: string
  client: string
  clientKey: string
}

/** File operations that create the tree below its parent directory `root`. */
export function treeSteps({ exists, link, entries }: HostsTree, pems: Pems, root: string): TreeStep[] {
  const certificates: TreeStep[] = ['outside/registry', 'outside'].map((directory) => ({
    op: 'file',
    path: `${directory}/ca.crt`,
    bytes: bytesOf(pems.otherCa),
  }))
  const outside: TreeStep[] = [
    { op: 'directory', path: 'outside/registry' },
    { op: 'directory', path: 'outside/empty' },
    ...certificates,
    { op: 'file', path: 'outside/file', bytes: bytesOf('a file') },
    { op: 'file', path: 'outside/hosts.toml', bytes: bytesOf("[host.'https://outside.example']\n"), ...someTime },
    {
      op: 'file',
      path: 'outside/registry/hosts.toml',
      bytes: bytesOf("server = 'https://linked.example'\n[host.'https://outside.example']\nca = 'ca.crt'\n"),
      ...someTime,
    },
  ]
  if (!exists) return outside
  const target = link === 'directory' ? 'outside/certs.d' : 'missing'
  const linked: TreeStep[] = link === 'none' ? [] : [{ op: 'link', path: 'certs.d', to: target }]
  if (link === 'dangling') return [...outside, ...linked]
  if (link === 'directory') linked.unshift({ op: 'directory', path: target })
  const inside = entries.flatMap((each) => entrySteps(each, pems, root))
  const rootTime: TreeStep = { op: 'touch', path: link === 'none' ? 'certs.d' : target, ...someTime }
  return [...outside, ...linked, { op: 'directory', path: 'certs.d' }, ...inside, rootTime]
}

/** All explicit times of a tree are in this second. */
export const treeSeconds = 1_700_000_000
const someTime = { mtime: { seconds: treeSeconds, nanoseconds: 123_456_789 } }

function entrySteps(data: TreeEntryData, pems: Pems, root: string): TreeStep[] {
  const path = `certs.d/${data.name}`
  if (data.kind === 'link') return [{ op: 'link', path, to: data.to.replaceAll('{root}', root) }]
  if (data.kind === 'fifo') return [{ op: 'fifo', path }]
  if (data.kind === 'file') return [{ op: 'file', path, bytes: bytesOf('a file'), ...attributesOf(data.attributes) }]
  return [
    { op: 'directory', path },
    ...data.files.flatMap((name) => fileSteps(path, name, pems)),
    ...hostsSteps(`${path}/hosts.toml`, data.hosts, root),
    { op: 'touch', path, ...attributesOf(data.attributes) },
  ]
}

function hostsSteps(path: string, hosts: HostsFile, root: string): TreeStep[] {
  switch (hosts.kind) {
    case 'absent':
      return []
    case 'text':
      return [
        {
          op: 'file',
          path,
          bytes: bytesOf(hosts.text.replaceAll('{root}', root)),
          ...attributesOf(hosts.attributes),
        },
      ]
    case 'link':
      return [{ op: 'link', path, to: hosts.to.replaceAll('{root}', root) }]
    case 'hardlink':
      return [{ op: 'hardlink', path, to: 'outside/hosts.toml' }]
    case 'directory':
      return [{ op: 'directory', path }]
  }
}

function fileSteps(directory: string, name: FileName, { ca, otherCa, client, clientKey }: Pems): TreeStep[] {
  const file = (to: string, text: string): TreeStep => ({
    op: 'file',
    path: `${directory}/${to}`,
    bytes: bytesOf(text),
    ...someTime,
  })
  switch (name) {
    case 'ca.crt':
      return [file(name, ca)]
    case 'other.crt':
      return [file(name, otherCa)]
    case 'broken.crt':
      return [file(name, '-----BEGIN CERTIFICATE-----\nbroken\n')]
    case 'dangling.crt':
      return [{ op: 'link', path: `${directory}/${name}`, to: 'missing' }]
    case 'directory.crt':
      return [{ op: 'directory', path: `${directory}/${name}`, mode: 0o700 }]
    case 'client.cert with client.key':
      return [file('client.cert', client), { ...file('client.key', clientKey), mode: 0o600 }]
    case 'client.cert':
    case 'both.pem':
      return [file(name, `${client}${clientKey}`)]
    case 'broken.cert':
      return [file(name, 'broken')]
    case 'README':
    case '.foreign':
      return [file(name, 'notes')]
    case 'subdirectory':
      return [file('subdirectory/deep/file', 'deep'), { op: 'link', path: `${directory}/subdirectory/up`, to: '..' }]
    case 'pipe':
      return [{ op: 'fifo', path: `${directory}/pipe` }]
  }
}

function attributesOf({ mode, owner, nanoseconds, xattr }: Attributes): Partial<TreeStep> {
  return {
    mode,
    mtime: { seconds: treeSeconds, nanoseconds },
    // Only root may give a file to somebody.
    ...(process.getuid?.() === 0 ? { uid: owner, gid: owner } : {}),
    ...(xattr ? { xattrs: { 'user.note': 'kept' } } : {}),
  }
}

/** Base64 of UTF-8; U+FFFF stands for the byte 0xff, which is never valid. */
export function bytesOf(text: string): string {
  const parts = text.split('\uFFFF').map((part) => Buffer.from(part))
  return Buffer.concat(parts.flatMap((part, index) => (index === 0 ? [part] : [Buffer.from([0xff]), part]))).toString(
    'base64',
  )
}
