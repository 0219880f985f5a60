import { readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { expect, it } from 'vitest'
import { runDemo } from '../support/demo.ts'

it('the demo ends by itself, as expected, and leaves nothing behind', async () => {
  const leftovers = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('spegel-ts-demo-'))
  const before = await leftovers()
  const { ok, imageBytes, scenes } = await runDemo()
  expect(ok).toBe(true)
  expect(scenes.map(({ node, upstreamBytes }) => [node, upstreamBytes > 0])).toEqual([
    [1, true],
    [2, false],
    [3, false],
    [4, false],
    [5, false],
  ])
  expect(scenes.at(-1)?.resumes).toBeGreaterThan(0)
  for (const { peerBytes } of scenes.slice(1)) expect(peerBytes).toBeGreaterThanOrEqual(imageBytes)
  expect(await leftovers()).toEqual(before)
})
