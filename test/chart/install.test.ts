import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'smol-toml'
import { runCli } from '../../src/cli/cli.ts'
import { Chart, type Values, chartFolder, newKubernetes, oldKubernetes, podOf } from '../support/chart.ts'
import { everythingOn } from './every-value.ts'

let chart: Chart
beforeAll(async () => {
  chart = await Chart.open()
})

describe('what is installed', () => {
  it('is right in the eyes of Helm', async () => {
    expect(await chart.helm('lint', chartFolder, '--strict', '--kube-version', newKubernetes)).toContain(
      '0 chart(s) failed',
    )
  })

  it('is little by default', async () => {
    expect((await chart.render()).kinds()).toEqual([
      'ServiceAccount',
      'Service -registry',
      'Service -bootstrap',
      'Service',
      'DaemonSet',
      'ServiceAccount -cleanup',
      'Role -cleanup',
      'RoleBinding -cleanup',
      'DaemonSet -cleanup',
      'Pod -test-ready',
      'Job -cleanup-wait',
    ])
  })

  it.each<[string, Values]>([
    ['nothing', {}],
    ['everything', everythingOn],
    ['pod monitor', { podMonitor: { enabled: true } }],
    ['both ports', { service: { registry: { nodePort: 30_021, hostPort: 30_020 } } }],
    ['a name that is too long', { fullnameOverride: 'a'.repeat(80) }],
    ['only the identity', { spegel: { containerdMirrorAdd: false, containerdRegistryConfigPath: '' } }],
    ['nothing on the host', { spegel: { containerdMirrorAdd: false, persistence: { enabled: false } } }],
    [
      'both folders in one place',
      {
        spegel: { containerdRegistryConfigPath: '/srv/mirror/certs.d', persistence: { hostPath: '/srv/mirror/id' } },
      },
    ],
    ['kubernetes', { spegel: { bootstrap: { kind: 'kubernetes' } }, networkPolicy: { enabled: true } }],
  ])('is taken by Kubernetes with %s', async (_name, values) => {
    expect(await chart.faults(await chart.render(values))).toEqual([])
    expect(await chart.faults(await chart.render(values, { kubernetes: oldKubernetes }))).toEqual([])
  })

  it('is found wrong by the check when it is', async () => {
    const words = async (values: Values) => (await chart.faults(await chart.render(values))).join('\n')
    expect(await words({ podSecurityContext: { seccomp: 'RuntimeDefault' } })).toMatch(
      /strict decoding error: unknown field "spec.template.spec.securityContext.seccomp"/,
    )
    expect(await words({ extraVolumeMounts: [{ name: 'nowhere', mountPath: '/x' }] })).toMatch(/Not found: "nowhere"/)
    const both = { rollingUpdate: { maxSurge: 1, maxUnavailable: 1 } }
    expect(await words({ updateStrategy: both })).toMatch(/may not be set when maxUnavailable is non-zero/)
    expect(await words({ serviceMonitor: { enabled: true, relabelings: [{ acton: 'drop' }] } })).toMatch(
      /unknown field "spec.endpoints\[0\].relabelings\[0\].acton"/,
    )
  })

  it('can be part of another chart', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'spegel-ts-parent-'))
    try {
      await writeFile(
        join(folder, 'Chart.yaml'),
        `apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies: [{name: spegel-ts, version: '*', repository: 'file://${chartFolder}'}]\n`,
      )
      await chart.helm('dependency', 'update', folder, '--skip-refresh')
      const values = { global: { region: 'x' }, 'spegel-ts': { fullnameOverride: 'mirror-spegel-ts' } }
      expect((await chart.render(values, { folder })).pod().containers).toHaveLength(1)
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  it('says how to see that it works', async () => {
    const notes = await chart.notes()
    expect(notes).toMatch(/at port 30020 of its own node \(node port\)\.\n\nIs it working\?/)
    expect(notes).toContain('kubectl -n mirrors rollout status daemonset/mirror-spegel-ts')
    expect(notes).toMatch(/`helm uninstall` puts hosts.toml of every node back/)
    expect(notes).not.toMatch(/CAREFUL/)
    const old = await chart.notes({ service: { registry: { nodePort: 30_020 } } }, oldKubernetes)
    expect(old).toMatch(/CAREFUL: Kubernetes v1\.33\.9 sends a node port to any node's mirror/)
  })
})

describe('the way from containerd to the daemon', () => {
  it.each<[string, Values, string | undefined, string[]]>([
    ['1.30.0', {}, undefined, ['30020']],
    [oldKubernetes, {}, undefined, ['30020']],
    ['1.34.0', {}, 'PreferSameNode', ['30020']],
    // As EKS and GKE name themselves.
    ['1.34.1-eks-abcdef1', {}, 'PreferSameNode', ['30020']],
    ['1.37.0', {}, 'PreferSameNode', ['30020']],
    ['1.37.0', { nodePort: 31_000 }, 'PreferSameNode', ['31000']],
    ['1.37.0', { hostPort: 31_000 }, undefined, ['31000']],
    ['1.37.0', { hostPort: 31_000, nodePort: 31_001 }, 'PreferSameNode', ['31000', '31001']],
  ])('on Kubernetes %s with %j', async (kubernetes, registry, distribution, ports) => {
    const rendered = await chart.render({ service: { registry } }, { kubernetes })
    const services = rendered.manifests.filter(({ metadata }) => metadata.name.endsWith('-registry'))
    const [nodePort] = services.flatMap(({ spec }) => spec?.['ports'] as { nodePort: number }[])
    const [hostPort] = rendered.container('registry').ports ?? []
    expect(services[0]?.spec?.['trafficDistribution']).toBe(distribution)
    const found = [hostPort?.hostPort, nodePort?.nodePort].filter((port) => port !== undefined)
    expect(found.map(String)).toEqual(ports)
    const targets = ports.map((port) => `http://$(NODE_IP):${port}`)
    for (const name of ['configuration', 'registry']) {
      const { args } = rendered.container(name)
      const start = args.indexOf('--mirror-targets') + 1
      expect(args.slice(start, start + targets.length), name).toEqual(targets)
    }
  })

  it('is the address of the node, or what the user says', async () => {
    const env = (await chart.render()).container('configuration').env
    expect(env).toEqual([{ name: 'NODE_IP', valueFrom: { fieldRef: { fieldPath: 'status.hostIP' } } }])
    const own = await chart.render({ service: { registry: { nodeIp: 'fd00::1' } } })
    for (const name of ['configuration', 'registry']) {
      expect(own.container(name).env).toContainEqual({ name: 'NODE_IP', value: 'fd00::1' })
    }
  })

  it('is open during an update: by a second daemon where two can be, else node by node', async () => {
    const strategyOf = async (values: Values) =>
      (await chart.render(values)).find('DaemonSet').spec?.['updateStrategy']
    expect(await strategyOf({})).toMatchObject({ rollingUpdate: { maxSurge: '10%', maxUnavailable: 0 } })
    const withHostPort = { service: { registry: { hostPort: 30_020 } } }
    expect(await strategyOf(withHostPort)).toMatchObject({ rollingUpdate: { maxSurge: 0, maxUnavailable: '10%' } })
    expect(await chart.refusal({ ...withHostPort, updateStrategy: { rollingUpdate: { maxSurge: 1 } } })).toMatch(
      /updateStrategy: maxSurge cannot be used with service.registry.hostPort/,
    )
    const { spec } = (await chart.render({ terminationGracePeriodSeconds: 60 })).find('DaemonSet')
    expect(spec?.template?.spec).toMatchObject({ terminationGracePeriodSeconds: 60 })
    const { args, ...container } = (await chart.render({ terminationGracePeriodSeconds: 60 })).container('registry')
    expect(args).toContain('--shutdown-grace=45s')
    expect(container).toMatchObject({ lifecycle: { preStop: { sleep: { seconds: 5 } } } })
  })

  it.each<[string, Values, RegExp]>([
    [
      'one port for two',
      { service: { registry: { nodePort: 30_020, hostPort: 30_020 } } },
      /nodePort and hostPort are both 30020: choose two numbers/,
    ],
    [
      'no folder to write to',
      { spegel: { containerdRegistryConfigPath: '' } },
      /containerdRegistryConfigPath is empty: name containerd's certs.d/,
    ],
    ['no URL', { spegel: { bootstrap: { kind: 'http' } } }, /kind http needs spegel.bootstrap.url/],
    ['no peers', { spegel: { bootstrap: { kind: 'static' } } }, /kind static needs spegel.bootstrap.peers/],
    [
      'two monitors',
      { serviceMonitor: { enabled: true }, podMonitor: { enabled: true } },
      /would scrape every pod twice: choose one/,
    ],
  ])('is refused with %s', async (_name, values, words) => {
    expect(await chart.refusal(values)).toMatch(words)
  })

  it('is refused on a Kubernetes that is too old', async () => {
    expect(await chart.refusal({}, { kubernetes: '1.29.9' })).toMatch(/requires kubeVersion: >=1.30.0-0/)
  })
})

describe('rights', () => {
  it('are few: no capability for the daemon, those of copying files for root', async () => {
    const { manifests } = await chart.render()
    const pods = manifests.filter(({ kind }) => ['DaemonSet', 'Job', 'Pod'].includes(kind)).map(podOf)
    expect(pods).toHaveLength(4)
    for (const pod of pods) {
      expect(pod.securityContext).toEqual({ seccompProfile: { type: 'RuntimeDefault' } })
      for (const { name, securityContext } of [...(pod.initContainers ?? []), ...pod.containers]) {
        expect(securityContext, name).toMatchObject({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true })
        expect(securityContext.privileged, name).toBeUndefined()
        expect(securityContext.capabilities?.drop, name).toEqual(['ALL'])
        const root = { configuration: copying, prepare: ['CHOWN'], cleanup: copying }[name]
        expect(securityContext.capabilities?.add, name).toEqual(root)
        expect(securityContext, name).toMatchObject(
          root === undefined
            ? { runAsUser: 65_532, runAsGroup: 0, runAsNonRoot: true }
            : { runAsUser: 0, runAsGroup: 0 },
        )
      }
    }
  })

  it('to the API are none, but those of the clean-up to its own DaemonSet', async () => {
    const rendered = await chart.render()
    const tokens = rendered.manifests.map((manifest) => podOf(manifest).automountServiceAccountToken)
    expect(tokens.filter((token) => token === true)).toHaveLength(1)
    expect(podOf(rendered.find('Job', '-cleanup-wait')).automountServiceAccountToken).toBe(true)
    expect(rendered.manifests.flatMap(({ rules = [] }) => rules)).toEqual([
      {
        apiGroups: ['apps'],
        resources: ['daemonsets'],
        resourceNames: ['mirror-spegel-ts-cleanup'],
        verbs: ['get', 'delete'],
      },
    ])
  })

  it('to the API are to list EndpointSlices where the bootstrap is there', async () => {
    const rendered = await chart.render({ spegel: { bootstrap: { kind: 'kubernetes' } } })
    expect(rendered.find('Role').rules).toEqual([
      { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list'] },
    ])
    expect(rendered.pod().automountServiceAccountToken).toBe(true)
    expect(rendered.container('registry').args).toContain('--kubernetes-bootstrap-service=mirror-spegel-ts-bootstrap')
    expect(rendered.kinds()).toContain('Service -bootstrap')
  })

  it('to the network are named by the policy, so that mirrors reach each other and nothing else', async () => {
    const policy = (await chart.render({ networkPolicy: { enabled: true } })).find('NetworkPolicy').spec
    const peers = [{ podSelector: policy?.['podSelector'] }]
    const ports = [
      { port: 5000, protocol: 'TCP' },
      { port: 5001, protocol: 'TCP' },
    ]
    const dns = {
      ports: [
        { port: 53, protocol: 'UDP' },
        { port: 53, protocol: 'TCP' },
      ],
    }
    expect(policy?.['egress']).toEqual([{ to: peers, ports }, dns])
    expect(policy?.['ingress']).toEqual([
      { from: peers, ports },
      { ports: [{ port: 5000, protocol: 'TCP' }] },
      { ports: [{ port: 9090, protocol: 'TCP' }] },
    ])
  })
})

const copying = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER']

describe('a node', () => {
  it('shows the daemon what it needs, to read', async () => {
    const rendered = await chart.render()
    const { volumes = [] } = rendered.pod()
    const path = (name: string) => volumes.find((volume) => volume.name === name)?.hostPath
    const mounts = rendered
      .container('registry')
      .volumeMounts?.map((mount) => [
        mount.mountPath,
        mount.readOnly ?? false,
        mount.mountPropagation,
        path(mount.name)?.path,
        path(mount.name)?.type,
      ])
    const content = '/var/lib/containerd/io.containerd.content.v1.content'
    expect(mounts).toEqual([
      ['/run/containerd', true, 'HostToContainer', '/run/containerd', 'Directory'],
      [content, true, undefined, content, 'Directory'],
      ['/etc/containerd/certs.d', true, undefined, '/etc/containerd/certs.d', ''],
      ['/var/lib/spegel-ts', false, undefined, '/var/lib/spegel-ts', 'DirectoryOrCreate'],
    ])
  })

  it('is not touched where something else writes hosts.toml, which then has to be there', async () => {
    const rendered = await chart.render({ spegel: { containerdMirrorAdd: false } })
    expect(rendered.pod().initContainers?.map(({ name }) => name)).toEqual(['prepare'])
    const config = rendered.pod().volumes?.find(({ name }) => name === 'containerd-config')
    expect(config?.hostPath).toEqual({ path: '/etc/containerd/certs.d', type: 'Directory' })
    const [cleanup] = rendered.pod('-cleanup').containers
    expect(cleanup?.volumeMounts?.map(({ mountPath }) => mountPath)).toEqual(['/host/var/lib'])
    const nothing = await chart.render({ spegel: { containerdMirrorAdd: false, persistence: { enabled: false } } })
    expect(nothing.kinds().filter((kind) => kind.includes('cleanup'))).toEqual([])
  })

  it('gives the daemon its password and certificates where there are some', async () => {
    const rendered = await chart.render({
      basicAuthSecretName: 'password',
      spegel: { bootstrap: { kind: 'http', url: 'https://10.0.0.1:5002/id', certSecretName: 'certificates' } },
    })
    for (const name of ['registry', 'configuration']) {
      const mount = rendered
        .container(name)
        .volumeMounts?.find(({ mountPath }) => mountPath === '/etc/secrets/basic-auth')
      expect(mount?.readOnly, name).toBe(true)
    }
    expect(rendered.container('registry').args).toContain('--http-bootstrap-cert-dir=/etc/secrets/bootstrap')
    const secrets = rendered.pod().volumes?.flatMap(({ secret }) => secret?.secretName ?? [])
    expect(secrets).toEqual(['password', 'certificates'])
  })

  it('gets expressions as they were written', async () => {
    const { args } = (await chart.render({ spegel: { registryFilters: [':latest$', '^a$(b)$'] } })).container(
      'registry',
    )
    expect(args.slice(args.indexOf('--registry-filters') + 1)).toEqual([':latest$$', '^a$$(b)$$'])
  })
})

describe('on a node, the rendered commands', () => {
  let host: string
  beforeEach(async () => {
    host = await mkdtemp(join(tmpdir(), 'spegel-ts-host-'))
    await mkdir(join(host, 'etc/containerd'), { recursive: true })
  })
  afterEach(() => rm(host, { recursive: true }))

  const certs = () => join(host, 'etc/containerd/certs.d')
  /** Runs what the container would, with the host's folders where the kubelet would mount them. */
  const execute = async ({ args }: { args: string[] }) => {
    const errors: string[] = []
    const placed = args.map((arg) => arg.replace('=/host/', `=${host}/`).replace('$(NODE_IP)', '10.0.0.7'))
    const surroundings = {
      env: {},
      commandLine: [],
      write: () => undefined,
      writeError: (text: string) => void errors.push(text),
      isTerminal: false,
      stop: AbortSignal.abort(),
    }
    // Any free port instead of the pod's own.
    const code = await runCli(
      placed.map((arg) => arg.replace('--addr=:8080', '--addr=127.0.0.1:0')),
      surroundings,
    )
    expect([code, errors.filter((line) => !line.startsWith('{"level":"INFO"'))]).toEqual([0, []])
  }
  const configure = async (values: Values) => execute((await chart.render(values)).container('configuration'))
  const cleanUp = async (values: Values) => {
    const [container] = (await chart.render(values)).pod('-cleanup').containers
    await execute(container ?? { args: [] })
  }
  const hostsOf = async (registry: string) =>
    Object.keys(parse(await readFile(join(certs(), registry, 'hosts.toml'), 'utf8'))['host'] ?? {})

  it('point containerd at the mirror first, anew after an upgrade, and leave nothing', async () => {
    await configure({})
    expect(await hostsOf('_default')).toEqual(['http://10.0.0.7:30020'])
    await configure({
      service: { registry: { nodePort: 31_001, hostPort: 31_000 } },
      spegel: { additionalMirrorTargets: ['https://cache.example'], mirroredRegistries: ['https://docker.io'] },
    })
    expect(await hostsOf('docker.io')).toEqual([
      'http://10.0.0.7:31000',
      'http://10.0.0.7:31001',
      'https://cache.example',
    ])
    expect((await readdir(certs())).filter((name) => !name.startsWith('_'))).toEqual(['docker.io'])
    await mkdir(join(host, 'var/lib/spegel-ts'), { recursive: true })
    await writeFile(join(host, 'var/lib/spegel-ts/private.key'), 'secret')
    await cleanUp({})
    expect(await readdir(join(host, 'etc/containerd'))).toEqual([])
    expect(await readdir(join(host, 'var/lib'))).toEqual([])
  })

  it('stand in front of what others wrote, and give it back', async () => {
    await mkdir(join(certs(), 'ghcr.io'), { recursive: true })
    const foreign = '[host."https://cache.example"]\n  capabilities = ["pull"]\n'
    await writeFile(join(certs(), 'ghcr.io/hosts.toml'), foreign)
    await configure({})
    expect(await hostsOf('ghcr.io')).toEqual(['http://10.0.0.7:30020', 'https://cache.example'])
    await cleanUp({})
    expect(await readdir(certs())).toEqual(['ghcr.io'])
    expect(readFileSync(join(certs(), 'ghcr.io/hosts.toml'), 'utf8')).toBe(foreign)
  })
})

describe('the clean-up', () => {
  it('comes after everything else is gone, with its own rights, and waits for every node', async () => {
    const rendered = await chart.render()
    const hooks = rendered.manifests
      .filter(({ metadata }) => metadata.annotations?.['helm.sh/hook'] === 'post-delete')
      .map(({ kind, metadata: { annotations = {} } }) => [
        Number(annotations['helm.sh/hook-weight']),
        kind,
        annotations['helm.sh/hook-delete-policy'],
      ])
    const onSuccess = 'before-hook-creation,hook-succeeded'
    expect(hooks).toEqual([
      [-2, 'ServiceAccount', onSuccess],
      [-2, 'Role', onSuccess],
      [-2, 'RoleBinding', onSuccess],
      // The Job removes it: Helm would do so also when the Job fails.
      [-1, 'DaemonSet', 'before-hook-creation'],
      [0, 'Job', onSuccess],
    ])
    const [wait] = podOf(rendered.find('Job', '-cleanup-wait')).containers
    expect(wait?.args).toEqual([
      'cleanup-wait',
      '--log-level=INFO',
      '--daemonset=mirrors/mirror-spegel-ts-cleanup',
      '--timeout=4m',
    ])
  })

  it('reaches nodes that have taints, and those that left the mirror', async () => {
    const rendered = await chart.render({ nodeSelector: { pool: 'a' }, tolerations: [] })
    for (const pod of [rendered.pod('-cleanup'), podOf(rendered.find('Job', '-cleanup-wait'))]) {
      expect(pod).toMatchObject({
        nodeSelector: { 'kubernetes.io/os': 'linux' },
        tolerations: [{ operator: 'Exists' }],
      })
    }
  })

  it('does not catch pods of the mirror, nor the mirror its own', async () => {
    const rendered = await chart.render()
    const labels = ['', '-cleanup'].map((suffix) => rendered.find('DaemonSet', suffix).spec?.['selector'])
    expect(labels[0]).not.toEqual(labels[1])
    const services = rendered.manifests.filter(({ kind }) => kind === 'Service')
    for (const { spec } of services) expect({ matchLabels: spec?.['selector'] }).toEqual(labels[0])
  })
})
