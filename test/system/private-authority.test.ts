/**
 * A registry whose certificate is signed by an authority that only hosts.toml names: a lease is a redirect to it, which
 * containerd has to trust by what our table says. A redirect that is refused would go unnoticed, since containerd then takes
 * the next host: so the registry's log tells who sent a request there.
 */
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type WrittenImage, writeImage } from '../../src/images/image.ts'
import { Cluster, type ClusterInit } from '../../src/testbed/cluster.ts'
import { RegistryProcess } from '../../src/testbed/registry-process.ts'
import { Authority } from '../support/authority.ts'

const MiB = 1024 * 1024
const pullTimeoutMs = 60_000

/** How a user names the authority: files in the registry's folder, without and with hosts.toml. */
const allForms: { name: string; hostsToml?: (url: string) => string }[] = [
  { name: 'by its file alone' },
  { name: 'for the server', hostsToml: (url) => `server = "${url}"\nca = "authority.crt"\n` },
  {
    name: 'for a host that is the server',
    hostsToml: (url) => `server = "${url}"\n[host."${url}"]\nca = ["authority.crt"]\n`,
  },
]
const versions: { containerd: ClusterInit['containerd']; forms: typeof allForms }[] = [
  { containerd: 'containerdNew', forms: allForms },
  // containerd 1.6 ignores a hosts.toml without a [host] table, so `configuration` leaves that registry as it is.
  { containerd: 'containerdOld', forms: allForms.filter(({ name }) => name !== 'for the server') },
]

describe.each(versions)('a registry with an authority of its own: $containerd', ({ containerd, forms }) => {
  let cluster: Cluster
  let registry: RegistryProcess

  beforeAll(async () => {
    cluster = await Cluster.create({ nodes: forms.length, containerd, withoutDaemons: true })
    const { client } = cluster
    const authority = await Authority.create(join(cluster.folder, 'authority'))
    const serving = await authority.issue('registry', '/CN=registry', [`IP:${client.ip}`])
    const tls = { ...serving, authority: authority.certificate }
    registry = new RegistryProcess(client, cluster.tools.registry, join(cluster.folder, 'tls'), { tls })
    await registry.start()
    for (const [index, { hostsToml }] of forms.entries()) {
      const node = cluster.node(index + 1)
      const own = join(node.certsFolder, host())
      await mkdir(own, { recursive: true })
      await copyFile(authority.certificate, join(own, 'authority.crt'))
      if (hostsToml !== undefined) await writeFile(join(own, 'hosts.toml'), hostsToml(registry.url))
      await node.configure('_default')
      await node.startDaemon(cluster.peers)
    }
  })
  afterAll(async () => {
    await registry.stop()
    await cluster.close()
  })

  const host = () => new URL(registry.url).host
  const publish = async (name: string): Promise<WrittenImage & { reference: string }> => {
    const reference = `${host()}/${name}:v1`
    const layout = join(cluster.folder, name)
    const image = await writeImage(layout, { name: reference, sizeBytes: 12 * MiB, layers: 3, seed: name })
    await registry.place(layout, image, name, 'v1')
    return { ...image, reference }
  }
  const log = () => readFile(join(cluster.folder, 'tls/log'), 'utf8')
  /** GETs of a layer that were answered: who asked, and by whom a redirect sent it. */
  const asked = async ({ layers }: WrittenImage) =>
    [...(await log()).matchAll(/^(\S+) - - \[[^\]]*\] "GET (\S+) HTTP\/1\.1" (\d+) \d+ "([^"]*)"/gm)]
      .filter(([, , path = '']) => layers.some(({ digest }) => path.endsWith(digest)))
      .map(([, client, , status, referer = '']) => ({ client, status, by: URL.parse(referer)?.host }))

  it.each(forms.map(({ name }, index) => ({ name, number: index + 1 })))(
    'is reached by redirect where it is named $name',
    async ({ number }) => {
      const image = await publish(`alone-${number}`)
      const node = cluster.node(number)
      await node.cri.pull(image.reference, pullTimeoutMs)
      const redirected = { client: node.host.ip, status: '200', by: '127.0.0.1:5000' }
      expect(await asked(image)).toEqual(image.layers.map(() => redirected))
      // One that does not trust it says so by a handshake that fails.
      expect(await log()).not.toContain('TLS handshake error')
    },
  )

  it('is asked once for each layer when all pull at once', async () => {
    const image = await publish('together')
    await Promise.all(cluster.nodes.map(({ cri }) => cri.pull(image.reference, pullTimeoutMs)))
    expect((await asked(image)).map(({ by }) => by)).toEqual(image.layers.map(() => '127.0.0.1:5000'))
  })
})
