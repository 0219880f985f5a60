/** The options of every command. `docs/configuration.md` is generated from here. */
import { isIP } from 'node:net'
import { parseStaticPeer } from '../bootstrap/static.ts'
import { type HostPort, parseHostPort, parsePeerIp } from '../lib/address.ts'
import { UserError } from '../lib/errors.ts'
import { logLevels } from '../logger.ts'
import { parsed } from '../lib/foreign.ts'
import type { Owner } from '../lib/owner.ts'
import { isRegistry } from '../oci/reference.ts'
import {
  type MirroredRegistry,
  parseMirrorTargets,
  parseMirroredRegistries,
  wildcardRegistry,
} from '../hosts/registry-url.ts'
import {
  type OptionSpec,
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

/**
 * Spegel waits 20 ms, and leaks upstream while a holder is there. A look-up ends by itself within milliseconds when
 * nobody has the key; the time only counts where peers of the swarm do not answer, or processors are busy.
 */
const resolveTimeoutMs = 1_000

const logLevel = choiceOption({
  flag: '--log-level',
  env: 'LOG_LEVEL',
  choices: logLevels,
  default: 'INFO',
  help: 'Least severe log lines to write.',
})

const hostsFolder = textOption({
  flag: '--containerd-registry-config-path',
  env: 'CONTAINERD_REGISTRY_CONFIG_PATH',
  placeholder: '<folder>',
  default: '/etc/containerd/certs.d',
  help: "containerd's folder of hosts.toml files (config_path of its registry settings).",
})

const basicAuthFolder = textOption({
  flag: '--basic-auth-dir',
  env: 'BASIC_AUTH_DIR',
  placeholder: '<folder>',
  default: '/etc/secrets/basic-auth',
  help: 'Directory with the files username and password. Requests to the mirror must send them. Without the files: no authentication.',
})

const mirroredRegistries = mapOption(
  listOption({
    flag: '--mirrored-registries',
    env: 'MIRRORED_REGISTRIES',
    placeholder: '<url...>',
    help: 'Registries to mirror, as URLs, or _default for all. Empty: all.',
  }),
  (values, flag): MirroredRegistry[] =>
    parseMirroredRegistries(values.length === 0 ? [wildcardRegistry] : values, flag),
)

export interface ApiServerOptions {
  kubernetesServiceHost: string | undefined
  kubernetesServicePort: number
  kubernetesCredentialsDir: string
}

/** How a pod asks Kubernetes. */
const apiServerOptions: OptionTable<ApiServerOptions> = {
  kubernetesServiceHost: mapOption(
    textOption({
      flag: '--kubernetes-service-host',
      env: 'KUBERNETES_SERVICE_HOST',
      placeholder: '<host>',
      help: 'The API server. Kubernetes sets the environment of every pod.',
    }),
    emptyToUndefined,
  ),
  kubernetesServicePort: integerOption({
    flag: '--kubernetes-service-port',
    env: 'KUBERNETES_SERVICE_PORT',
    default: 443,
    min: 1,
    max: 65_535,
    help: 'Its port.',
  }),
  kubernetesCredentialsDir: textOption({
    flag: '--kubernetes-credentials-dir',
    env: 'KUBERNETES_CREDENTIALS_DIR',
    placeholder: '<folder>',
    default: '/var/run/secrets/kubernetes.io/serviceaccount',
    help: 'Folder with token, ca.crt and namespace of the service account.',
  }),
}

export interface RegistryOptions extends ApiServerOptions {
  logLevel: (typeof logLevels)[number]
  bootstrapKind: 'dns' | 'http' | 'kubernetes' | 'static' | undefined
  dnsBootstrapDomain: string | undefined
  httpBootstrapAddr: HostPort | undefined
  httpBootstrapUrl: URL | undefined
  httpBootstrapCertDir: string | undefined
  kubernetesBootstrapService: string | undefined
  staticBootstrapPeers: readonly string[]
  metricsAddr: HostPort
  containerdSock: string
  containerdNamespace: string
  containerdContentPath: string
  ociLayout: string | undefined
  dataDir: string | undefined
  routerAddr: HostPort
  advertiseAddr: readonly string[]
  nodeIp: readonly string[]
  registryAddr: HostPort
  mirroredRegistries: MirroredRegistry[]
  registryFilters: readonly RegExp[]
  defaultRegistry: string | undefined
  mirrorResolveTimeout: number
  mirrorStallTimeout: number
  mirrorResolveRetries: number
  basicAuthDir: string
  shutdownGrace: number
  debugWebEnabled: boolean
  flights: boolean
  containerdRegistryConfigPath: string
  mirrorTargets: string[]
}

export const registryOptions: OptionTable<RegistryOptions> = {
  logLevel,
  bootstrapKind: choiceOption({
    flag: '--bootstrap-kind',
    env: 'BOOTSTRAP_KIND',
    choices: ['dns', 'http', 'kubernetes', 'static'],
    help: 'How to find a first peer. Without it: the kind whose option below is given.',
  }),
  dnsBootstrapDomain: textOption({
    flag: '--dns-bootstrap-domain',
    env: 'DNS_BOOTSTRAP_DOMAIN',
    placeholder: '<name>',
    help: 'Name whose addresses are the nodes, such as a headless service.',
  }),
  httpBootstrapAddr: mapOption(
    textOption({
      flag: '--http-bootstrap-addr',
      env: 'HTTP_BOOTSTRAP_ADDR',
      placeholder: '<addr>',
      help: 'Address to tell other nodes who this one is (GET /id). Empty: nowhere.',
    }),
    optionalAddress,
  ),
  httpBootstrapUrl: mapOption(
    textOption({
      flag: '--http-bootstrap-url',
      env: 'HTTP_BOOTSTRAP_URL',
      placeholder: '<url>',
      aliases: [{ flag: '--http-bootstrap-peer', env: 'HTTP_BOOTSTRAP_PEER' }],
      help: 'URL that names first peers, such as http://10.0.0.1:5002/id.',
    }),
    optionalUrl,
  ),
  httpBootstrapCertDir: textOption({
    flag: '--http-bootstrap-cert-dir',
    env: 'HTTP_BOOTSTRAP_CERT_DIR',
    placeholder: '<folder>',
    help: 'Folder with ca.crt, tls.crt and tls.key for the HTTP bootstrap, on both sides.',
  }),
  kubernetesBootstrapService: mapOption(
    textOption({
      flag: '--kubernetes-bootstrap-service',
      env: 'KUBERNETES_BOOTSTRAP_SERVICE',
      placeholder: '<name>',
      help: "Service in the pod's namespace whose EndpointSlices name the nodes. Its service account must be able to list endpointslices.",
    }),
    optionalServiceName,
  ),
  ...apiServerOptions,
  staticBootstrapPeers: mapOption(
    listOption({
      flag: '--static-bootstrap-peers',
      env: 'STATIC_BOOTSTRAP_PEERS',
      placeholder: '<peer...>',
      help: 'First peers, as IP:PORT or as multiaddrs (/ip4/10.0.0.1/tcp/5001, with or without /p2p/ID).',
    }),
    (values, flag) => values.map((value) => parseStaticPeer(value, flag)),
  ),
  metricsAddr: addressOption({
    flag: '--metrics-addr',
    env: 'METRICS_ADDR',
    default: ':9090',
    help: 'Address of metrics and health.',
  }),
  containerdSock: textOption({
    flag: '--containerd-sock',
    env: 'CONTAINERD_SOCK',
    placeholder: '<file>',
    default: '/run/containerd/containerd.sock',
    help: "containerd's socket.",
  }),
  containerdNamespace: textOption({
    flag: '--containerd-namespace',
    env: 'CONTAINERD_NAMESPACE',
    placeholder: '<name>',
    default: 'k8s.io',
    help: "containerd's namespace with the images to share.",
  }),
  containerdContentPath: textOption({
    flag: '--containerd-content-path',
    env: 'CONTAINERD_CONTENT_PATH',
    placeholder: '<folder>',
    default: '/var/lib/containerd/io.containerd.content.v1.content',
    help: "containerd's content store. Empty or not readable: the folder that containerd names, else through its socket.",
  }),
  ociLayout: textOption({
    flag: '--oci-layout',
    env: 'OCI_LAYOUT',
    placeholder: '<folder>',
    help: 'Share the images of an OCI image layout instead of containerd.',
  }),
  dataDir: mapOption(
    textOption({
      flag: '--data-dir',
      env: 'DATA_DIR',
      placeholder: '<folder>',
      help: "Folder for this node's identity. Without it: a new identity at each start.",
    }),
    emptyToUndefined,
  ),
  routerAddr: mapOption(
    addressOption({
      flag: '--router-addr',
      env: 'ROUTER_ADDR',
      default: ':5001',
      help: 'Address of the swarm (libp2p over TCP).',
    }),
    (address, flag) => {
      const { host } = address
      if (host === '' || (isIP(host) !== 0 && !host.includes('%'))) return address
      throw new UserError(`${flag}: libp2p cannot listen on "${host}": write IP:PORT or :PORT, without a zone`)
    },
  ),
  advertiseAddr: mapOption(
    listOption({
      flag: '--advertise-addr',
      env: 'ADVERTISE_ADDR',
      placeholder: '<ip...>',
      help: 'IP addresses that other nodes reach this one at. Without it: that of --router-addr, else of the default route.',
    }),
    (values, flag) => values.map((value) => parsePeerIp(value, flag)),
  ),
  nodeIp: mapOption(
    listOption({
      flag: '--node-ip',
      env: 'NODE_IP',
      placeholder: '<ip...>',
      help: "IP addresses that this node's containerd connects from, in addition to loopback, the addresses of this network namespace and its gateway.",
    }),
    (values, flag) => values.map((value) => parsePeerIp(value, flag)),
  ),
  registryAddr: addressOption({
    flag: '--registry-addr',
    env: 'REGISTRY_ADDR',
    default: ':5000',
    help: 'Address that containerd and other nodes ask. The port must be the same on all nodes.',
  }),
  mirroredRegistries,
  registryFilters: mapOption(
    listOption({
      flag: '--registry-filters',
      env: 'REGISTRY_FILTERS',
      placeholder: '<regex...>',
      help: 'What matches registry/repository[:tag] is neither answered nor advertised, such as :latest$.',
    }),
    (values, flag) => values.map((value) => toRegExp(value, flag)),
  ),
  defaultRegistry: mapOption(
    textOption({
      flag: '--default-registry',
      env: 'DEFAULT_REGISTRY',
      placeholder: '<host>',
      help: 'Registry that is meant where a request has no ns parameter, for clients other than containerd.',
    }),
    (value, flag) => {
      if (value !== undefined && !isRegistry(value)) throw new UserError(`${flag}: "${value}" is not a host[:port]`)
      return value
    },
  ),
  mirrorResolveTimeout: durationOption({
    flag: '--mirror-resolve-timeout',
    env: 'MIRROR_RESOLVE_TIMEOUT',
    defaultMs: resolveTimeoutMs,
    help: 'How long to wait for a further peer while none is being asked. A look-up that finds nobody ends by itself.',
  }),
  mirrorStallTimeout: durationOption({
    flag: '--mirror-stall-timeout',
    env: 'MIRROR_STALL_TIMEOUT',
    defaultMs: 10_000,
    help: 'A peer that gives next to nothing for this long, while bytes are waited for, is left for the next one.',
  }),
  mirrorResolveRetries: integerOption({
    flag: '--mirror-resolve-retries',
    env: 'MIRROR_RESOLVE_RETRIES',
    default: 10,
    min: 1,
    max: 1_000,
    help: 'How many peers with the content to look for.',
  }),
  basicAuthDir: basicAuthFolder,
  shutdownGrace: durationOption({
    flag: '--shutdown-grace',
    env: 'SHUTDOWN_GRACE',
    defaultMs: 25_000,
    help: 'How long running transfers may go on after SIGTERM.',
  }),
  debugWebEnabled: boolOption({
    flag: '--debug-web-enabled',
    env: 'DEBUG_WEB_ENABLED',
    default: true,
    help: 'Accepted for manifests written for Spegel; there is no debug page yet.',
  }),
  flights: boolOption({
    flag: '--flights',
    env: 'FLIGHTS',
    default: true,
    help: 'When several nodes want content that none has: one goes upstream, the others are fed while it arrives.',
  }),
  containerdRegistryConfigPath: hostsFolder,
  mirrorTargets: mapOption(
    listOption({
      flag: '--mirror-targets',
      env: 'MIRROR_TARGETS',
      placeholder: '<url...>',
      help: 'URLs of this mirror that configuration wrote to hosts.toml, to notice when containerd no longer uses them. Without it: the port of --registry-addr on any address of this machine.',
    }),
    (values, flag) => (values.length === 0 ? [] : parseMirrorTargets(values, flag)),
  ),
}

export interface ConfigurationOptions {
  logLevel: (typeof logLevels)[number]
  containerdRegistryConfigPath: string
  mirroredRegistries: MirroredRegistry[]
  mirrorTargets: string[]
  resolveTags: boolean
  prependExisting: boolean
  basicAuthDir: string
  containerdSock: string
}

export const configurationOptions: OptionTable<ConfigurationOptions> = {
  logLevel,
  containerdRegistryConfigPath: mapOption(hostsFolder, notEmpty),
  containerdSock: textOption({
    flag: '--containerd-sock',
    env: 'CONTAINERD_SOCK',
    placeholder: '<file>',
    default: '/run/containerd/containerd.sock',
    help: "containerd's socket, to learn its version. Unreachable: what is written must suit every version from 1.6 on.",
  }),
  mirroredRegistries,
  mirrorTargets: mapOption(
    listOption({
      flag: '--mirror-targets',
      env: 'MIRROR_TARGETS',
      placeholder: '<url...>',
      help: 'URLs of the mirror that containerd asks first, such as http://127.0.0.1:5000. Required.',
    }),
    parseMirrorTargets,
  ),
  resolveTags: boolOption({
    flag: '--resolve-tags',
    env: 'RESOLVE_TAGS',
    default: true,
    help: 'Let the mirror say what a tag stands for; otherwise only upstream does.',
  }),
  prependExisting: boolOption({
    flag: '--prepend-existing',
    env: 'PREPEND_EXISTING',
    default: true,
    help: 'Keep existing hosts, servers and certificates behind the mirror. false: set them aside until cleanup (the default of Spegel, which breaks registries that need a certificate from there).',
  }),
  basicAuthDir: basicAuthFolder,
}

export interface PrepareOptions {
  dataDir: string
  owner: Owner
}

export const prepareOptions: OptionTable<PrepareOptions> = {
  dataDir: mapOption(
    textOption({
      flag: '--data-dir',
      env: 'DATA_DIR',
      placeholder: '<folder>',
      help: "Folder for this node's identity. Required.",
    }),
    (value, flag) => {
      if (value === undefined || value === '') throw new UserError(`${flag} is required: name a folder`)
      return value
    },
  ),
  owner: mapOption(
    textOption({
      flag: '--owner',
      env: 'OWNER',
      placeholder: '<uid:gid>',
      help: 'User and group that the daemon runs as, as numbers. Required.',
    }),
    (value, flag) => {
      const [, uid, gid] = /^(\d{1,9}):(\d{1,9})$/.exec(value ?? '') ?? []
      if (uid === undefined)
        throw new UserError(`${flag}: "${value ?? ''}" is not an owner: write UID:GID, such as 65532:0`)
      return { uid: Number(uid), gid: Number(gid) }
    },
  ),
}

export interface CleanupOptions {
  logLevel: (typeof logLevels)[number]
  addr: HostPort
  /** Empty: none to restore. */
  containerdRegistryConfigPath: string
  keepFolder: boolean
  dataDir: string | undefined
}

export const cleanupOptions: OptionTable<CleanupOptions> = {
  logLevel,
  addr: mapOption(
    textOption({
      flag: '--addr',
      env: 'ADDR',
      placeholder: '<addr>',
      help: 'Address to answer /readyz on when everything is restored. Required.',
    }),
    requiredAddress,
  ),
  containerdRegistryConfigPath: hostsFolder,
  keepFolder: boolOption({
    flag: '--keep-folder',
    default: false,
    help: 'Leave the folder of hosts.toml files also if it was not there before: a mirror that runs on has it mounted.',
  }),
  dataDir: mapOption(
    textOption({
      flag: '--data-dir',
      env: 'DATA_DIR',
      placeholder: '<folder>',
      help: "Folder with this node's identity, to be removed too.",
    }),
    emptyToUndefined,
  ),
}

export interface CleanupWaitOptions extends ApiServerOptions {
  logLevel: (typeof logLevels)[number]
  probeEndpoint: HostPort | undefined
  daemonset: { namespace: string; name: string } | undefined
  threshold: number
  period: number
  timeout: number
}

export const cleanupWaitOptions: OptionTable<CleanupWaitOptions> = {
  logLevel,
  probeEndpoint: mapOption(
    textOption({
      flag: '--probe-endpoint',
      env: 'PROBE_ENDPOINT',
      placeholder: '<addr>',
      help: 'host:port of the cleanups; all addresses of the host are asked. This or --daemonset is required.',
    }),
    (value, flag) => {
      if (value === undefined) return undefined
      const endpoint = parseHostPort(value, flag)
      if (endpoint.host === '') throw new UserError(`${flag}: "${value}" has no host: write HOST:PORT`)
      return endpoint
    },
  ),
  daemonset: mapOption(
    textOption({
      flag: '--daemonset',
      env: 'DAEMONSET',
      placeholder: '<namespace/name>',
      help: 'DaemonSet of the cleanups: ask Kubernetes until all of its nodes are ready, and remove it then. The service account must be able to get and delete it.',
    }),
    (value, flag) => {
      if (value === undefined) return undefined
      const [, namespace, name] = /^([a-z0-9][-a-z0-9]*)\/([a-z0-9][-.a-z0-9]*)$/.exec(value) ?? []
      if (namespace === undefined || name === undefined) {
        throw new UserError(`${flag}: "${value}" is not a DaemonSet: write NAMESPACE/NAME`)
      }
      return { namespace, name }
    },
  ),
  ...apiServerOptions,
  threshold: integerOption({
    flag: '--threshold',
    env: 'THRESHOLD',
    default: 3,
    min: 1,
    max: 1_000,
    help: 'Rounds in a row in which every node must answer.',
  }),
  period: durationOption({ flag: '--period', env: 'PERIOD', defaultMs: 2_000, help: 'Time between rounds.' }),
  timeout: durationOption({
    flag: '--timeout',
    env: 'TIMEOUT',
    defaultMs: 240_000,
    help: 'With --daemonset: how long to wait. Then it fails, and the DaemonSet stays for the nodes that are missing.',
  }),
}

export interface VersionOptions {
  format: 'text' | 'json'
}

export const versionOptions: OptionTable<VersionOptions> = {
  format: choiceOption({ flag: '--format', choices: ['text', 'json'], default: 'text', help: 'How to print it.' }),
}

function addressOption(spec: { flag: string; env: string; default: string; help: string }): OptionSpec<HostPort> {
  return mapOption(textOption({ ...spec, placeholder: '<addr>' }), parseHostPort)
}

function emptyToUndefined(value: string | undefined): string | undefined {
  return value === '' ? undefined : value
}

function optionalAddress(value: string | undefined, flag: string): HostPort | undefined {
  return value === undefined || value === '' ? undefined : parseHostPort(value, flag)
}

function requiredAddress(value: string | undefined, flag: string): HostPort {
  if (value === undefined) throw new UserError(`${flag} is required: write HOST:PORT or :PORT`)
  return parseHostPort(value, flag)
}

/** Names of Services are DNS labels (RFC 1035). */
function optionalServiceName(value: string | undefined, flag: string): string | undefined {
  if (value === undefined || value === '') return undefined
  if (!/^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/.test(value)) {
    throw new UserError(`${flag}: "${value}" is not the name of a Service`)
  }
  return value
}

function optionalUrl(value: string | undefined, flag: string): URL | undefined {
  if (value === undefined || value === '') return undefined
  const url = URL.parse(value)
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new UserError(`${flag}: "${value}" is not a URL: write it with http:// or https://`)
  }
  return url
}

function toRegExp(text: string, flag: string): RegExp {
  const pattern = parsed(() => new RegExp(text))
  if (pattern === undefined) throw new UserError(`${flag}: "${text}" is not a regular expression`)
  return pattern
}
