import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { LayoutStore } from '../../src/store/layout/layout-store.ts'
import { ContentNotFound } from '../../src/store/store.ts'
import { blobPath, writeBlob } from '../../src/images/layout.ts'
import { layoutFixture } from '../support/layout-fixture.ts'
import { storeSuite } from './store.ts'

storeSuite('OCI image layout', layoutFixture)

it('does not follow symbolic links out of the folder, nor open folders', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'layout-'))
  await writeBlob(folder, Buffer.from('honest'))
  const store = await LayoutStore.open(folder, systemClock)
  const digest = digestOf(Buffer.from('secret'))
  await writeFile(join(folder, 'secret'), 'secret')
  await symlink('../../secret', blobPath(folder, digest))
  await expect(store.open(digest)).rejects.toBeInstanceOf(ContentNotFound)
  await store.close()
  await rm(folder, { recursive: true })
})

it('needs the folder to be there, and says so in one line', async () => {
  await expect(LayoutStore.open('/nowhere/at/all', systemClock)).rejects.toThrow(
    /^--oci-layout: \/nowhere\/at\/all is not a folder: /,
  )
})
