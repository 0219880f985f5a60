/** Who may import whom in src/, as ARCHITECTURE.md's table of parts says. */
import { readFileSync, readdirSync } from 'node:fs'
import { join, relative } from 'node:path'

export interface Part {
  /** Parts whose files this one may import. `store#` means the ports of store only. */
  imports: readonly string[]
  /** Third-party packages it may import. */
  libraries: readonly string[]
}

const libp2p = [
  '@chainsafe/libp2p-noise',
  '@libp2p/crypto',
  '@libp2p/identify',
  '@libp2p/interface',
  '@libp2p/kad-dht',
  '@libp2p/peer-id',
  '@libp2p/ping',
  '@libp2p/tcp',
  '@libp2p/yamux',
  '@multiformats/multiaddr',
  'datastore-core',
  'interface-datastore',
  'libp2p',
  'multiformats',
]

/** Ports: the files of a part that neighbours may import. */
const ports: Readonly<Record<string, readonly string[]>> = {
  bootstrap: ['bootstrap/bootstrapper.ts'],
  hosts: ['hosts/configuration-watch.ts', 'hosts/upstream.ts', 'hosts/refusal.ts'],
  router: ['router/router.ts'],
  store: ['store/store.ts', 'store/transfers.ts'],
}

export const parts: Readonly<Record<string, Part>> = {
  limits: { imports: [], libraries: [] },
  lib: { imports: ['limits'], libraries: [] },
  oci: { imports: ['lib'], libraries: [] },
  metrics: { imports: ['lib'], libraries: ['prom-client'] },
  logger: { imports: ['lib'], libraries: ['pino'] },
  containerd: { imports: ['lib', 'limits'], libraries: ['@grpc/grpc-js', '@bufbuild/protobuf'] },
  store: { imports: ['containerd', 'oci', 'lib', 'limits', 'logger'], libraries: [] },
  kubernetes: { imports: ['lib'], libraries: [] },
  bootstrap: { imports: ['kubernetes', 'lib', 'limits'], libraries: [] },
  router: {
    imports: ['bootstrap#', 'oci', 'lib', 'limits', 'metrics', 'logger'],
    libraries: [...libp2p, '@bufbuild/protobuf'],
  },
  http: { imports: ['lib', 'limits', 'metrics'], libraries: ['fastify'] },
  peers: {
    imports: ['router#', 'store#', 'oci', 'lib', 'limits', 'metrics', 'logger'],
    libraries: ['undici'],
  },
  flights: {
    imports: ['peers', 'router#', 'store#', 'oci', 'lib', 'limits', 'metrics', 'logger'],
    libraries: [],
  },
  registry: {
    imports: ['flights', 'http', 'peers', 'router#', 'store#', 'oci', 'lib', 'limits', 'metrics', 'logger'],
    libraries: ['fastify'],
  },
  tracker: { imports: ['router#', 'store#', 'oci', 'lib', 'metrics'], libraries: [] },
  hosts: { imports: ['kubernetes', 'oci', 'lib', 'limits', 'logger'], libraries: ['smol-toml'] },
  images: { imports: ['oci', 'lib'], libraries: [] },
  daemon: {
    imports: [
      'bootstrap',
      'containerd',
      'store',
      'router',
      'registry',
      'tracker',
      'hosts#',
      'http',
      'oci',
      'lib',
      'limits',
      'metrics',
      'logger',
    ],
    libraries: [],
  },
  cli: {
    imports: [
      'daemon',
      'containerd',
      'hosts',
      'kubernetes',
      'bootstrap',
      'router',
      'registry',
      'benchmark',
      'images',
      'testbed',
      'oci',
      'lib',
      'limits',
      'logger',
      'metrics',
    ],
    libraries: ['commander'],
  },
  testbed: { imports: ['images', 'containerd', 'oci', 'lib'], libraries: [] },
  demo: {
    imports: ['testbed', 'images', 'registry', 'store', 'oci', 'lib', 'logger', 'metrics', 'cli'],
    libraries: [],
  },
  bench: {
    imports: ['testbed', 'images', 'router', 'bootstrap', 'oci', 'lib', 'limits', 'logger', 'metrics'],
    libraries: [],
  },
  benchmark: {
    imports: ['testbed', 'images', 'containerd', 'oci', 'lib'],
    libraries: ['zod', 'echarts', '@resvg/resvg-wasm', 'jstat', 'hdr-histogram-js', '@kubernetes/client-node'],
  },
  main: { imports: ['cli', 'lib', 'limits'], libraries: [] },
}

export interface SourceFile {
  /** Below src/, with forward slashes. */
  path: string
  text: string
}

export function sourceFiles(root: string): SourceFile[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => ({ path: relative(root, path), text: readFileSync(path, 'utf8') }))
}

/** What each file imports: `from '…'`, `import '…'` and `import('…')`. */
function importsOf({ text }: SourceFile): string[] {
  const code = text.replaceAll(/^\s*(\/\/|\*|\/\*).*$/gm, '')
  return [...code.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)(['"])([^'"\n]+)\1/g)].map((match) => match[2] ?? '')
}

/** One line for each import that crosses a border, with the file to blame. */
export function violations(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => {
    const part = partOf(file.path)
    const rule = parts[part]
    if (rule === undefined) return [`src/${file.path}: "${part}" is not a part of ARCHITECTURE.md`]
    return importsOf(file).flatMap((specifier) => {
      if (specifier.startsWith('node:')) return []
      if (!specifier.startsWith('.')) {
        const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
        return rule.libraries.includes(name) ? [] : [`src/${file.path} imports ${name}, which ${part} does not own`]
      }
      const target = join(file.path, '..', specifier)
      const targetPart = partOf(target)
      const allowed =
        targetPart === part ||
        rule.imports.includes(targetPart) ||
        (rule.imports.includes(`${targetPart}#`) && ports[targetPart]?.includes(target) === true)
      return allowed ? [] : [`src/${file.path} imports src/${target}: ${part} may not import ${targetPart}`]
    })
  })
}

function partOf(path: string): string {
  return path.split('/')[0]?.replace(/\.ts$/, '') ?? ''
}
