import { expect, it } from 'vitest'
import { runDemo } from '../support/demo.ts'

it('the demo with real containerd goes as expected', async () => {
  const { ok, scenes } = await runDemo(['--containerd'])
  expect(scenes.filter(({ asExpected }) => !asExpected)).toEqual([])
  expect(ok).toBe(true)
})
