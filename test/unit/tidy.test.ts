import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readResults } from '../../src/bench/result.ts'
import { benchmarkReference, withBenchmarks } from '../../src/bench/table.ts'
import { networkResultReference } from '../../src/benchmark/result/network-schema.ts'
import { resultReference } from '../../src/benchmark/result/schema.ts'
import { configurationReference, metricsReference } from '../../src/cli/reference.ts'
import { type SourceFile, parts, sourceFiles, violations } from '../support/borders.ts'

const root = join(import.meta.dirname, '../..')
const files = sourceFiles(join(root, 'src'))
const handWritten = files.filter(({ path }) => !path.includes('/generated/'))

describe('borders', () => {
  it('are kept by every import', () => {
    expect(violations(files)).toEqual([])
  })

  it.each<[string, SourceFile, RegExp]>([
    [
      'an upward import',
      { path: 'oci/x.ts', text: "import { a } from '../store/store.ts'" },
      /oci may not import store/,
    ],
    [
      'a neighbour behind its port',
      { path: 'registry/x.ts', text: "import { a } from '../router/find.ts'" },
      /registry may not import router/,
    ],
    [
      'a library of another part',
      { path: 'registry/x.ts', text: "import x from '@grpc/grpc-js'" },
      /registry does not own/,
    ],
    [
      'a dynamic import',
      { path: 'lib/x.ts', text: "const x = await import('../daemon.ts')" },
      /lib may not import daemon/,
    ],
    ['a re-export', { path: 'lib/x.ts', text: "export * from '../oci/digest.ts'" }, /lib may not import oci/],
    ['a part that nobody knows', { path: 'misc/x.ts', text: '' }, /not a part/],
  ])('are found crossed by %s', (_name, file, message) => {
    expect(violations([file])).toEqual([expect.stringMatching(message)])
  })

  it('are what ARCHITECTURE.md lists', () => {
    const text = readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8')
    for (const part of Object.keys(parts)) {
      const spelled = existsSync(join(root, 'src', `${part}.ts`)) ? `\`${part}.ts\`` : `\`${part}/\``
      expect(text, `ARCHITECTURE.md does not list ${spelled}`).toContain(spelled)
    }
  })
})

describe('source files', () => {
  it('start by saying what they are', () => {
    const silent = handWritten.filter(({ text }) => !text.startsWith('/**')).map(({ path }) => path)
    expect(silent).toEqual([])
  })

  it('have no barrels, and read the environment and the arguments in main.ts only', () => {
    const barrels = handWritten
      .filter(({ text }) => /^export (\*|\{[^}]*\}) from/m.test(text))
      .map(({ path }) => path)
    expect(barrels).toEqual([])
    const readers = handWritten
      .filter(
        ({ path, text }) =>
          /process\.(env|argv|exit)\b/.test(text) && !/^(main\.ts|(demo|bench|testbed)\/)/.test(path),
      )
      .map(({ path }) => path)
    expect(readers).toEqual([])
  })
})

describe('generated files', () => {
  it.each([
    ['docs/configuration.md', configurationReference],
    ['docs/metrics.md', metricsReference],
    ['docs/benchmark-result.schema.json', resultReference],
    ['docs/benchmark-network-result.schema.json', networkResultReference],
  ])('%s is up to date (npm run docs)', (path, generate) => {
    expect(readFileSync(join(root, path), 'utf8')).toBe(generate())
  })

  it('README.md has the kept results of the benchmark (npm run docs)', () => {
    const readme = readFileSync(join(root, 'README.md'), 'utf8')
    const results = readResults(join(root, 'benchmark/results'))
    expect(withBenchmarks(readme, results)).toBe(readme)
    expect(readFileSync(join(root, 'benchmark/parts.md'), 'utf8')).toBe(benchmarkReference(results))
  })

  it('stubs are up to date (npm run generate)', () => {
    const folder = mkdtempSync(join(tmpdir(), 'stubs-'))
    try {
      for (const part of ['containerd', 'router']) {
        const out = join(folder, part)
        const args = ['generate', '--template', templateInto(part, out), ...(protoPaths[part] ?? [])]
        execFileSync(join(root, 'node_modules/.bin/buf'), args, {
          cwd: join(root, 'proto'),
          env: { ...process.env, PATH: `${join(root, 'node_modules/.bin')}:${process.env['PATH']}` },
        })
        const kept = join(root, 'src', part, 'generated')
        expect(readdirSync(out).sort()).toEqual(readdirSync(kept).sort())
        for (const name of readdirSync(out)) {
          expect(readFileSync(join(kept, name), 'utf8'), `${part}/${name}`).toBe(
            readFileSync(join(out, name), 'utf8'),
          )
        }
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

const protoPaths: Record<string, string[]> = {
  containerd: ['--exclude-path', 'kad-dht.proto'],
  router: ['--path', 'kad-dht.proto'],
}

/** The template with another folder to write to. */
function templateInto(part: string, out: string): string {
  const template = readFileSync(join(root, 'proto', `buf.gen.${part}.yaml`), 'utf8')
  const plugin = /opt:\n((?: +- .*\n?)+)/.exec(template)?.[1] ?? ''
  const opt = [...plugin.matchAll(/- (.*)/g)].map((match) => match[1])
  return JSON.stringify({ version: 'v2', plugins: [{ local: 'protoc-gen-ts_proto', out, opt }] })
}
