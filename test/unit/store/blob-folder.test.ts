import { mkdtemp, rm, symlink, unlink, mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { rescanMissingMs } from '../../../src/limits.ts'
import { digestOf, digestParts } from '../../../src/oci/digest.ts'
import { BlobFolder } from '../../../src/store/blob-folder.ts'
import { eventually } from '../../support/daemons.ts'
import { ManualClock } from '../../support/manual-clock.ts'

it('that cannot be looked at is empty, and read when it can be', async () => {
  const parent = await mkdtemp(join(tmpdir(), 'blob-folder-'))
  const root = join(parent, 'content')
  // Root may look at everything but a link to itself.
  await symlink(root, root)
  const clock = new ManualClock()
  const folder = new BlobFolder(root, clock)
  await folder.start(() => {})
  expect([...folder.present]).toEqual([])
  await unlink(root)
  const digest = digestOf(Buffer.from('blob'))
  const { algorithm, hex } = digestParts(digest)
  await mkdir(join(root, 'blobs', algorithm), { recursive: true })
  await writeFile(join(root, 'blobs', algorithm, hex), 'blob')
  clock.advance(rescanMissingMs)
  await eventually(() => expect([...folder.present]).toEqual([digest]))
  folder.stop()
  await rm(parent, { recursive: true })
})
