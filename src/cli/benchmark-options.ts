/** The options of `spegel-ts benchmark`. Flags of the Go tool are aliases. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseSizeBytes } from '../images/size.ts'
import { type HostPort, parseHostPort } from '../lib/address.ts'
import { UserError } from '../lib/errors.ts'
import {
  type OptionTable,
  boolOption,
  choiceOption,
  durationOption,
  integerOption,
  listOption,
  mapOption,
  notEmpty,
  textOption,
} from './option.ts'

const required = (value: string | undefined, flag: string): string => {
  if (value === undefined || value === '') throw new UserError(`${flag} is needed`)
  return value
}

interface LocalOptions {
  nodes: number
  stagger: number
  upstreamRate: string | undefined
  nodeRate: string | undefined
  containerd: readonly string[]
  containerdConfig: string | undefined
  registry: string | undefined
  workDir: string | undefined
}

export interface ClusterOptions {
  kubeconfig: string | undefined
  context: string | undefined
  namespace: string
}

interface KubernetesOptions extends ClusterOptions {
  push: string | undefined
  mirrorDaemonset: string | undefined
  agentImage: string | undefined
  containerdSock: string
}

interface RoundOptions {
  resultDir: string
  name: string | undefined
  target: 'local' | 'kubernetes' | undefined
  mirror: readonly string[]
  noneRounds: number
  rounds: number
  repeats: number
  seed: string
}

const rate = (flag: string, help: string, example: string) =>
  mapOption(
    textOption({ flag, placeholder: '<rate>', help: `${help}, as tc writes it (${example}). Empty: no limit.` }),
    (text) => {
      if (text === undefined || text === '') return undefined
      if (!/^\d+(\.\d+)?[kmgt]?bit$/i.test(text))
        throw new UserError(`${flag}: "${text}" is not a rate: write such as ${example}`)
      return text.toLowerCase()
    },
  )

const localOptions: OptionTable<LocalOptions> = {
  nodes: integerOption({
    flag: '--nodes',
    default: 8,
    min: 1,
    max: 100,
    help: 'Nodes: containerds in network namespaces.',
  }),
  stagger: durationOption({
    flag: '--stagger',
    defaultMs: 0,
    help: 'In the first phase nodes begin evenly over this time.',
  }),
  upstreamRate: rate('--upstream-rate', 'What the registry can send', '200mbit'),
  nodeRate: rate('--node-rate', 'What each node can send, and receive', '1gbit'),
  containerd: listOption({
    flag: '--containerd',
    placeholder: '<path...>',
    help: 'containerd programs, taken in turn by the nodes. Without it: containerd on PATH.',
  }),
  containerdConfig: mapOption(
    textOption({
      flag: '--containerd-config',
      placeholder: '<file>',
      help: 'TOML that each containerd imports beside its own, such as for parallel layer fetch.',
    }),
    (path) => {
      if (path !== undefined && !existsSync(path)) throw new UserError(`--containerd-config: ${path} does not exist`)
      return path === undefined ? undefined : resolve(path)
    },
  ),
  registry: textOption({
    flag: '--registry',
    placeholder: '<file>',
    help: 'The registry program. Without it: docker-registry or registry on PATH.',
  }),
  workDir: textOption({
    flag: '--work-dir',
    placeholder: '<folder>',
    help: 'Where nodes keep their files. Without it: in memory (/dev/shm) if a round fits in half of it, else the temporary folder. Nodes have disks of their own; here all would share one.',
  }),
}

export const clusterOptions: OptionTable<ClusterOptions> = {
  kubeconfig: textOption({
    flag: '--kubeconfig',
    env: 'KUBECONFIG',
    placeholder: '<file>',
    help: 'The cluster, and who we are there. Without it: ~/.kube/config.',
  }),
  context: textOption({
    flag: '--context',
    placeholder: '<name>',
    help: "Which of the kubeconfig's contexts. Without it: the current one.",
  }),
  namespace: textOption({
    flag: '--namespace',
    placeholder: '<name>',
    default: 'spegel-ts-benchmark',
    help: 'Where pods are made. The namespace is made and removed if it is not there.',
  }),
}

const kubernetesOptions: OptionTable<KubernetesOptions> = {
  ...clusterOptions,
  push: textOption({
    flag: '--push',
    placeholder: '<host/repository>',
    help: 'In a cluster: make the images anew for every round, and push them there, as the nodes name it (http:// before it for a registry without TLS). They stay there.',
  }),
  mirrorDaemonset: mapOption(
    textOption({
      flag: '--mirror-daemonset',
      placeholder: '<namespace/name>',
      help: 'In a cluster with several mirrors: which one.',
    }),
    (text, flag) => {
      if (text !== undefined && !/^[^/]+\/[^/]+$/.test(text))
        throw new UserError(`${flag}: "${text}" is not NAMESPACE/NAME`)
      return text
    },
  ),
  agentImage: textOption({
    flag: '--agent-image',
    placeholder: '<image>',
    help: "In a cluster: spegel-ts' image, which clears the nodes. Without it: the one that is installed, else that of this version.",
  }),
  containerdSock: textOption({
    flag: '--containerd-sock',
    placeholder: '<file>',
    default: '/run/containerd/containerd.sock',
    help: "In a cluster: containerd's socket on the nodes.",
  }),
}

const roundOptions: OptionTable<RoundOptions> = {
  resultDir: mapOption(
    textOption({
      flag: '--result-dir',
      placeholder: '<folder>',
      aliases: [{ flag: '--output-dir', env: 'OUTPUT_DIR' }],
      help: 'Where the result goes. The same command on the same folder goes on where it was broken off.',
    }),
    required,
  ),
  name: textOption({
    flag: '--name',
    placeholder: '<name>',
    help: 'What the result is called in reports. Without it: local, or the name of the cluster.',
  }),
  target: choiceOption({
    flag: '--target',
    choices: ['local', 'kubernetes'],
    help: 'Where images are pulled: on nodes made on this machine, or in a cluster. Without it: kubernetes if a kubeconfig is given (--kubeconfig or KUBECONFIG), else local.',
  }),
  mirror: listOption({
    flag: '--mirror',
    placeholder: '<mirror...>',
    help: 'What is compared: none, spegel-ts, or NAME=COMMAND (see benchmark/README.md). Without it: none spegel-ts. In a cluster: none, and a name for what is installed there.',
  }),
  rounds: integerOption({
    flag: '--rounds',
    default: 5,
    min: 1,
    max: 1_000,
    help: 'Rounds that count. One more warms up.',
  }),
  noneRounds: integerOption({
    flag: '--none-rounds',
    default: 0,
    min: 0,
    max: 1_000,
    help: 'Rounds without a mirror, which take longest and differ least. 0: as many as with one.',
  }),
  repeats: integerOption({
    flag: '--repeats',
    default: 3,
    min: 0,
    max: 1_000,
    help: 'How often rounds of an image may be repeated because the machine was disturbed.',
  }),
  seed: textOption({
    flag: '--seed',
    placeholder: '<text>',
    default: 'spegel-ts',
    help: 'The order of mirrors and the content of images.',
  }),
}

export interface MeasureOptions extends RoundOptions, LocalOptions, KubernetesOptions {
  images: readonly string[]
  scene: string | undefined
}

export const measureOptions: OptionTable<MeasureOptions> = {
  ...roundOptions,
  images: listOption({
    flag: '--images',
    placeholder: '<image...>',
    help: 'Two images: what nodes have first, and what replaces it. Names such as v1-10MB-1 v2-10MB-1 (made anew for every round), or folders of `benchmark generate`; in a cluster images of a registry, or such names with --push. Beside --scene one name, such as 100MB-12: what its images are instead.',
  }),
  scene: textOption({
    flag: '--scene',
    placeholder: '<file>',
    help: 'A scene, as a file or as the name of one in benchmark/scenarios/. It says which images, who pulls when, and what breaks.',
  }),
  ...localOptions,
  ...kubernetesOptions,
}

export interface SuiteOptions extends RoundOptions, LocalOptions, KubernetesOptions {
  large: boolean
  repository: string
}

export const suiteOptions: OptionTable<SuiteOptions> = {
  ...roundOptions,
  large: boolOption({ flag: '--large', default: false, help: 'The 1 GB images too.' }),
  repository: textOption({
    flag: '--repository',
    placeholder: '<host/repository>',
    default: 'ghcr.io/spegel-org/benchmark',
    help: 'In a cluster: where the images are, as benchmark generate --suite --push puts them.',
  }),
  ...localOptions,
  ...kubernetesOptions,
}

export interface AnalyzeOptions {
  path: readonly string[]
  outputDir: string | undefined
}

export const analyzeOptions: OptionTable<AnalyzeOptions> = {
  path: mapOption(
    listOption({
      flag: '--path',
      placeholder: '<path...>',
      aliases: [{ flag: '--suite-paths', env: 'SUITE_PATHS' }],
      help: 'Results: folders or files, of this tool or of the Go tool. Several are compared; the first is the baseline.',
    }),
    (values, flag) => {
      if (values.length === 0) throw new UserError(`${flag} is needed`)
      return notEmpty(values, flag)
    },
  ),
  outputDir: mapOption(
    textOption({
      flag: '--output-dir',
      placeholder: '<folder>',
      help: 'Where the report, tables and plots go. Without it: only the table is printed.',
    }),
    notEmpty,
  ),
}

export interface GenerateOptions {
  size: number | undefined
  layers: number
  seed: string
  shareLayers: number
  suite: boolean
  output: string | undefined
  push: string | undefined
}

export const generateOptions: OptionTable<GenerateOptions> = {
  size: mapOption(
    textOption({
      flag: '--size',
      placeholder: '<size>',
      aliases: [{ flag: '--image-size', env: 'IMAGE_SIZE' }],
      help: 'Compressed size of the image for one platform, such as 10MB (MB = 2^20 bytes).',
    }),
    (text) => {
      if (text === undefined) return undefined
      return parseSizeBytes(text)
    },
  ),
  layers: integerOption({
    flag: '--layers',
    default: 1,
    min: 1,
    max: 1_000,
    aliases: [{ flag: '--layer-count', env: 'LAYER_COUNT' }],
    help: 'How many layers of equal size.',
  }),
  seed: textOption({
    flag: '--seed',
    placeholder: '<text>',
    default: 'v1',
    help: 'The same seed gives the same image, to the digest.',
  }),
  shareLayers: integerOption({
    flag: '--share-layers',
    default: 0,
    min: 0,
    max: 1_000,
    help: 'So many layers do not depend on the seed.',
  }),
  suite: boolOption({
    flag: '--suite',
    default: false,
    help: 'Six images, v1 and v2 of each: 10MB, 100MB and 1GB in 1 and 4 layers.',
  }),
  output: mapOption(
    textOption({ flag: '--output', placeholder: '<folder>', help: 'An OCI layout, made if it is not there.' }),
    notEmpty,
  ),
  push: textOption({
    flag: '--push',
    placeholder: '<url>',
    help: 'A registry: http://host:port/repository:tag, or host/repository:tag. With --suite without the tag.',
  }),
}

export type LocalDownOptions = Record<string, never>
export const localDownOptions: OptionTable<LocalDownOptions> = {}

export interface KubernetesDownOptions extends Omit<ClusterOptions, 'namespace'> {
  namespace: string | undefined
}

export const kubernetesDownOptions: OptionTable<KubernetesDownOptions> = {
  ...clusterOptions,
  namespace: textOption({
    flag: '--namespace',
    placeholder: '<name>',
    help: 'Where to look. Without it: in all namespaces that we may see.',
  }),
}

export interface KubernetesRightsOptions {
  namespace: string
  mirrorNamespace: string
}

export const kubernetesRightsOptions: OptionTable<KubernetesRightsOptions> = {
  namespace: clusterOptions.namespace,
  mirrorNamespace: textOption({
    flag: '--mirror-namespace',
    placeholder: '<name>',
    default: 'spegel-ts',
    help: 'Where the mirror is installed.',
  }),
}

export interface KubernetesClearOptions {
  containerdSock: string
  addr: HostPort
  images: readonly string[]
}

export const kubernetesClearOptions: OptionTable<KubernetesClearOptions> = {
  containerdSock: kubernetesOptions.containerdSock,
  addr: mapOption(
    textOption({
      flag: '--addr',
      placeholder: '<addr>',
      default: ':8080',
      help: 'Where /readyz answers when they are removed.',
    }),
    parseHostPort,
  ),
  images: listOption({ flag: '--images', placeholder: '<image...>', help: 'Images to remove.' }),
}

export interface ExportOptions {
  path: string
  outputDir: string
}

export const exportOptions: OptionTable<ExportOptions> = {
  path: mapOption(
    textOption({ flag: '--path', placeholder: '<folder>', help: 'A result of benchmark measure or suite.' }),
    required,
  ),
  outputDir: mapOption(
    textOption({ flag: '--output-dir', placeholder: '<folder>', help: 'Where the files go, one for each mirror.' }),
    required,
  ),
}
