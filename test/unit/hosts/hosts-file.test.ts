import { parse } from 'smol-toml'
import { describe, expect, it } from 'vitest'
import { dialectOf } from '../../../src/hosts/containerd-dialect.ts'
import { type Obstacle, ObstacleError, prependMirror, readHostsDocument } from '../../../src/hosts/hosts-file.ts'
import { insertBlock } from '../../../src/hosts/mirror-block.ts'

const one = { targets: ['http://127.0.0.1:5000'], resolveTags: true, authorization: undefined }
const newest = dialectOf('v2.3.4')

function prepend(
  text: string,
  { mirror = one, directory = 'own.example', dialect = newest, hasCertificates = false } = {},
) {
  const document = readHostsDocument(text, dialect)
  const { at, tables } = prependMirror(document, directory, mirror, { dialect, hasCertificates })
  return insertBlock(text, at, tables)
}

function obstacle(run: () => unknown): Obstacle | undefined {
  try {
    run()
  } catch (error) {
    if (error instanceof ObstacleError) return error.obstacle
    throw error
  }
  return undefined
}

describe('prependMirror', () => {
  const existing = `server = "https://own.example"
note = """
[host."not a table"]
"""
ca = [
  "/etc/own.crt",
]
[host."https://cache.example"] # first
  capabilities = ["pull"]
  ca = ["/etc/a.crt", "/etc/b.crt"]
  [host."https://cache.example".header]
    x-team = ["a"]
[ host . 'https://second.example' ]
  skip_verify = true
`

  it('keeps every byte of the user behind the mirror', () => {
    const text = prepend(existing)
    expect(text.replace(/# BEGIN spegel-ts[^]*# END spegel-ts\n/, '')).toBe(existing)
    const parsed = parse(text)
    expect(parsed['server']).toBe('https://own.example')
    expect(Object.keys(parsed['host'] as object)).toEqual([
      'http://127.0.0.1:5000',
      'https://cache.example',
      'https://second.example',
    ])
  })

  it.each([
    ['CRLF', existing.replaceAll('\n', '\r\n')],
    ['no newline at the end', existing.trimEnd()],
    ['no table at all', 'server = "https://own.example"'],
    ['only a comment', '# nothing yet'],
    ['another table first', '[plugins]\nx = 1\n[host."https://cache.example"]\n'],
  ])('accepts a file with %s', (_what, text) => {
    expect(Object.keys(parse(prepend(text))['host'] as object)[0]).toBe('http://127.0.0.1:5000')
  })

  it.each([
    ['server = ', /not valid TOML/],
    ['\uFEFF[host."https://x"]', /byte order mark/],
    ['a = 1\r[host."https://x"]', /control characters/],
    ['[host]\nskip_verify = true', /host\.skip_verify has the wrong type/],
    ['host = "https://x"', /host has the wrong type/],
    ['[[host]]\nurl = "https://x"', /host has the wrong type/],
    ['[host]\n"https://x" = { skip_verify = true }', /no table of its own/],
    ['host."https://x".skip_verify = true', /no table of its own/],
    ['host = { "https://x" = {} }', /no table of its own/],
    ['[host]\n[host."https://x"]', /\[host\] table/],
    ['[Host."https://x"]', /read "Host" at the top differently/],
    ['[host."https://x"]\nSkip_Verify = true', /read "Skip_Verify" of host "https:\/\/x" differently/],
    ['[host."https://x"]\ncapabilities = "pull"', /capabilities of host "https:\/\/x" has the wrong type/],
    ['[host."https://x"]\ncapabilities = ["fly"]', /capability "fly"/],
    ['[host."https://x"]\nca = 1', /wrong type/],
    ['[host."https://x"]\nclient = [["a", "b", "c"]]', /wrong type/],
    ['[host."https://x"]\nskip_verify = "true"', /wrong type/],
    ['[host."https://x"]\noverride_path = 1', /wrong type/],
    ['[host."https://x"]\ndial_timeout = 3', /wrong type/],
    ['[host."https://x"]\ndial_timeout = "soon"', /wrong type/],
    ['[host."https://x"]\n[host."https://x".header]\na = 1', /wrong type/],
    ['server = 1', /server has the wrong type/],
    ['server = "https://a b"', /not a plain URL/],
    ['server = "httpbin.example"', /not a plain URL/],
    ['[host."https://x/%zz"]', /not a plain URL/],
    ['[host."http://127.0.0.1:5000/"]', /names the mirror itself/],
    ['[host."HTTP://127.0.0.1:5000"]', /not a plain URL|names the mirror itself/],
  ])('leaves %j to the user', (text, reason) => {
    const found = obstacle(() => prepend(text))
    expect(found?.reason).toMatch(reason)
    expect(found?.remedy).not.toBe('')
  })

  it('leaves a file without hosts alone where containerd 1.6 may ignore it', () => {
    const oldest = dialectOf('1.6.20~ds1')
    for (const text of ['server = "https://other"\n', 'ca = "ca.crt"\n', 'skip_verify = true\n']) {
      expect(obstacle(() => prepend(text, { dialect: oldest }))?.reason).toMatch(/no \[host\] table/)
      expect(obstacle(() => prepend(text, { dialect: dialectOf(undefined) }))?.reason).toMatch(/no \[host\] table/)
      expect(obstacle(() => prepend(text))).toBeUndefined()
    }
    expect(obstacle(() => prepend('server = "https://own.example"\n', { dialect: oldest }))).toBeUndefined()
    expect(obstacle(() => prepend('# none\n', { dialect: oldest }))).toBeUndefined()
    expect(obstacle(() => prepend('# none\n', { dialect: oldest, hasCertificates: true }))).toBeDefined()
  })

  it('leaves a file alone where the IPv6 address of a mirror would make containerd 1.7 ignore it', () => {
    const mirror = { ...one, targets: ['http://[fd00::1]:30020'] }
    const text = '[host."https://cache.example"]\n'
    expect(obstacle(() => prepend(text, { mirror, dialect: dialectOf('1.7.29') }))?.reason).toMatch(/IPv6/)
    expect(Object.keys(parse(prepend(text, { mirror }))['host'] as object)[0]).toBe('http://[fd00::1]:30020')
  })
})

describe('the CA of the upstream, for redirects to it', () => {
  const server = "server = 'https://own.example'\n"
  const itself = "[host.'https://own.example']\ncapabilities = ['pull']\nca = 'ca.crt'\n"
  const mirror = (text: string, change: Partial<typeof one> = {}, directory?: string) =>
    (
      parse(prepend(text, { mirror: { ...one, ...change }, ...(directory === undefined ? {} : { directory }) }))[
        'host'
      ] as Record<string, object>
    )['http://127.0.0.1:5000']
  const plain = { capabilities: ['pull', 'resolve'], dial_timeout: '200ms' }

  it.each([
    ["the server's", `${server}ca = 'ca.crt'\n`, 'ca.crt'],
    ["the server's, several", `${server}ca = ['/etc/a.crt', 'b.crt']\n`, ['/etc/a.crt', 'b.crt']],
    ["the registry's own", "ca = 'ca.crt'\n", 'ca.crt'],
    ['that of a host that is the server', `${server}${itself}`, 'ca.crt'],
    ['that of a host that is the registry', itself, 'ca.crt'],
    ['not that of the server where the host has one', `${server}ca = 'other.crt'\n${itself}`, 'ca.crt'],
  ])('is copied to the mirror: %s', (_what, text, ca) => {
    expect(mirror(text)).toEqual({ ...plain, ca })
  })

  it('is found in a directory with a port in its name', () => {
    const withPort = itself.replace('own.example', 'own.example:8443')
    expect(mirror(withPort, {}, 'own.example_8443_')).toEqual({ ...plain, ca: 'ca.crt' })
    expect(mirror(withPort, {}, 'own.example:8443')).toEqual({ ...plain, ca: 'ca.crt' })
    expect(mirror(withPort, {}, 'own.example')).toEqual(plain)
  })

  it('stays where it is when there is no redirect', () => {
    const text = `${server}ca = 'ca.crt'\n`
    expect(mirror(text, { targets: ['http://127.0.0.1:5000', 'http://10.0.0.1:5000'] })).toEqual(plain)
    expect(mirror(text, { authorization: 'Basic x' as never })).not.toHaveProperty('ca')
  })

  it.each([
    ['skip_verify', `${server}ca = 'ca.crt'\nskip_verify = true\n`],
    ['a client certificate', `${server}ca = 'ca.crt'\nclient = 'me.pem'\n`],
    ['a header', `${server}ca = 'ca.crt'\n[header]\nx = 'y'\n`],
    ['skip_verify of a host that is the server', `${server}${itself}skip_verify = true\n`],
    ['a client certificate of it', `${server}${itself}client = 'me.pem'\n`],
    ['a header of it', `${server}${itself}[host.'https://own.example'.header]\nx = 'y'\n`],
    ['a host that does not pull', `${server}${itself.replace('pull', 'push')}`],
    ['a host that is another', `${server}ca = 'ca.crt'\n[host.'https://cache.example']\nca = 'cache.crt'\n`],
    ['two hosts', `${server}${itself}[host.'https://cache.example']\n`],
  ])('stays where it is, and nothing else is copied: %s', (_what, text) => {
    expect(mirror(text)).toEqual(plain)
  })
})
