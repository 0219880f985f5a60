import { parse } from 'smol-toml'
import { describe, expect, it } from 'vitest'
import { type HostsTomlInit, prependHostsToml, renderHostsToml } from '../../../src/hosts/hosts-toml.ts'
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

  const prepend = (text: string, change: Partial<HostsTomlInit> = {}, folder = 'own.example') =>
    prependHostsToml({ text, path: '/etc/x/hosts.toml', folder }, { ...init, ...change })

  it('keeps everything of the user behind the mirror', () => {
    const text = prepend(existing)
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
    expect(parse(prepend(prepend(existing)))).toEqual(parse(prepend(existing)))
  })

  it('refuses what is not TOML, naming the file', () => {
    expect(() => prepend('server = ')).toThrow(/^\/etc\/x\/hosts\.toml: .*nothing was changed$/)
  })

  describe('the authority of the upstream, for redirects to it', () => {
    const one = { server: undefined, targets: ['http://127.0.0.1:5000'] }
    const server = "server = 'https://own.example'\n"
    const itself = "[host.'https://own.example']\ncapabilities = ['pull']\nca = 'ca.crt'\n"
    const mirror = (text: string, change: Partial<HostsTomlInit> = {}, folder?: string) =>
      (parse(prepend(text, { ...one, ...change }, folder))['host'] as Record<string, object>)['http://127.0.0.1:5000']
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

    it('is found in a folder with a port in its name', () => {
      const withPort = itself.replace('own.example', 'own.example:8443')
      expect(mirror(withPort, {}, 'own.example_8443_')).toEqual({ ...plain, ca: 'ca.crt' })
      expect(mirror(withPort, {}, 'own.example:8443')).toEqual({ ...plain, ca: 'ca.crt' })
      expect(mirror(withPort, {}, 'own.example')).toEqual(plain)
    })

    it('stays where it is when there is no redirect', () => {
      const text = `${server}ca = 'ca.crt'\n`
      expect(mirror(text, { targets: ['http://127.0.0.1:5000', 'http://10.0.0.1:5000'] })).toEqual(plain)
      expect(mirror(text, { authorization: 'Basic x' })).not.toHaveProperty('ca')
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
