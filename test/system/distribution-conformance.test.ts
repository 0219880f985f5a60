/** OCI's conformance test suite for registries (pull), over content in the daemon's own store and content of a peer. */
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeImage } from '../../src/images/image.ts'
import { waitUntil } from '../../src/testbed/process.ts'
import { distributionConformanceVersion, prepareDistributionConformance } from '../../src/testbed/tools.ts'
import { DaemonProcess } from '../support/daemon-process.ts'
import { type PreparedContent, runConformance } from '../support/distribution-conformance.ts'

const registry = 'registry.test'
const repository = 'conformance/app'
/** Addresses of the machine that no other test uses. */
const [holderIp, mirrorIp] = ['127.90.1.1', '127.90.1.2']

describe('the distribution conformance suite', () => {
  let folder: string | undefined
  let program: string
  const daemons: DaemonProcess[] = []
  let holder: DaemonProcess
  let mirror: DaemonProcess
  let content: Omit<PreparedContent, 'registry'>

  beforeAll(async () => {
    program = await prepareDistributionConformance((line) => process.stderr.write(`set-up: ${line}\n`))
    folder = await mkdtemp(join(tmpdir(), 'spegel-ts-conformance-'))
    // The suite sends no `ns` parameter.
    const options = [`--default-registry=${registry}`]
    holder = await DaemonProcess.start(folder, holderIp, undefined, options)
    daemons.push(holder)
    mirror = await DaemonProcess.start(folder, mirrorIp, holderIp, options)
    daemons.push(mirror)
    const image = await writeImage(holder.layout, {
      name: `${registry}/${repository}:v1`,
      sizeBytes: 2 * 1024 * 1024,
      layers: 2,
      seed: 'conformance',
      index: true,
    })
    content = {
      repository,
      tags: ['v1'],
      manifests: [image.target.digest, image.manifest.digest],
      blobs: [image.config, ...image.layers].map(({ digest }) => digest),
    }
    const paths = [
      ...content.tags.map((tag) => `manifests/${tag}`),
      ...content.manifests.map((digest) => `manifests/${digest}`),
      ...content.blobs.map((digest) => `blobs/${digest}`),
    ]
    // Announcements take a moment to reach the swarm, and the suite requests each path once.
    const isComplete = async () => {
      const requests = paths.map((path) => fetch(`${mirror.url}/v2/${repository}/${path}`, { method: 'HEAD' }))
      return (await Promise.all(requests)).every(({ status }) => status === 200)
    }
    await waitUntil('the content in the swarm', isComplete, { timeoutMs: 10_000 })
  })
  afterAll(async () => {
    await Promise.all(daemons.map((daemon) => daemon.stop()))
    if (folder !== undefined) await rm(folder, { recursive: true, force: true })
  })

  it.each(['own store', 'peer'])('passes with the content in the: %s', async (source) => {
    const daemon = source === 'peer' ? mirror : holder
    const { failures, ...counts } = await runConformance(program, { ...content, registry: `${daemon.ip}:5000` })
    process.stdout.write(`conformance, ${source}: ${JSON.stringify(counts)}\n`)
    expect(failures).toEqual([])
    expect(counts).toEqual(await published(source))
  })

  it('got everything from the peer where the store is empty', async () => {
    expect(await readdir(mirror.layout)).toEqual([])
    expect(await mirror.metrics()).toMatch(
      /^spegel_mirror_requests_total\{registry="registry\.test",cache="hit"\} \d/m,
    )
    expect(mirror.complaints()).toEqual([])
    expect(holder.complaints()).toEqual([])
  })

  it('is the version whose result is published', async () => {
    expect(await conformancePage()).toContain(await distributionConformanceVersion())
  })
})

/** A row of the table in docs/conformance.md. */
async function published(source: string): Promise<{ passed: number; failed: number; skipped: number }> {
  const row = (await conformancePage()).split('\n').find((line) => line.startsWith(`| ${source} |`))
  const [passed, failed, skipped] = (row?.match(/\d+/g) ?? []).map(Number)
  if (passed === undefined || failed === undefined || skipped === undefined) {
    throw new Error(`docs/conformance.md has no row "${source}" with three numbers`)
  }
  return { passed, failed, skipped }
}

function conformancePage(): Promise<string> {
  return readFile(join(import.meta.dirname, '../../docs/conformance.md'), 'utf8')
}
