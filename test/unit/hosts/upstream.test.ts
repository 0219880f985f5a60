/** Where a redirect may send containerd: only where it would go anyway, by the same rules. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { upstreamOrigin } from '../../../src/hosts/upstream.ts'

const mirror = "[host.'http://127.0.0.1:5000']\ncapabilities = ['pull']\ndial_timeout = '200ms'\n"

let folder: string
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'upstream-'))))
afterEach(() => rmSync(folder, { recursive: true }))

function write(name: string, text: string): void {
  mkdirSync(join(folder, name), { recursive: true })
  writeFileSync(join(folder, name, 'hosts.toml'), text)
}

describe('the upstream of a registry', () => {
  it.each([
    ["server = 'https://example.org'\n", 'https://example.org'],
    ['server = "https://example.org"\n', 'https://example.org'],
    ["server = 'https://example.org/'\n", 'https://example.org'],
    ["server = 'https://example.org/v2'\n", 'https://example.org'],
    ["server = 'https://example.org/v2/'\n", 'https://example.org'],
    ["server = 'https://cache.example.org:8443'\n", 'https://cache.example.org:8443'],
    ["server = 'http://example.org:8080'\n", 'http://example.org:8080'],
    ["server = 'cache.example.org'\n", 'https://cache.example.org'],
    ["server = 'https://[fd00::1]:5000'\n", 'https://[fd00::1]:5000'],
  ])('is its server: %s', async (head, origin) => {
    write('example.org', head + mirror)
    expect(await upstreamOrigin(folder, 'example.org')).toBe(origin)
  })

  it('is the registry itself where no server is named', async () => {
    for (const registry of ['docker.io', 'ghcr.io', 'example.org:8443']) write(registry, mirror)
    expect(await upstreamOrigin(folder, 'docker.io')).toBe('https://registry-1.docker.io')
    expect(await upstreamOrigin(folder, 'ghcr.io')).toBe('https://ghcr.io')
    expect(await upstreamOrigin(folder, 'example.org:8443')).toBe('https://example.org:8443')
  })

  it('is left to containerd for a registry on this machine, which it may ask without TLS', async () => {
    for (const registry of ['localhost:5000', 'localhost', '127.0.0.1:5000', '[::1]:5000']) {
      write(registry, mirror)
      expect(await upstreamOrigin(folder, registry)).toBeUndefined()
    }
    write('localhost:5000', `server = 'http://localhost:5000'\n${mirror}`)
    expect(await upstreamOrigin(folder, 'localhost:5000')).toBe('http://localhost:5000')
  })

  it.each([
    ['a cache of the user', `server = 'https://example.org'\n${mirror}[host.'https://cache.example.org']\n`],
    ['no host', "server = 'https://example.org'\n"],
    ['no mirror but what is not a table', "server = 'https://example.org'\nhost = [1]\n"],
    ['a header for the mirror', `${mirror}[host.'http://127.0.0.1:5000'.header]\nAuthorization = 'Basic x'\n`],
    ['skip_verify for the mirror', `${mirror}skip_verify = true\n`],
    ['override_path for the mirror', `${mirror}override_path = true\n`],
    ['a client certificate for the mirror', `${mirror}client = '/etc/client.pem'\n`],
    ['skip_verify for the server', `server = 'https://example.org'\nskip_verify = true\n${mirror}`],
    ['override_path for the server', `server = 'https://example.org'\noverride_path = true\n${mirror}`],
    ['a client certificate for the server', `server = 'https://example.org'\nclient = '/c.pem'\n${mirror}`],
    ['a header for the server', `server = 'https://example.org'\n${mirror}[header]\nx = 'y'\n`],
    ['a ca for the server that the mirror has not', `server = 'https://example.org'\nca = '/ca.pem'\n${mirror}`],
    ['a path', `server = 'https://example.org/proxy/v2'\n${mirror}`],
    ['another scheme', `server = 'ftp://example.org'\n${mirror}`],
    ['a password', `server = 'https://user:password@example.org'\n${mirror}`],
    ['no URL', `server = 'https://'\n${mirror}`],
    ['a number', `server = 5\n${mirror}`],
    ['broken TOML', `server = 'https://example.org\n${mirror}`],
  ])('is left to containerd with %s', async (_why, text) => {
    write('example.org', text)
    expect(await upstreamOrigin(folder, 'example.org')).toBeUndefined()
  })

  it('may have a private ca when the mirror has the same', async () => {
    write('example.org', `server = 'https://example.org'\nca = '/ca.pem'\n${mirror}ca = '/ca.pem'\n`)
    expect(await upstreamOrigin(folder, 'example.org')).toBe('https://example.org')
    write('example.org', `server = 'https://example.org'\nca = '/ca.pem'\n${mirror}ca = '/other.pem'\n`)
    expect(await upstreamOrigin(folder, 'example.org')).toBeUndefined()
  })

  it('may be named as a host once more, with a private ca that the mirror has too', async () => {
    const itself = "[host.'https://example.org']\ncapabilities = ['pull', 'resolve']\n"
    const server = "server = 'https://example.org'\n"
    for (const [text, origin] of [
      [`${server}${mirror}${itself}`, 'https://example.org'],
      [`${mirror}${itself}`, 'https://example.org'],
      [`${server}${mirror}ca = 'ca.pem'\n${itself}ca = 'ca.pem'\n`, 'https://example.org'],
      // What is said of the server counts only when this host has failed.
      [`${server}skip_verify = true\n${mirror}${itself}`, 'https://example.org'],
      [`${server}${mirror}${itself}ca = 'ca.pem'\n`, undefined],
      [`${server}${mirror}${itself.replace("'pull', ", '')}`, undefined],
      [`${server}${mirror}${itself}skip_verify = true\n`, undefined],
      [`${server}${mirror}${itself}client = 'c.pem'\n`, undefined],
      [`${server}${mirror}${itself}[host.'https://example.org'.header]\nx = 'y'\n`, undefined],
      [`${server}${mirror}${itself.replace('.org', '.org:8443')}`, undefined],
      [`${server}${mirror}${itself.replace('.org', '.org/proxy')}`, undefined],
      [`${server}${mirror}${itself}[host.'http://example.org']\n`, undefined],
    ] as const) {
      write('example.org', text)
      expect(await upstreamOrigin(folder, 'example.org'), text).toBe(origin)
    }
  })

  it('is looked for where containerd looks, in its order', async () => {
    expect(await upstreamOrigin(folder, 'example.org:5000')).toBeUndefined()
    write('_default', mirror)
    expect(await upstreamOrigin(folder, 'example.org:5000')).toBe('https://example.org:5000')
    write('example.org:5000', `server = 'https://second.example.org'\n${mirror}`)
    expect(await upstreamOrigin(folder, 'example.org:5000')).toBe('https://second.example.org')
    write('example.org_5000_', `server = 'https://first.example.org'\n${mirror}`)
    expect(await upstreamOrigin(folder, 'example.org:5000')).toBe('https://first.example.org')
    write('example.org_5000_', 'broken')
    expect(await upstreamOrigin(folder, 'example.org:5000')).toBeUndefined()
  })

  it('is left to containerd where a file is closed to us', async () => {
    write('_default', mirror)
    mkdirSync(join(folder, 'closed.example'))
    // Root may read everything but a link to itself.
    symlinkSync('hosts.toml', join(folder, 'closed.example/hosts.toml'))
    expect(await upstreamOrigin(folder, 'open.example')).toBe('https://open.example')
    expect(await upstreamOrigin(folder, 'closed.example')).toBeUndefined()
  })

  it('is read anew each time, as containerd does', async () => {
    write('example.org', mirror)
    expect(await upstreamOrigin(folder, 'example.org')).toBe('https://example.org')
    write('example.org', `${mirror}skip_verify = true\n`)
    expect(await upstreamOrigin(folder, 'example.org')).toBeUndefined()
  })

  it('is nobody in a folder that is not there', async () => {
    expect(await upstreamOrigin(join(folder, 'missing'), 'example.org')).toBeUndefined()
  })
})
