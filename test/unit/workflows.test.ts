import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'
import { describe, expect, it } from 'vitest'

type WorkflowParser = typeof import('@actions/workflow-parser')

/** GitHub's own parser. It imports JSON in a way that bundlers take and Node does not. */
const { outputFiles } = await build({
  entryPoints: ['@actions/workflow-parser'],
  bundle: true,
  format: 'esm',
  write: false,
})
const source = Buffer.from(outputFiles[0]?.contents ?? []).toString('base64')
const parser = (await import(`data:text/javascript;base64,${source}`)) as WorkflowParser

const folder = join(import.meta.dirname, '../../.github/workflows')

/** What is wrong with a workflow: schema and expressions. */
async function complaints(name: string, content: string): Promise<string[]> {
  const { context, value } = parser.parseWorkflow({ name, content }, new parser.NoOperationTraceWriter())
  if (value !== undefined) await parser.convertWorkflowTemplate(context, value)
  return context.errors.getErrors().map(({ message }) => message)
}

describe.each(readdirSync(folder))('the workflow %s', (name) => {
  const text = readFileSync(join(folder, name), 'utf8')

  it('is one that GitHub understands', async () => {
    expect(await complaints(name, text)).toEqual([])
  })

  it('pins what it uses, and says which version that is', () => {
    const uses = [...text.matchAll(/uses: (.*)/g)].map((match) => match[1] ?? '')
    expect(uses.length).toBeGreaterThan(0)
    expect(uses.filter((use) => !/^[\w.-]+\/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(use))).toEqual([])
  })
})

it.each([
  ['a key that is none', 'on: push\njobs:\n  a:\n    runs-on: x\n    step: []\n', /Unexpected value 'step'/],
  [
    'an expression that is none',
    'on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: ${{ stepz.a }}\n',
    /Unrecognized named-value: 'stepz'/,
  ],
])('%s in a workflow would be found', async (_name, text, message) => {
  expect(await complaints('x.yml', text)).toEqual([expect.stringMatching(message)])
})
