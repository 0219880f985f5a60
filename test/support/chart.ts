/** The chart, rendered by Helm, and what Kubernetes would say of it. */
import { execFile } from 'node:child_process'
import { cp, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { parseAllDocuments, stringify } from 'yaml'
import { prepareApiCheck, prepareHelm } from '../../src/testbed/tools.ts'

const run = promisify(execFile)
const say = (line: string) => process.stderr.write(`set-up: ${line}\n`)

export const chartFolder = join(import.meta.dirname, '../../charts/spegel-ts')
export const newKubernetes = '1.35.4'
/** The last one without PreferSameNode. */
export const oldKubernetes = '1.33.9'

/** Go's library reads YAML 1.1, in which `Off` is false. */
const yaml = { version: '1.1' } as const

export type Values = Record<string, unknown>

export interface Container {
  name: string
  image: string
  args: string[]
  env?: { name: string; value?: string; valueFrom?: { fieldRef?: { fieldPath: string } } }[]
  ports?: { name: string; containerPort: number; hostPort?: number }[]
  volumeMounts?: { name: string; mountPath: string; readOnly?: boolean; mountPropagation?: string }[]
  securityContext: {
    runAsUser?: number
    runAsGroup?: number
    runAsNonRoot?: boolean
    privileged?: boolean
    allowPrivilegeEscalation?: boolean
    readOnlyRootFilesystem?: boolean
    capabilities?: { drop?: string[]; add?: string[] }
  }
}

export interface PodSpec {
  initContainers?: Container[]
  containers: Container[]
  volumes?: { name: string; hostPath?: { path: string; type: string }; secret?: { secretName: string } }[]
  securityContext?: { seccompProfile?: { type: string } }
  serviceAccountName?: string
  automountServiceAccountToken?: boolean
  nodeSelector?: Record<string, string>
  tolerations?: Record<string, string>[]
  affinity?: unknown
}

export interface Manifest {
  apiVersion: string
  kind: string
  metadata: {
    name: string
    namespace: string
    labels: Record<string, string>
    annotations?: Record<string, string>
  }
  spec?: Record<string, unknown> & { template?: { metadata: { labels: Record<string, string> }; spec: PodSpec } }
  data?: Record<string, string>
  rules?: { apiGroups: string[]; resources: string[]; resourceNames?: string[]; verbs: string[] }[]
}

export class Rendered {
  readonly manifests: readonly Manifest[]
  readonly text: string

  constructor(text: string) {
    this.text = text
    const documents = parseAllDocuments(text, yaml)
    if (!Array.isArray(documents)) throw new Error('nothing was rendered')
    for (const { errors } of documents) for (const error of errors) throw error
    this.manifests = documents
      .map((document) => document.toJS() as Manifest | null)
      .filter((object) => object !== null)
  }

  /** By kind and the end of its name. Throws when there is not exactly one. */
  find(kind: string, suffix = ''): Manifest {
    const name = `mirror-spegel-ts${suffix}`
    const found = this.manifests.filter((object) => object.kind === kind && object.metadata.name === name)
    if (found[0] === undefined || found.length > 1) throw new Error(`${found.length} × ${kind} ${name}`)
    return found[0]
  }

  kinds(): string[] {
    return this.manifests.map(({ kind, metadata }) =>
      `${kind} ${metadata.name.replace('mirror-spegel-ts', '')}`.trim(),
    )
  }

  /** Of the DaemonSet, or of the clean-up's. */
  pod(suffix = ''): PodSpec {
    return podOf(this.find('DaemonSet', suffix))
  }

  /** By its name, of the DaemonSet. */
  container(name: string): Container {
    const { initContainers = [], containers } = this.pod()
    const found = [...initContainers, ...containers].find((container) => container.name === name)
    if (found === undefined) throw new Error(`there is no container ${name}`)
    return found
  }
}

export function podOf({ kind, spec }: Manifest): PodSpec {
  return kind === 'Pod' ? (spec as unknown as PodSpec) : (spec?.template?.spec ?? { containers: [] })
}

export class Chart {
  readonly #helm: string
  readonly #apiCheck: string

  private constructor(helm: string, apiCheck: string) {
    this.#helm = helm
    this.#apiCheck = apiCheck
  }

  static async open(): Promise<Chart> {
    return new Chart(await prepareHelm(say), await prepareApiCheck(say))
  }

  /** As a release `mirror` in the namespace `mirrors`. Rejects with Helm's words. */
  async render(values: Values = {}, { kubernetes = newKubernetes, folder = chartFolder } = {}): Promise<Rendered> {
    return withFile(stringify(values, yaml), async (file) => {
      const args = ['template', 'mirror', folder, '--namespace', 'mirrors', '--kube-version', kubernetes, '-f', file]
      return new Rendered(await this.helm(...args))
    })
  }

  /** NOTES.txt, which Helm shows only after an install: rendered in a copy of the chart, as data. */
  async notes(values: Values = {}, kubernetes = newKubernetes): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), 'spegel-ts-notes-'))
    try {
      await cp(chartFolder, folder, { recursive: true })
      await rename(join(folder, 'templates/NOTES.txt'), join(folder, 'notes.txt'))
      const template =
        'kind: Notes\nmetadata: {name: mirror-spegel-ts}\ndata: {text: {{ tpl (.Files.Get "notes.txt") . | toJson }}}\n'
      await writeFile(join(folder, 'templates/notes.yaml'), template)
      return (await this.render(values, { kubernetes, folder })).find('Notes').data?.['text'] ?? ''
    } finally {
      await rm(folder, { recursive: true })
    }
  }

  /** What Helm says against these values; empty if nothing. */
  refusal(values: Values, options: { kubernetes?: string } = {}): Promise<string> {
    return this.render(values, options).then(
      () => '',
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    )
  }

  /** Standard output. Rejects with what went to standard error. */
  async helm(...args: string[]): Promise<string> {
    // Nobody's own settings, repositories or cluster.
    const env = { PATH: process.env['PATH'], HOME: '/nonexistent', KUBECONFIG: '/dev/null' }
    try {
      return (await run(this.#helm, args, { env, maxBuffer: 16 * 1024 * 1024 })).stdout
    } catch (error) {
      const { stderr, stdout } = error as { stderr?: string; stdout?: string }
      throw new Error(`${stderr ?? ''}${stdout ?? ''}`.trim(), { cause: error })
    }
  }

  /**
   * What the code of Kubernetes and of Prometheus' operator says against the manifests: one line for each fault. The
   * types of Grafana's operator are not to be had, so its resource is left out.
   */
  async faults(rendered: Rendered): Promise<string[]> {
    const known = rendered.manifests.filter(({ kind }) => kind !== 'GrafanaDashboard')
    const text = known.map((manifest) => stringify(manifest, yaml)).join('---\n')
    const output = await withFile(text, (file) =>
      run(this.#apiCheck, [file]).then(
        ({ stdout }) => stdout,
        (error: unknown) => (error as { stdout: string }).stdout,
      ),
    )
    const lines = output.trim().split('\n')
    if (lines.length < known.length)
      throw new Error(`${lines.length} answers for ${known.length} manifests: ${output}`)
    return lines.filter((line) => !line.endsWith(': ok'))
  }
}

async function withFile<T>(text: string, use: (file: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'spegel-ts-chart-'))
  try {
    await writeFile(join(folder, 'file.yaml'), text)
    return await use(join(folder, 'file.yaml'))
  } finally {
    await rm(folder, { recursive: true })
  }
}
