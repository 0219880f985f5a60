/** Containers run over CRI, with the security context that Kubernetes would give them: on the node's own network. */
import { credentials } from '@grpc/grpc-js'
import { randomUUID } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promised } from '../../src/containerd/cri.ts'
import {
  type ContainerStatus,
  type ContainerStatusResponse,
  type ContainerStatsResponse,
  type CreateContainerResponse,
  type Mount,
  type RunPodSandboxResponse,
  RuntimeServiceClient,
} from '../../src/containerd/generated/cri.ts'
import type { ContainerdNode } from '../../src/testbed/containerd-node.ts'
import { eventually } from './daemons.ts'

export interface ContainerSpec {
  image: string
  args: readonly string[]
  uid: number
  gid: number
  /** Beside these it has none. */
  capabilities?: readonly string[]
  mounts: readonly { path: string; writable?: boolean }[]
}

/** Values of CRI's enumerations. */
const nodeNetwork = 2
const hostToContainer = 1
const runtimeDefault = 0
const exited = 2

export class Container {
  readonly id: string
  readonly #cri: RuntimeServiceClient
  readonly #sandbox: string
  readonly #log: string

  private constructor(cri: RuntimeServiceClient, id: string, sandbox: string, log: string) {
    this.#cri = cri
    this.id = id
    this.#sandbox = sandbox
    this.#log = log
  }

  /** Creates and starts it. */
  static async run(node: ContainerdNode, spec: ContainerSpec): Promise<Container> {
    const cri = new RuntimeServiceClient(`unix:${node.socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    })
    const uid = randomUUID()
    const logs = join(node.folder, 'pods', uid)
    await mkdir(logs, { recursive: true })
    const namespaces = { network: nodeNetwork }
    const sandbox = {
      metadata: { name: 'spegel-ts', uid, namespace: 'test' },
      logDirectory: logs,
      linux: { cgroupParent: `/spegel-ts-test-${process.pid}`, securityContext: { namespaceOptions: namespaces } },
    }
    const { podSandboxId } = await promised<RunPodSandboxResponse>((callback) =>
      cri.runPodSandbox({ config: sandbox }, callback),
    )
    const config = {
      podSandboxId,
      sandboxConfig: sandbox,
      config: {
        metadata: { name: 'registry' },
        image: { image: spec.image },
        args: [...spec.args],
        mounts: spec.mounts.map(toMount),
        logPath: 'log',
        linux: {
          resources: { memoryLimitInBytes: 0 },
          securityContext: {
            capabilities: { addCapabilities: [...(spec.capabilities ?? [])], dropCapabilities: ['ALL'] },
            namespaceOptions: namespaces,
            runAsUser: { value: spec.uid },
            runAsGroup: { value: spec.gid },
            readonlyRootfs: true,
            noNewPrivs: true,
            seccomp: { profileType: runtimeDefault },
          },
        },
      },
    }
    const { containerId } = await promised<CreateContainerResponse>((callback) =>
      cri.createContainer(config, callback),
    )
    const container = new Container(cri, containerId, podSandboxId, join(logs, 'log'))
    await promised((callback) => cri.startContainer({ containerId }, callback))
    return container
  }

  async status(): Promise<ContainerStatus> {
    const { status } = await this.#status(false)
    if (status === undefined) throw new Error(`containerd has no container ${this.id}`)
    return status
  }

  /** Of its first process, as this machine counts. */
  async pid(): Promise<number> {
    const { info } = await this.#status(true)
    return (JSON.parse(info['info'] ?? '{}') as { pid: number }).pid
  }

  /** What the kubelet compares with the limit. */
  async workingSetBytes(): Promise<number> {
    const { stats } = await promised<ContainerStatsResponse>((callback) =>
      this.#cri.containerStats({ containerId: this.id }, callback),
    )
    return stats?.memory?.workingSetBytes?.value ?? 0
  }

  /** Its exit code, once it ended by itself. */
  async ended(timeoutMs = 30_000): Promise<number> {
    return eventually(async () => {
      const { state, exitCode } = await this.status()
      if (state !== exited) throw new Error(`it still runs:\n${await this.log()}`)
      return exitCode
    }, timeoutMs)
  }

  /** SIGTERM, and SIGKILL after this time. Returns the exit code. */
  async stop(graceS = 30): Promise<number> {
    await promised((callback) => this.#cri.stopContainer({ containerId: this.id, timeout: graceS }, callback))
    return this.ended()
  }

  /** What it wrote. */
  async log(): Promise<string> {
    const text = await readFile(this.#log, 'utf8')
    // Each line begins with time, stream and whether the line is whole.
    return text.replaceAll(/^\S+ (stdout|stderr) [FP] /gm, '')
  }

  async remove(): Promise<void> {
    await promised((callback) => this.#cri.removePodSandbox({ podSandboxId: this.#sandbox }, callback))
    this.#cri.close()
  }

  #status(verbose: boolean): Promise<ContainerStatusResponse> {
    return promised((callback) => this.#cri.containerStatus({ containerId: this.id, verbose }, callback))
  }
}

/** As a DaemonSet mounts host paths: under the same name, read-only unless said otherwise. */
function toMount({ path, writable = false }: ContainerSpec['mounts'][number]): Mount {
  return { containerPath: path, hostPath: path, readonly: !writable, propagation: hostToContainer }
}
