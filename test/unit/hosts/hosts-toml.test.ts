import { parse } from 'smol-toml'
import { describe, expect, it } from 'vitest'
import { prependHostsToml, renderHostsToml } from '../../../src/hosts/hosts-toml.ts'
import { parseMirrorTargets, parseMirroredRegistries } from '../../../src/hosts/registry-url.ts'

const init = {
  server: 'https://registry-1.docker.io',
  targets: ['http://127.0.0.1:5000', 'http://10.0.0.1:30020'],
  resolveTags: true,
  authorization: undefined,
}

describe('renderHostsToml', () => {
  it('names the server and the mirrors in order', () => {
    expect(renderHostsToml(init)).toBe(`server = 'https://registry-1.docker.io'

[host.'http://127.0.0.1:5000']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'

[host.'http://10.0.0.1:30020']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'
`)
  })

  it('leaves out the server of _default, resolving of tags, and adds the password where asked', () => {
    const text = renderHostsToml({
      server: undefined,
      targets: ['http://127.0.0.1:5000'],
      resolveTags: false,
      authorization: 'Basic dTpw',
    })
    expect(parse(text)).toEqual({
      host: {
        'http://127.0.0.1:5000': {
          capabilities: ['pull'],
          dial_timeout: '200ms',
          header: { Authorization: 'Basic dTpw' },
        },
      },
    })
  })
})

describe('prependHostsToml', () => {
  const existing = `server = "https://own.example"
ca = "/etc/own.crt"
[host."https://cache.example"]
  capabilities = ["pull"]
  ca = ["/etc/a.crt", "/etc/b.crt"]
  [host."https://cache.example".header]
    x-team = ["a"]
[host."https://second.example"]
  skip_verify = true
`

  it('keeps everything of the user behind the mirror', () => {
    const text = prependHostsToml(existing, 'x', init)
    const parsed = parse(text)
    expect(parsed['server']).toBe('https://own.example')
    expect(parsed['ca']).toBe('/etc/own.crt')
    expect(Object.keys(parsed['host'] as object)).toEqual([
      ...init.targets,
      'https://cache.example',
      'https://second.example',
    ])
    expect(parsed['host']).toMatchObject(parse(existing)['host'] as object)
  })

  it('does not name a mirror twice', () => {
    const again = prependHostsToml(prependHostsToml(existing, 'x', init), 'x', init)
    expect(parse(again)).toEqual(parse(prependHostsToml(existing, 'x', init)))
  })

  it('refuses what is not TOML, naming the file', () => {
    expect(() => prependHostsToml('server = ', '/etc/x/hosts.toml', init)).toThrow(
      /^\/etc\/x\/hosts\.toml: .*nothing was changed$/,
    )
  })
})

describe('registries and targets', () => {
  it('know where docker.io really is', () => {
    expect(parseMirroredRegistries(['https://docker.io', 'http://localhost:5000', '*'], '--r')).toEqual([
      { host: 'docker.io', server: 'https://registry-1.docker.io' },
      { host: 'localhost:5000', server: 'http://localhost:5000' },
      { host: '_default', server: undefined },
    ])
  })

  it.each(['docker.io', 'ftp://x', 'https://x/path', 'https://u:p@x', 'https://x?y', ''])('refuse %s', (value) => {
    expect(() => parseMirroredRegistries([value], '--r')).toThrow(/^--r: /)
  })

  it('refuse a registry named twice, and no target at all', () => {
    expect(() => parseMirroredRegistries(['*', '_default'], '--r')).toThrow(/named twice/)
    expect(() => parseMirrorTargets([], '--t')).toThrow(/^--t: name at least one/)
    expect(() => parseMirrorTargets(['_default'], '--t')).toThrow(/is not a URL/)
  })

  it('put brackets around an IPv6 address with a port', () => {
    expect(parseMirrorTargets(['http://fd00:10::1:30020', 'http://[::1]:5000'], '--t')).toEqual([
      'http://[fd00:10::1]:30020',
      'http://[::1]:5000',
    ])
  })
})
