/** What a measurement must be allowed in a cluster, as objects to apply: `benchmark kubernetes rights`. */
const account = 'spegel-ts-benchmark'
const group = 'rbac.authorization.k8s.io'

interface Rule {
  apiGroups: string[]
  resources: string[]
  verbs: string[]
}

/** Cluster-wide nothing but reading; writing in its own namespace, which stays. `mirrorNamespace`: where the mirror runs. */
export function rights(namespace: string, mirrorNamespace: string): object[] {
  const reads: Rule[] = [
    // Which nodes there are; what was left by a run that was killed; which mirror is installed.
    { apiGroups: [''], resources: ['nodes', 'namespaces'], verbs: ['get', 'list'] },
    { apiGroups: ['apps'], resources: ['daemonsets'], verbs: ['get', 'list'] },
  ]
  const own: Rule[] = [
    {
      apiGroups: ['apps'],
      resources: ['daemonsets'],
      verbs: ['get', 'list', 'watch', 'create', 'update', 'delete'],
    },
    // Of `benchmark network`: the pod that measures, and its result.
    { apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'create', 'delete'] },
    { apiGroups: [''], resources: ['pods/log'], verbs: ['get'] },
    { apiGroups: [''], resources: ['services'], verbs: ['get', 'create', 'delete'] },
    { apiGroups: [''], resources: ['events'], verbs: ['list', 'watch'] },
  ]
  const mirror: Rule[] = [
    { apiGroups: [''], resources: ['pods'], verbs: ['list'] },
    // Its metrics.
    { apiGroups: [''], resources: ['pods/proxy'], verbs: ['get'] },
  ]
  const subjects = [{ kind: 'ServiceAccount', name: account, namespace }]
  return [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'pod-security.kubernetes.io/enforce': 'privileged' } },
    },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: account, namespace } },
    { apiVersion: `${group}/v1`, kind: 'ClusterRole', metadata: { name: account }, rules: reads },
    {
      apiVersion: `${group}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: account },
      roleRef: { apiGroup: group, kind: 'ClusterRole', name: account },
      subjects,
    },
    ...role(namespace, account, own, subjects),
    ...role(mirrorNamespace, `${account}-mirror`, mirror, subjects),
  ]
}

function role(namespace: string, name: string, rules: Rule[], subjects: object[]): object[] {
  const metadata = { name, namespace }
  return [
    { apiVersion: `${group}/v1`, kind: 'Role', metadata, rules },
    {
      apiVersion: `${group}/v1`,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: group, kind: 'Role', name },
      subjects,
    },
  ]
}
