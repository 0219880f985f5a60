/** Configuration files of a node. */

/** Version 2 is understood by containerd 1.6 to 2.3. */
export function containerdConfig(sandboxImage: string): string {
  const snapshotters = ['btrfs', 'zfs', 'devmapper', 'aufs', 'blockfile', 'erofs']
  const disabled = [
    ...snapshotters.map((name) => `io.containerd.snapshotter.v1.${name}`),
    'io.containerd.internal.v1.tracing',
    'io.containerd.tracing.processor.v1.otlp',
  ]
  return `version = 2
disabled_plugins = ${JSON.stringify(disabled)}
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.grpc.v1.cri"]
  # Containers may run without the right to lower it (CAP_SYS_RESOURCE).
  restrict_oom_score_adj = true
  sandbox_image = "${sandboxImage}"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
`
}

/** Pods on a bridge; nodes have routes to each other's subnets. Addresses are forgotten when the node reboots. */
export function cniConfig(podSubnet: string): string {
  return JSON.stringify({
    cniVersion: '0.4.0',
    name: 'pods',
    plugins: [
      {
        type: 'bridge',
        bridge: 'cni0',
        isGateway: true,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          ranges: [[{ subnet: `${podSubnet}.0/24` }]],
          routes: [{ dst: '0.0.0.0/0' }],
          dataDir: '/run/cni',
        },
      },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  })
}

export function kubeletConfig({ cgroup, dnsIp }: { cgroup: string; dnsIp: string }): string {
  return JSON.stringify({
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: '/etc/kubernetes/authority.crt' },
    },
    authorization: { mode: 'Webhook' },
    tlsCertFile: '/etc/kubernetes/kubelet.crt',
    tlsPrivateKeyFile: '/etc/kubernetes/kubelet.key',
    containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
    cgroupDriver: 'cgroupfs',
    cgroupRoot: cgroup,
    failCgroupV1: false,
    failSwapOn: false,
    clusterDomain: 'cluster.local',
    clusterDNS: [dnsIp],
    resolvConf: '',
    // The hard limit of some containers and virtual machines.
    maxOpenFiles: 20_000,
    // The machine's disk and memory are not the node's: images are never collected, pods never evicted.
    imageGCHighThresholdPercent: 100,
    imageGCLowThresholdPercent: 99,
    evictionHard: { 'memory.available': '50Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
    maxPods: 50,
  })
}

export function proxyConfig(): string {
  return JSON.stringify({
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode: 'iptables',
    clientConnection: { kubeconfig: '/etc/kubernetes/kube-proxy.kubeconfig' },
    // These would be set for the whole machine.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
  })
}
