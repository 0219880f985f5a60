/** Buildah in a folder of its own: storage, mounts and settings vanish with it. */
import { type SpawnOptions, spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { output } from '../src/testbed/process.ts'

export class Buildah {
  readonly folder: string
  readonly #program: string

  private constructor(folder: string, program: string) {
    this.folder = folder
    this.#program = program
  }

  static async create(program: string): Promise<Buildah> {
    const folder = await mkdtemp(join(tmpdir(), 'spegel-ts-image-'))
    const storage = `[storage]
driver = "overlay"
graphroot = "${join(folder, 'storage')}"
runroot = "${join(folder, 'state')}"
`
    await writeFile(join(folder, 'storage.conf'), storage)
    await writeFile(join(folder, 'registries.conf'), '')
    await writeFile(join(folder, 'policy.json'), '{"default": [{"type": "insecureAcceptAnything"}]}')
    await mkdir(join(folder, 'cache'))
    return new Buildah(folder, program)
  }

  /** Builds an image into the storage. `context` is what the Dockerfile may copy. */
  build(context: string, options: readonly string[]): Promise<string> {
    // chroot: RUN needs no more than mounts. The time goes into files and history, so that it is the same in each build.
    const isolation = ['--isolation', 'chroot', '--timestamp', '0', '--pull-never']
    return this.#run(['bud', ...this.#policy, ...isolation, ...options, context])
  }

  /** Copies an image from the storage into a new OCI layout. */
  save(name: string, layout: string): Promise<string> {
    return this.#run(['push', ...this.#policy, '--format', 'oci', name, `oci:${layout}`])
  }

  close(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true })
  }

  get #policy(): string[] {
    return ['--signature-policy', join(this.folder, 'policy.json')]
  }

  #run(args: readonly string[]): Promise<string> {
    const options: SpawnOptions = {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        CONTAINERS_STORAGE_CONF: join(this.folder, 'storage.conf'),
        CONTAINERS_REGISTRIES_CONF: join(this.folder, 'registries.conf'),
        TMPDIR: join(this.folder, 'cache'),
      },
    }
    // In mounts of its own, which end with it, also when it is killed.
    return output(spawn('unshare', ['--mount', '--propagation', 'private', this.#program, ...args], options))
  }
}
