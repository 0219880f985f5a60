import { describe, expect, it } from 'vitest'
import { parseMirrorTargets, parseMirroredRegistries } from '../../../src/hosts/registry-url.ts'

const registries = (...values: string[]) => parseMirroredRegistries(values, '--r')
const targets = (...values: string[]) => parseMirrorTargets(values, '--t')

describe('mirrored registries', () => {
  it('know the server of docker.io', () => {
    expect(registries('https://docker.io', 'http://localhost:5000', '*')).toEqual([
      { host: 'docker.io', server: 'https://registry-1.docker.io' },
      { host: 'localhost:5000', server: 'http://localhost:5000' },
      { host: '_default', server: undefined },
    ])
  })

  it.each([
    ['https://registry.example:443', 'registry.example:443'],
    ['http://registry.example:80', 'registry.example:80'],
    ['HTTPS://Registry.Example:5000/', 'registry.example:5000'],
    ['https://[fd00::1]:443', '[fd00::1]:443'],
    ['https://10.0.0.1', '10.0.0.1'],
  ])('keep the port of %s, because containerd looks for it', (value, host) => {
    expect(registries(value)[0]?.host).toBe(host)
  })

  it.each([
    ['docker.io', /is not a URL/],
    ['ftp://x', /is not a URL/],
    ['', /is not a URL/],
    ['https://', /has no valid host/],
    ['https://x/path', /more than a host/],
    ['https://x?y', /more than a host/],
    ['https://u:p@x', /^--r: "https:\/\/x" has more than a host/],
    ['https://x:0', /no valid port/],
    ['https://x:65536', /no valid port/],
    ['https://x:', /no valid port/],
    ['https://x:5000:5000', /no valid port/],
    ["https://a'b", /no valid host/],
    ['https://a b', /no valid host/],
    ['https://1.2.3', /no valid host/],
    ['https://[fe80::1%eth0]', /no valid host: leave out the zone/],
    ['https://*.example', /wildcard.*_default/],
    ['https://$(REGISTRY)', /contains \$\(REGISTRY\), a variable/],
    ['https://${REGISTRY}:5000', /contains \$\{REGISTRY\}, a variable/],
    ['https://index.docker.io', /write https:\/\/docker\.io/],
    ['https://registry-1.docker.io', /write https:\/\/docker\.io/],
    ['https://registry-1.docker.io:443', /write https:\/\/docker\.io/],
  ])('refuse %s', (value, message) => {
    expect(() => registries(value)).toThrow(/^--r: "/)
    expect(() => registries(value)).toThrow(message)
  })

  it('refuse a registry named twice', () => {
    expect(() => registries('*', '_default')).toThrow(/_default is named twice/)
    expect(() => registries('https://x.example', 'http://X.example')).toThrow(/x\.example is named twice/)
  })
})

describe('mirror targets', () => {
  it('are needed', () => {
    expect(() => targets()).toThrow(/^--t: name at least one/)
    expect(() => targets('_default')).toThrow(/is not a URL/)
  })

  it('are kept once each, also where they are written differently', () => {
    expect(targets('http://mirror:80', 'http://MIRROR/', 'http://mirror:8080', 'https://mirror:443')).toEqual([
      'http://mirror',
      'http://mirror:8080',
      'https://mirror:443',
    ])
  })

  it('get brackets around an IPv6 address with a port', () => {
    expect(targets('http://fd00:10::1:30020', 'http://[::1]:5000')).toEqual([
      'http://[fd00:10::1]:30020',
      'http://[::1]:5000',
    ])
  })

  it.each([
    "http://a'b:5000",
    'http://a"b',
    'http://$(NODE_IP):5000',
    'http://%NODE_IP%',
    'http://0.0.0.0:5000',
    'http://[::]:1',
  ])('refuse %s', (value) => {
    expect(() => targets(value)).toThrow(/^--t: "/)
  })
})
