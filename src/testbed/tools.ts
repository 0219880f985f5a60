/**
 * Programs that the system tests and `demo --containerd` need, unpacked below `.cache/` in the checkout: containerd,
 * docker-registry and others from the distribution, a recent containerd built from its published Go module. Nothing is
 * installed in the system, except that root may let apt install iproute2 and curl where they are missing. Says what it
 * does.
 */
import { type SpawnOptions, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, mkdir, readFile, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { UserError, errorMessage } from '../lib/errors.ts'

const run = promisify(execFile)

export const cacheFolder = fileURLToPath(new URL('../../.cache/tools', import.meta.url))
const goPeerSources = fileURLToPath(new URL('../../test/interop/go-peer', import.meta.url))
const apiCheckSources = fileURLToPath(new URL('../../test/chart/api-check', import.meta.url))
const hostsJudgeSources = fileURLToPath(new URL('../../test/hosts-judge', import.meta.url))
const delayLineSources = fileURLToPath(new URL('../../test/network/delay-line', import.meta.url))
const kubernetesSources = fileURLToPath(new URL('../../test/kubernetes/programs/kubernetes', import.meta.url))
const conformanceSources = fileURLToPath(new URL('../../test/distribution/conformance', import.meta.url))
const corednsSources = fileURLToPath(new URL('../../test/kubernetes/programs/coredns', import.meta.url))

/** Newest release of the newest long-term line; pinned so that test results can be compared. */
const recentContainerd = 'v2.3.4'
const recentHelm = 'v3.22.0'
/** Releases of containerd whose own loader of hosts.toml is built into a program; patch versions are in their go.mod. */
const judgedContainerds = ['1.6', '1.7', '2.0', '2.1', '2.2', '2.3'] as const
export type JudgedContainerd = (typeof judgedContainerds)[number]
/** Oldest Go that fetches the toolchain which a module asks for by itself. */
const goMinorMin = 21

const nodePackages = [
  'containerd',
  'runc',
  'containernetworking-plugins',
  'busybox-static',
  'iptables',
  'libip4tc2',
  'libip6tc2',
  'libmnl0',
  'libnetfilter-conntrack3',
  'libnfnetlink0',
  'libnftnl11',
  'libxtables12',
]
/** Installing would make them, by way of update-alternatives. */
const iptablesLinks = Object.fromEntries(
  ['iptables', 'ip6tables']
    .flatMap((name) => [name, `${name}-save`, `${name}-restore`])
    .map((name) => [`usr/sbin/${name}`, 'xtables-nft-multi']),
)

export interface Tools {
  /** The distribution's containerd (1.6 or 1.7). */
  containerdOld: string
  /** 2.3 */
  containerdNew: string
  /** The distribution's client of containerd. */
  ctr: string
  /** The distribution's registry, as upstream. */
  registry: string
}

/** What the cluster of `test/kubernetes` is made of, beside the programs of `Tools`. */
export interface KubernetesTools extends Tools {
  /** etcd and all of Kubernetes in one program: `kubernetes kubelet …`. */
  kubernetes: string
  coredns: string
  helm: string
  /** The shim of `containerdNew`; that of `containerdOld` is in `nodePackages`. */
  shimNew: string
  /** A folder with a `usr` of what a node needs and not every system has: containerd, runc, CNI plugins, iptables. */
  nodePackages: string
  /** Without libraries, to run in containers. */
  busybox: string
}

/** Prepares everything, or throws a UserError that says what is missing. Later calls find it done. */
export async function prepareTools(say: (line: string) => void): Promise<Tools> {
  if (process.getuid?.() !== 0) {
    throw new UserError(
      'this needs root, to make network namespaces and mounts: run it as root, or npm run test:unit',
    )
  }
  await mkdir(cacheFolder, { recursive: true })
  return withLock(async () => {
    await needIproute(say)
    const packages = await unpackPackages(['containerd', 'docker-registry'], 'distribution', say)
    return {
      containerdOld: join(packages, 'usr/bin/containerd'),
      containerdNew: await buildModule('github.com/containerd/containerd/v2/cmd/containerd', recentContainerd, say),
      ctr: join(packages, 'usr/bin/ctr'),
      registry: join(packages, 'usr/bin/docker-registry'),
    }
  })
}

/** The same for the cluster. The first time on a machine this takes about ten minutes of two cores. */
export async function prepareKubernetesTools(say: (line: string) => void): Promise<KubernetesTools> {
  const tools = await prepareTools(say)
  const shimNew = await prepareShim(say)
  const helm = await prepareHelm(say)
  return withLock(async () => {
    if (!(await succeeds('openssl', ['version']))) await install('openssl', say)
    const packages = await unpackPackages(nodePackages, 'node-packages', say, { links: iptablesLinks })
    // Older releases have it in /bin.
    const inBin = join(packages, 'bin/busybox')
    const version = await moduleVersion(kubernetesSources, 'k8s.io/kubernetes')
    return {
      ...tools,
      shimNew,
      helm,
      nodePackages: packages,
      busybox: (await exists(inBin)) ? inBin : join(packages, 'usr/bin/busybox'),
      coredns: await buildSources(corednsSources, 'github.com/coredns/coredns', say),
      kubernetes: await buildSources(kubernetesSources, 'k8s.io/kubernetes', say, kubernetesVersionFlags(version)),
    }
  })
}

/** A client that throws away what it gets at little cost. */
export async function needCurl(say: (line: string) => void): Promise<void> {
  if (await succeeds('curl', ['--version'])) return
  if (process.getuid?.() !== 0) throw new UserError('this needs curl: install it')
  await install('curl', say)
}

async function needIproute(say: (line: string) => void): Promise<void> {
  if (!(await succeeds('ip', ['-V']))) await install('iproute2', say)
}

async function install(name: string, say: (line: string) => void): Promise<void> {
  say(`installing ${name} with apt-get`)
  await apt(['update'])
  await apt(['install', '-y', '--no-install-recommends', name])
}

/** Downloads Debian packages and unpacks them, without installing. `links`: paths and what they point to. */
async function unpackPackages(
  names: readonly string[],
  folder: string,
  say: (line: string) => void,
  { aptOptions = [], links = {} }: { aptOptions?: readonly string[]; links?: Readonly<Record<string, string>> } = {},
): Promise<string> {
  const target = join(cacheFolder, folder)
  if (await exists(target)) return target
  say(`unpacking the distribution's packages ${names.join(', ')} to ${target}`)
  const work = `${target}.${process.pid}`
  await mkdir(join(work, 'debs'), { recursive: true })
  try {
    await apt([...aptOptions, 'update'])
    await apt([...aptOptions, 'download', ...names], { cwd: join(work, 'debs') })
    for (const deb of await readdir(join(work, 'debs'))) await run('dpkg', ['-x', join(work, 'debs', deb), work])
    await rm(join(work, 'debs'), { recursive: true })
    for (const [path, to] of Object.entries(links)) await symlink(to, join(work, path))
    await rename(work, target)
  } catch (error) {
    throw new UserError(`cannot get ${names.join(', ')} from the distribution: ${errorMessage(error)}`)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return target
}

/** A web server to compare with. In newer releases the program is in `nginx`, in older ones in `nginx-core`. */
export async function prepareNginx(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(async () => join(await unpackPackages(['nginx', 'nginx-core'], 'nginx', say), 'usr/sbin/nginx'))
}

/** What networks are measured with elsewhere. `env` lets iperf3 find its library. */
export async function prepareNetworkTools(
  say: (line: string) => void,
): Promise<{ iperf3: string; sockperf: string; env: NodeJS.ProcessEnv }> {
  await mkdir(cacheFolder, { recursive: true })
  const packages = await withLock(() =>
    unpackPackages(['iperf3', 'libiperf0', 'libsctp1', 'sockperf'], 'network', say),
  )
  const triplet = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu'
  return {
    iperf3: join(packages, 'usr/bin/iperf3'),
    sockperf: join(packages, 'usr/bin/sockperf'),
    env: { ...process.env, LD_LIBRARY_PATH: join(packages, 'usr/lib', triplet) },
  }
}

/** What makes a cable longer, built from this checkout's sources: not every kernel has netem. */
export async function prepareDelayLine(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(() => buildHere(delayLineSources, say))
}

/** What containerd starts containers with. */
export async function prepareRunc(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(async () => join(await unpackPackages(['runc'], 'runc', say), 'usr/sbin/runc'))
}

/** What `containerdNew` starts containers by; that of `containerdOld` is beside it. */
export async function prepareShim(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  const shim = 'github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2'
  return withLock(() => buildModule(shim, recentContainerd, say))
}

/** Runs programs of arm64 on other machines. Nothing is registered with the kernel. */
export async function prepareQemu(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(async () =>
    join(await unpackPackages(['qemu-user-static'], 'qemu', say), 'usr/bin/qemu-aarch64-static'),
  )
}

/** A client of OCI artifacts, and what installs charts. */
export async function prepareHelm(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(() => buildModule('helm.sh/helm/v3/cmd/helm', recentHelm, say))
}

const conformanceModule = 'github.com/opencontainers/distribution-spec/conformance'

/** OCI's conformance test suite for registries. */
export async function prepareDistributionConformance(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(() => buildSources(conformanceSources, conformanceModule, say, [], conformanceModule))
}

/** The version of that suite, which its published result names. */
export function distributionConformanceVersion(): Promise<string> {
  return moduleVersion(conformanceSources, conformanceModule)
}

/** What says whether the Kubernetes API would take a manifest, built from this checkout's sources. */
export async function prepareApiCheck(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(() => buildHere(apiCheckSources, say))
}

/** The program that stands for a node of Spegel in the interop tests, built from this checkout's sources. */
export async function prepareGoPeer(say: (line: string) => void): Promise<string> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(() => buildHere(goPeerSources, say))
}

/** The programs of `test/hosts-judge`, one per containerd release, built from this checkout's sources. */
export async function prepareHostsJudges(say: (line: string) => void): Promise<Map<JudgedContainerd, string>> {
  await mkdir(cacheFolder, { recursive: true })
  return withLock(async () => {
    const judges = new Map<JudgedContainerd, string>()
    // One after the other: each build reuses the packages that the first one compiled.
    for (const version of judgedContainerds) judges.set(version, await buildHostsJudge(version, say))
    return judges
  })
}

/** A release's directory has only go.mod and go.sum: the overlay adds the sources that all releases share. */
async function buildHostsJudge(version: JudgedContainerd, say: (line: string) => void): Promise<string> {
  const module = join(hostsJudgeSources, version)
  const sources = { 'main.go': 'main.go', 'tree.go': 'tree.go', 'loader.go': `loader-v${version.slice(0, 1)}.go` }
  const replacements = Object.entries(sources).map(([name, source]) => [
    join(module, name),
    join(hostsJudgeSources, source),
  ])
  const overlay = join(cacheFolder, `hosts-judge-${version}.overlay.json`)
  await writeFile(overlay, JSON.stringify({ Replace: Object.fromEntries(replacements) }))
  const flags = ['-buildvcs=false', '-overlay', overlay, '-ldflags', '-s -w']
  const id = `${version}-${await hashOf(hostsJudgeSources)}`
  return build('hosts-judge', id, (target) => ['build', ...flags, '-o', `${target}/hosts-judge`, '.'], say, module)
}

/** Builds a program from a folder that is named like it. Returns its path. */
async function buildHere(sources: string, say: (line: string) => void): Promise<string> {
  // -buildvcs: a checkout of another user's is no reason to fail.
  const args = (target: string) => ['build', '-buildvcs=false', '-o', `${target}/`, '.']
  return build(basename(sources), await hashOf(sources), args, say, sources)
}

/** Builds a program from its published Go module. Returns its path. */
function buildModule(module: string, version: string, say: (line: string) => void): Promise<string> {
  return build(basename(module), version, () => ['install', `${module}@${version}`], say)
}

/** Builds a program from sources in this checkout; it is called as their folder. Named after the version of `module`. */
async function buildSources(
  sources: string,
  module: string,
  say: (line: string) => void,
  linkerFlags: readonly string[] = [],
  packagePath = '.',
): Promise<string> {
  const version = `${await moduleVersion(sources, module)}-${await hashOf(sources)}`
  const flags = ['-buildvcs=false', '-trimpath', '-ldflags', ['-s', '-w', ...linkerFlags].join(' ')]
  const args = (target: string) => ['build', ...flags, '-o', `${target}/`, packagePath]
  return build(basename(sources), version, args, say, sources)
}

/** The version that go.mod asks for. */
async function moduleVersion(sources: string, module: string): Promise<string> {
  const text = await readFile(join(sources, 'go.mod'), 'utf8')
  const version = text
    .split('\n')
    .map((line) =>
      line
        .replace(/^require /, '')
        .trim()
        .split(' '),
    )
    .find(([name, second]) => name === module && second !== '=>')?.[1]
  if (version === undefined) throw new Error(`${sources}/go.mod does not require ${module}`)
  return version
}

/** What Kubernetes' own build tells its programs: charts ask for it. */
function kubernetesVersionFlags(version: string): string[] {
  const [, major, minor] = /^v(\d+)\.(\d+)\./.exec(version) ?? []
  const values = { gitVersion: version, gitMajor: major, gitMinor: minor, gitTreeState: 'clean' }
  return Object.entries(values).map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`)
}

/** Has Go build a program into a folder of the cache, unless it is there. Returns its path. */
async function build(
  name: string,
  version: string,
  args: (target: string) => string[],
  say: (line: string) => void,
  sources: string = cacheFolder,
): Promise<string> {
  const folder = join(cacheFolder, `${name}-${version}`)
  const binary = join(folder, name)
  if (await exists(binary)) return binary
  const go = await findGo(say)
  say(`building ${name} ${version} with ${go} (some minutes, once)`)
  const work = `${folder}.${process.pid}`
  try {
    await run(go, args(work), {
      cwd: sources,
      env: { ...process.env, GOBIN: work, CGO_ENABLED: '0', GOTOOLCHAIN: 'auto', GOFLAGS: '' },
      maxBuffer: 64 * 1024 * 1024,
    })
    await rename(work, folder)
  } catch (error) {
    throw new UserError(`cannot build ${name} ${version}: ${errorMessage(error)}`)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return binary
}

/** Identifies the state of all files below a directory. */
async function hashOf(folder: string): Promise<string> {
  const hash = createHash('sha256')
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  for (const path of paths.sort()) hash.update(relative(folder, path)).update(await readFile(path))
  return hash.digest('hex').slice(0, 12)
}

/** The `go` on PATH if it is recent enough, else the newest of the distribution or of its backports. */
async function findGo(say: (line: string) => void): Promise<string> {
  if (await isRecentGo('go')) return 'go'
  say('no recent Go on PATH: looking for one in the distribution and its backports')
  const options = await aptWithBackports()
  const { stdout } = await run('apt-cache', [...options, 'search', '--names-only', String.raw`^golang-1\.[0-9]+-go$`])
  const minors = [...stdout.matchAll(/^golang-1\.(\d+)-go/gm)].map((match) => Number(match[1]))
  const minor = Math.max(0, ...minors)
  if (minor < goMinorMin) {
    throw new UserError(`building needs Go 1.${goMinorMin} or later, which this distribution has not: install it`)
  }
  const names = [`golang-1.${minor}-go`, `golang-1.${minor}-src`]
  const root = await unpackPackages(names, `go-1.${minor}`, say, { aptOptions: options })
  return join(root, `usr/lib/go-1.${minor}/bin/go`)
}

/** Options that let apt see the backports too, with lists of its own: the system's sources stay as they are. */
async function aptWithBackports(): Promise<string[]> {
  await apt(['update'])
  const fields = '$(REPO_URI) $(CODENAME) $(COMPONENT) $(SIGNED_BY)'
  const { stdout } = await run('apt-get', ['indextargets', '--format', fields, 'Created-By: Packages'])
  const release = await readFile('/etc/os-release', 'utf8')
  const codename = /^VERSION_CODENAME=(\S+)/m.exec(release)?.[1] ?? ''
  const main = stdout
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, name, component]) => name === codename && component === 'main')
  if (main === undefined) return []
  const [uri = '', , , signedBy = ''] = main
  // apt prints the field's own name where the source does not state a key.
  const key = signedBy === '' || signedBy.includes('$') ? '' : `[signed-by=${signedBy}] `
  const folder = join(cacheFolder, 'apt')
  await mkdir(join(folder, 'lists/partial'), { recursive: true })
  await mkdir(join(folder, 'cache/archives/partial'), { recursive: true })
  const suites = [codename, `${codename}-backports`]
  await writeFile(join(folder, 'sources.list'), suites.map((suite) => `deb ${key}${uri} ${suite} main\n`).join(''))
  const options = [
    `Dir::Etc::SourceList=${join(folder, 'sources.list')}`,
    'Dir::Etc::SourceParts=/dev/null',
    `Dir::State::Lists=${join(folder, 'lists')}`,
    `Dir::Cache=${join(folder, 'cache')}`,
  ].flatMap((option) => ['-o', option])
  // A distribution without backports: its own packages will have to do.
  return apt([...options, 'update']).then(
    () => options,
    () => [],
  )
}

async function isRecentGo(command: string): Promise<boolean> {
  const { stdout } = await run(command, ['env', 'GOVERSION']).catch(() => ({ stdout: '' }))
  return Number(/^go1\.(\d+)/.exec(stdout)?.[1] ?? 0) >= goMinorMin
}

export async function apt(args: readonly string[], options: SpawnOptions = {}): Promise<void> {
  const child = spawn('apt-get', ['-q', ...args], {
    ...options,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  child.stdout?.on('data', (data: Buffer) => (output += data.toString()))
  child.stderr?.on('data', (data: Buffer) => (output += data.toString()))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', resolve)
  })
  if (code !== 0) throw new Error(`apt-get ${args.join(' ')} ended with ${code}: ${output.trim().slice(-500)}`)
}

async function succeeds(command: string, args: readonly string[]): Promise<boolean> {
  return run(command, [...args]).then(
    () => true,
    () => false,
  )
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

/** One preparation at a time in this checkout: test files run in processes side by side. */
export async function withLock<T>(action: () => Promise<T>): Promise<T> {
  const lock = join(cacheFolder, 'lock')
  for (;;) {
    try {
      await writeFile(lock, String(process.pid), { flag: 'wx' })
      break
    } catch {
      const holder = Number(await readFile(lock, 'utf8').catch(() => '0'))
      if (holder > 0 && !(await exists(`/proc/${holder}`))) await rm(lock, { force: true })
      else await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
  try {
    return await action()
  } finally {
    await rm(lock, { force: true })
  }
}
