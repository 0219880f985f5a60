/** For each value of the chart another one that is right, with what it needs to have an effect. */
import type { Values } from '../support/chart.ts'

export interface Change {
  to: unknown
  /** Beside the features that are switched on for all. */
  where?: Values
}

/** Everything that can be on at the same time. */
export const everythingOn: Values = {
  serviceMonitor: { enabled: true },
  networkPolicy: { enabled: true },
  grafanaDashboard: { enabled: true },
  verticalPodAutoscaler: { enabled: true },
  resourceQuotas: { enabled: true },
}

const labels = { team: 'images' }
const volume = [{ name: 'more', hostPath: { path: '/srv/more' } }]
const byPods: Values = { serviceMonitor: { enabled: false }, podMonitor: { enabled: true } }
const byOperator: Values = { grafanaDashboard: { enabled: true, mode: 'GrafanaOperator' } }
const byUrl: Values = { spegel: { bootstrap: { kind: 'http', url: 'https://10.0.0.1:5002/id' } } }
const rules = [{ action: 'labeldrop', regex: 'pod' }]
const from = [{ ipBlock: { cidr: '10.0.0.0/8' } }]

export const everyValue: Readonly<Record<string, Change>> = {
  'image.repository': { to: 'registry.example/mirror' },
  'image.pullPolicy': { to: 'Always' },
  'image.tag': { to: 'v2' },
  'image.digest': { to: `sha256:${'a'.repeat(64)}` },
  imagePullSecrets: { to: [{ name: 'pull' }] },
  nameOverride: { to: 'other' },
  fullnameOverride: { to: 'other' },
  namespaceOverride: { to: 'other' },
  'serviceAccount.annotations': { to: labels },
  'serviceAccount.name': { to: 'other' },
  daemonsetAnnotations: { to: labels },
  podAnnotations: { to: labels },
  podLabels: { to: labels },
  commonLabels: { to: labels },
  podSecurityContext: { to: { seLinuxOptions: { type: 'spc_t' } } },
  securityContext: { to: { runAsUser: 0, runAsNonRoot: false } },
  revisionHistoryLimit: { to: 3 },
  'service.registry.port': { to: 5100 },
  'service.registry.nodePort': { to: 31_000 },
  'service.registry.hostPort': { to: 31_000 },
  'service.registry.nodeIp': { to: '10.0.0.1' },
  'service.registry.annotations': { to: labels },
  'service.router.port': { to: 5101 },
  'service.metrics.port': { to: 9100 },
  'service.metrics.annotations': { to: labels },
  'service.bootstrap.annotations': { to: labels },
  resources: { to: { limits: { memory: '1Gi' } } },
  nodeSelector: { to: { pool: 'a' } },
  affinity: {
    to: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchExpressions: [{ key: 'type', operator: 'DoesNotExist' }] }],
        },
      },
    },
  },
  tolerations: { to: [{ key: 'gpu', operator: 'Exists' }] },
  updateStrategy: { to: { type: 'OnDelete' } },
  priorityClassName: { to: 'high' },
  terminationGracePeriodSeconds: { to: 60 },
  clusterDomain: { to: 'example.' },
  'resourceQuotas.enabled': { to: false },
  'resourceQuotas.pods': { to: 7 },
  'serviceMonitor.enabled': { to: false },
  'serviceMonitor.interval': { to: '30s' },
  'serviceMonitor.scrapeTimeout': { to: '5s' },
  'serviceMonitor.labels': { to: labels },
  'serviceMonitor.relabelings': { to: rules },
  'serviceMonitor.metricRelabelings': { to: rules },
  'podMonitor.enabled': { to: true, where: { serviceMonitor: { enabled: false } } },
  'podMonitor.interval': { to: '30s', where: byPods },
  'podMonitor.scrapeTimeout': { to: '5s', where: byPods },
  'podMonitor.labels': { to: labels, where: byPods },
  'podMonitor.relabelings': { to: rules, where: byPods },
  'podMonitor.metricRelabelings': { to: rules, where: byPods },
  'grafanaDashboard.enabled': { to: false },
  'grafanaDashboard.mode': { to: 'GrafanaOperator' },
  'grafanaDashboard.labels': { to: { grafana_dashboard: '1' } },
  'grafanaDashboard.annotations': { to: { grafana_folder: 'Images' } },
  'grafanaDashboard.grafanaOperator.allowCrossNamespaceImport': { to: false, where: byOperator },
  'grafanaDashboard.grafanaOperator.folder': { to: 'Images', where: byOperator },
  'grafanaDashboard.grafanaOperator.resyncPeriod': { to: '1h', where: byOperator },
  'grafanaDashboard.grafanaOperator.matchLabels': { to: { dashboards: 'a' }, where: byOperator },
  'networkPolicy.enabled': { to: false },
  'networkPolicy.registryFrom': { to: from },
  'networkPolicy.metricsFrom': { to: from },
  'networkPolicy.extraIngress': { to: [{ from }] },
  'networkPolicy.extraEgress': { to: [{ to: from }] },
  basicAuthSecretName: { to: 'password' },
  'spegel.logLevel': { to: 'DEBUG' },
  'spegel.bootstrap.kind': { to: 'kubernetes' },
  'spegel.bootstrap.domain': { to: 'peers.example' },
  'spegel.bootstrap.url': { to: 'http://10.0.0.2:5002/id', where: byUrl },
  'spegel.bootstrap.certSecretName': { to: 'certificates', where: byUrl },
  'spegel.bootstrap.peers': {
    to: ['10.0.0.2:5001'],
    where: { spegel: { bootstrap: { kind: 'static', peers: ['10.0.0.1:5001'] } } },
  },
  'spegel.persistence.enabled': { to: false },
  'spegel.persistence.path': { to: '/data/identity' },
  'spegel.persistence.hostPath': { to: '/srv/spegel-ts' },
  'spegel.flights': { to: false },
  'spegel.mirroredRegistries': { to: ['https://docker.io', 'https://registry.example:5000'] },
  'spegel.additionalMirrorTargets': { to: ['https://cache.example'] },
  'spegel.registryFilters': { to: [':latest$', '^docker\\.io/'] },
  'spegel.defaultRegistry': { to: 'docker.io' },
  'spegel.resolveTags': { to: false },
  'spegel.prependExisting': { to: false },
  'spegel.mirrorResolveRetries': { to: 3 },
  'spegel.mirrorResolveTimeout': { to: '20ms' },
  'spegel.mirrorStallTimeout': { to: '1m30s' },
  'spegel.containerdSock': { to: '/run/k3s/containerd/containerd.sock' },
  'spegel.containerdNamespace': { to: 'moby' },
  'spegel.containerdContentPath': { to: '' },
  'spegel.containerdRegistryConfigPath': { to: '/etc/cri/conf.d/hosts' },
  'spegel.containerdMirrorAdd': { to: false },
  'spegel.debugWebEnabled': { to: false },
  'cleanup.timeout': { to: '10m' },
  'cleanup.nodeSelector': { to: { pool: 'a' } },
  'cleanup.tolerations': { to: [{ key: 'gpu', operator: 'Exists' }] },
  'verticalPodAutoscaler.enabled': { to: false },
  'verticalPodAutoscaler.recommenders': { to: [{ name: 'own' }] },
  'verticalPodAutoscaler.controlledResources': { to: ['memory'] },
  'verticalPodAutoscaler.controlledValues': { to: 'RequestsOnly' },
  'verticalPodAutoscaler.maxAllowed': { to: { memory: '1Gi' } },
  'verticalPodAutoscaler.minAllowed': { to: { memory: '128Mi' } },
  'verticalPodAutoscaler.updatePolicy.minReplicas': { to: 1 },
  'verticalPodAutoscaler.updatePolicy.updateMode': { to: 'Off' },
  'livenessProbe.enabled': { to: true },
  extraArgs: { to: ['--oci-layout=/layout'] },
  extraVolumes: { to: volume },
  extraVolumeMounts: { to: [{ name: 'more', mountPath: '/more' }], where: { extraVolumes: volume } },
  extraInitContainers: { to: [{ name: 'first', image: 'busybox', command: ['true'] }] },
}

/** These values with one more: `set({a: {b: 1}}, 'a.c', 2)` is `{a: {b: 1, c: 2}}`. */
export function set(values: Values, path: string, value: unknown): Values {
  const [key = '', ...rest] = path.split('.')
  if (rest.length === 0) return { ...values, [key]: value }
  return { ...values, [key]: set((values[key] ?? {}) as Values, rest.join('.'), value) }
}
