import { mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { makeDirectory } from '../../../src/lib/make-directory.ts'

describe('makeDirectory', () => {
  let parent = ''
  beforeEach(async () => {
    parent = await mkdtemp(join(tmpdir(), 'make-directory-'))
  })
  afterEach(() => rm(parent, { recursive: true, force: true }))

  it('creates missing parents and accepts what exists', async () => {
    const path = join(parent, 'a/b/c')
    await makeDirectory(path)
    await makeDirectory(path)
    expect((await stat(path)).isDirectory()).toBe(true)
    await symlink('a', join(parent, 'link'))
    await makeDirectory(join(parent, 'link/b'))
  })

  it('fails once where the system answers ENOENT although the parent exists', async () => {
    await expect(makeDirectory('/proc/spegel-ts')).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(makeDirectory('/proc/spegel-ts/certs.d')).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('fails where a file or a dangling link is in the way', async () => {
    await writeFile(join(parent, 'file'), '')
    await symlink('missing', join(parent, 'dangling'))
    await expect(makeDirectory(join(parent, 'file'))).rejects.toMatchObject({ code: 'EEXIST' })
    await expect(makeDirectory(join(parent, 'file/a'))).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(makeDirectory(join(parent, 'dangling'))).rejects.toMatchObject({ code: 'EEXIST' })
    await expect(makeDirectory(join(parent, 'dangling/a'))).rejects.toMatchObject({ code: 'EEXIST' })
  })
})
