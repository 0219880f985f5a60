/**
 * Stands for containerd's content folder, which does not write, commit and give up on command: makes the same files in
 * the same order (containerd's local content store, 1.6 to 2.3).
 */
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { type Digest, digestOf, digestParts } from '../../src/oci/digest.ts'

export class ContentFolderDouble {
  readonly path = mkdtempSync(join(tmpdir(), 'content-'))

  get ingestPath(): string {
    return join(this.path, 'ingest')
  }

  /** 1.6 makes it at its start, later versions at the first pull. */
  makeIngestFolder(): void {
    mkdirSync(this.ingestPath, { recursive: true })
  }

  blobPath(digest: Digest): string {
    const { algorithm, hex } = digestParts(digest)
    return join(this.path, 'blobs', algorithm, hex)
  }

  /** The folder and its description, as before the first request is sent. */
  begin(digest: Digest, sizeBytes: number, ref = `k8s.io/1/layer-${digest}`): IngestDouble {
    const ingest = new IngestDouble(
      join(this.ingestPath, digestOf(Buffer.from(ref)).slice('sha256:'.length)),
      this.blobPath(digest),
    )
    ingest.describe(ref, sizeBytes)
    ingest.makeData()
    return ingest
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** The steps of one download. */
export class IngestDouble {
  readonly path: string
  readonly #blobPath: string

  constructor(path: string, blobPath: string) {
    this.path = path
    this.#blobPath = blobPath
  }

  get name(): string {
    return basename(this.path)
  }

  get haveBytes(): number {
    return statSync(this.#data).size
  }

  describe(ref: string, sizeBytes: number): void {
    mkdirSync(this.path, { recursive: true })
    writeFileSync(join(this.path, 'ref'), ref)
    writeFileSync(join(this.path, 'startedat'), new Date().toISOString())
    writeFileSync(join(this.path, 'updatedat'), new Date().toISOString())
    if (sizeBytes > 0) writeFileSync(join(this.path, 'total'), `${sizeBytes}`)
  }

  makeData(): void {
    writeFileSync(this.#data, '')
  }

  append(bytes: Uint8Array): void {
    appendFileSync(this.#data, bytes)
  }

  /** As when the source ignores that the download goes on where it was. */
  truncate(): void {
    truncateSync(this.#data)
  }

  commit(): void {
    mkdirSync(dirname(this.#blobPath), { recursive: true })
    renameSync(this.#data, this.#blobPath)
    rmSync(this.path, { recursive: true })
  }

  giveUp(): void {
    rmSync(this.path, { recursive: true })
  }

  get #data(): string {
    return join(this.path, 'data')
  }
}
