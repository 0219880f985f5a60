/** etcd, API server, controllers, scheduler and DNS of a cluster, on a host without containers. */
import type { ChildProcess } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Host } from '../../src/testbed/network.ts'
import { end, logTo, waitUntil } from '../../src/testbed/process.ts'
import type { KubernetesTools } from '../../src/testbed/tools.ts'
import { ClusterApi } from './api.ts'
import type { Authority, Certificate } from '../support/authority.ts'
import { flags } from './flags.ts'

const startTimeoutMs = 60_000
const etcd = 'http://127.0.0.1:2379'

export interface ControlPlaneInit {
  host: Host
  tools: KubernetesTools
  authority: Authority
  /** Everything goes below it. */
  folder: string
  /** Of Services: `10.96.0`. */
  serviceSubnet: string
}

export class ControlPlane {
  readonly host: Host
  readonly api: ClusterApi
  /** Path of the kubeconfig of who may do everything. */
  readonly kubeconfig: string
  /** URL of the API server. */
  readonly server: string
  readonly #init: ControlPlaneInit
  readonly #children = new Map<string, ChildProcess>()
  #apiServerArgs: readonly string[] = []

  constructor(init: ControlPlaneInit) {
    this.#init = init
    this.host = init.host
    this.server = serverOf(init.host)
    this.kubeconfig = join(init.folder, 'admin.kubeconfig')
    this.api = new ClusterApi(this.#socket)
  }

  async start(): Promise<void> {
    const { folder, host, authority, tools } = this.#init
    await mkdir(folder, { recursive: true })
    await writeFile(this.kubeconfig, await this.#kubeconfigOf('admin', '/O=system:masters/CN=admin'))
    this.#start(
      'etcd',
      flags({
        'data-dir': join(folder, 'etcd'),
        'listen-client-urls': etcd,
        'advertise-client-urls': etcd,
        'listen-peer-urls': 'http://127.0.0.1:2380',
        // Its data need not outlive the machine.
        'unsafe-no-fsync': true,
        'log-level': 'warn',
      }),
    )
    this.#start('kubectl', ['proxy', ...flags({ 'unix-socket': this.#socket, kubeconfig: this.kubeconfig })])
    const accounts = await authority.issue('service-accounts', '/CN=service-accounts')
    this.#apiServerArgs = await this.#makeApiServerArgs(accounts)
    await this.startApiServer()

    const client = async (name: string) => {
      const path = join(folder, `${name}.kubeconfig`)
      await writeFile(path, await this.#kubeconfigOf(name, `/CN=system:${name}`))
      const options = ['kubeconfig', 'authentication-kubeconfig', 'authorization-kubeconfig']
      const paths = Object.fromEntries(options.map((option) => [option, path]))
      return { ...paths, 'leader-elect': false, 'bind-address': '127.0.0.1' }
    }
    this.#start(
      'kube-controller-manager',
      flags({
        ...(await client('kube-controller-manager')),
        'service-account-private-key-file': accounts.key,
        'root-ca-file': authority.certificate,
        'use-service-account-credentials': true,
      }),
    )
    this.#start('kube-scheduler', flags(await client('kube-scheduler')))

    const corefile = join(folder, 'Corefile')
    const kubernetes = `kubernetes cluster.local in-addr.arpa {\n kubeconfig ${this.kubeconfig} cluster\n ttl 5\n }`
    await writeFile(corefile, `.:53 {\n bind ${host.ip}\n ready ${host.ip}:8181\n errors\n ${kubernetes}\n}\n`)
    this.#spawn('coredns', tools.coredns, ['-conf', corefile])
    // Pods cannot be made before.
    const account = '/api/v1/namespaces/default/serviceaccounts/default'
    await this.#until('the controllers', async () => (await this.api.find(account)) !== undefined)
  }

  async startApiServer(): Promise<void> {
    this.#start('kube-apiserver', this.#apiServerArgs)
    await this.#until('kube-apiserver', async () => (await this.api.health()) === 'ok')
  }

  /** The others wait for it, as in any cluster. */
  async stopApiServer(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#children.get('kube-apiserver')
    if (child !== undefined) await end(child, signal)
  }

  /** At once: nothing of it is kept. */
  async stop(): Promise<void> {
    await this.api.close()
    await Promise.all([...this.#children.values()].map((child) => end(child, 'SIGKILL')))
  }

  get #socket(): string {
    return join(this.#init.folder, 'api.sock')
  }

  async #kubeconfigOf(name: string, subject: string): Promise<string> {
    const { authority } = this.#init
    return authority.kubeconfig(await authority.issue(name, subject), this.server)
  }

  async #makeApiServerArgs(accounts: Certificate): Promise<string[]> {
    const { host, authority, serviceSubnet } = this.#init
    const names = [
      'kubernetes',
      'kubernetes.default',
      'kubernetes.default.svc',
      'kubernetes.default.svc.cluster.local',
    ]
    const addresses = [host.ip, `${serviceSubnet}.1`]
    const serverNames = [...names.map((name) => `DNS:${name}`), ...addresses.map((address) => `IP:${address}`)]
    const serving = await authority.issue('kube-apiserver', '/CN=kube-apiserver', serverNames)
    const kubelets = await authority.issue('kubelet-client', '/O=system:masters/CN=kube-apiserver')
    return flags({
      'etcd-servers': etcd,
      'service-cluster-ip-range': `${serviceSubnet}.0/24`,
      'advertise-address': host.ip,
      'secure-port': '6443',
      'allow-privileged': true,
      'authorization-mode': 'Node,RBAC',
      'enable-admission-plugins': 'NodeRestriction',
      'client-ca-file': authority.certificate,
      'tls-cert-file': serving.certificate,
      'tls-private-key-file': serving.key,
      'kubelet-certificate-authority': authority.certificate,
      'kubelet-client-certificate': kubelets.certificate,
      'kubelet-client-key': kubelets.key,
      'kubelet-preferred-address-types': 'InternalIP',
      'service-account-issuer': 'https://kubernetes.default.svc',
      'service-account-key-file': accounts.certificate,
      'service-account-signing-key-file': accounts.key,
    })
  }

  #start(component: string, args: readonly string[]): void {
    this.#spawn(component, this.#init.tools.kubernetes, [component, ...args])
  }

  #spawn(name: string, command: string, args: readonly string[]): void {
    const child = this.host.spawn(command, args, { stdio: logTo(this.#logOf(name)), detached: true })
    this.#children.set(name, child)
  }

  #logOf(name: string): string {
    return join(this.#init.folder, `${name}.log`)
  }

  async #until(what: string, probe: () => Promise<boolean>): Promise<void> {
    const child = this.#children.get('kube-apiserver')
    await waitUntil(what, probe, {
      timeoutMs: startTimeoutMs,
      log: this.#logOf('kube-apiserver'),
      ...(child === undefined ? {} : { child }),
    })
  }
}

export function serverOf(host: Host): string {
  return `https://${host.ip}:6443`
}
