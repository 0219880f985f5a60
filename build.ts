/** Bundles the program into one file below dist/, for the image: it starts faster than a thousand small files. */
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { type Plugin, build } from 'esbuild'

const { version } = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8')) as { version: string }

/** Told by whoever builds elsewhere than in a checkout; `unknown` where there is no git, as in a source archive. */
function commit(): string {
  const told = process.env['COMMIT']
  if (told !== undefined) return told
  try {
    return execFileSync('git', ['rev-parse', '--short=12', 'HEAD'], { stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .trim()
  } catch {
    return 'unknown'
  }
}

/**
 * Node's own modules as CommonJS. Importing them as ES modules reads each of their properties, and some of those of
 * node:http load all that fetch needs: 50 ms of a start, 3 MiB.
 */
const builtins: Plugin = {
  name: 'builtins',
  setup(bundler) {
    bundler.onResolve({ filter: /./ }, ({ path, kind }) =>
      kind !== 'require-call' && isBuiltin(path) ? { path, namespace: 'builtin' } : undefined,
    )
    bundler.onLoad({ filter: /./, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)})`,
    }))
  },
}

const folder = new URL('dist', import.meta.url).pathname
rmSync(folder, { recursive: true, force: true })
await build({
  entryPoints: [new URL('src/main.ts', import.meta.url).pathname],
  outdir: folder,
  entryNames: 'spegel-ts',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  // libp2p stays out of the way of the commands that do not need it.
  splitting: true,
  chunkNames: 'chunk-[hash]',
  platform: 'node',
  format: 'esm',
  target: 'node24',
  minifySyntax: true,
  // 50 ms and 3 MiB of memory less. Names stay as they are, so stacks can be read.
  minifyWhitespace: true,
  legalComments: 'linked',
  plugins: [builtins],
  define: { buildVersion: JSON.stringify(version), buildCommit: JSON.stringify(commit()) },
  // CommonJS packages in the bundle call require.
  banner: {
    js: "import { createRequire as makeRequire } from 'node:module'; const require = makeRequire(import.meta.url);",
  },
  logLevel: 'warning',
})
