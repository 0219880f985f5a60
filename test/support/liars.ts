/** Holders that lie, all in one process on the cluster's client host, each with an address of its own. */
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { end, output } from '../../src/testbed/process.ts'
import { blobPath } from '../../src/images/layout.ts'
import type { Digest } from '../../src/oci/digest.ts'
import type { FaultBed, Published } from './fault-bed.ts'
import type { Lie, LiarInit, LiarMessage, LiarsInit } from './liar-process.ts'

const program = fileURLToPath(new URL('./liar-process.ts', import.meta.url))

export class Liars {
  /** What was asked of each, as `GET /v2/…`. */
  readonly asked = new Map<Lie, string[]>()
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Each says that it has all of its images. Resolves when they are in the swarm. */
  static async start(bed: FaultBed, images: ReadonlyMap<Lie, readonly Published[]>): Promise<Liars> {
    const { client, nodes } = bed.cluster
    const init: LiarsInit = { firstPeers: nodes.map(({ host }) => `/ip4/${host.ip}/tcp/5001`), liars: [] }
    for (const [lie, published] of images) {
      const ip = client.ip.replace(/\d+$/, String(101 + init.liars.length))
      await output(client.spawn('ip', ['addr', 'replace', `${ip}/24`, 'dev', 'eth0']))
      init.liars.push({ ip, lie, ...possessions(bed, published) })
    }
    const child = client.spawn(process.execPath, [program], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    const liars = new Liars(child)
    await new Promise<void>((resolve, reject) => {
      child.once('exit', (code) => reject(new Error(`the liars ended with ${code}`)))
      child.on('message', (message: LiarMessage) => {
        if ('ready' in message) resolve()
        else liars.#noteAsked(message.asked as Lie, `${message.method} ${message.path}`)
      })
      child.send(init)
    })
    return liars
  }

  async close(): Promise<void> {
    await end(this.#child, 'SIGKILL')
  }

  #noteAsked(lie: Lie, what: string): void {
    this.asked.set(lie, [...(this.asked.get(lie) ?? []), what])
  }
}

function possessions(bed: FaultBed, published: readonly Published[]): Pick<LiarInit, 'keys' | 'files'> {
  const keys: string[] = []
  const files: LiarInit['files'] = {}
  for (const { repository, reference, image } of published) {
    const layout = bed.cluster.layoutOf(`${repository}:v1`)
    const have = (key: string, path: string, digest: Digest) => {
      keys.push(key)
      files[`/v2/${repository}/${path}`] = { digest, file: blobPath(layout, digest) }
    }
    have(reference, 'manifests/v1', image.target.digest)
    have(image.manifest.digest, `manifests/${image.manifest.digest}`, image.manifest.digest)
    for (const { digest } of [image.config, ...image.layers]) have(digest, `blobs/${digest}`, digest)
  }
  return { keys, files }
}
