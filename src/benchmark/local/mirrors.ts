/**
 * The mirrors under test: one process of each per node. All of them run all the time, as a daemon does in a cluster,
 * on ports of their own; which one containerd asks is decided by hosts.toml.
 */
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { UserError, errorMessage } from '../../lib/errors.ts'
import type { ContainerdNode } from '../../testbed/containerd-node.ts'
import { statusFrom } from '../../testbed/fetch.ts'
import { endGroup, logTo, runningPid, waitUntil } from '../../testbed/process.ts'
import type { MirrorSpec } from '../target.ts'

const readyTimeoutMs = 60_000
const containerdSocket = '/run/containerd/containerd.sock'
const contentPath = '/var/lib/containerd/io.containerd.content.v1.content'

const checkout = fileURLToPath(new URL('../../../bin/spegel-ts', import.meta.url))
/** This project's daemon as it is set up in a cluster: from a checkout, or as the bundle that runs now. */
export function ownCommand(bundle: string): string {
  const self = existsSync(checkout) ? checkout : `'${process.execPath}' '${bundle}'`
  return `${self} registry --registry-addr :{registryPort} --router-addr :{routerPort} --metrics-addr :{metricsPort} --containerd-sock {socket} --containerd-content-path {content} --data-dir {data} --bootstrap-kind dns --dns-bootstrap-domain peers.test`
}

export class MirrorFleet {
  readonly spec: MirrorSpec
  /** Of the mirror itself; its other ports follow. */
  readonly registryPort = 5000
  readonly #command: string
  readonly #nodes: readonly ContainerdNode[]
  readonly #registry: string
  readonly #running = new Map<ContainerdNode, ChildProcess>()

  /** `registry` is the URL of the upstream. */
  constructor(spec: MirrorSpec & { command: string }, nodes: readonly ContainerdNode[], registry: string) {
    this.spec = spec
    this.#command = spec.command
    this.#nodes = nodes
    this.#registry = registry
  }

  /** Starts it where it does not run, and waits until all are ready. */
  async ensureRunning(signal?: AbortSignal): Promise<void> {
    await Promise.all(this.#nodes.map((node) => this.start(node, signal)))
  }

  /** Ready: GET /readyz answers 200; a mirror that does not know it must answer GET /v2/ with 200 or 401. */
  async start(node: ContainerdNode, signal?: AbortSignal): Promise<void> {
    if (this.pid(node) !== undefined) return
    const folder = join(node.folder, this.spec.name)
    await mkdir(join(folder, 'data'), { recursive: true })
    const hosts = join(folder, 'hosts')
    const peers = this.#nodes.map(({ host }) => `${host.ip} peers.test`)
    await writeFile(hosts, `127.0.0.1 localhost\n${peers.join('\n')}\n`)
    const log = this.logOf(node)
    const child = node.host.spawn(
      'unshare',
      [
        '--mount',
        '--propagation',
        'private',
        'sh',
        '-euc',
        viewScript,
        'sh',
        ...this.#view(node, hosts),
        this.#filled(node),
      ],
      { stdio: logTo(log), detached: true },
    )
    this.#running.set(node, child)
    const probe = async () => {
      const status = await statusFrom(node.host, this.registryPort, '/readyz')
      if (status === 200) return true
      const api =
        status === undefined || status >= 500 ? undefined : await statusFrom(node.host, this.registryPort, '/v2/')
      return api === 200 || api === 401
    }
    const patience = { timeoutMs: readyTimeoutMs, child, log, ...(signal === undefined ? {} : { signal }) }
    await waitUntil(this.spec.name, probe, patience).catch((error: unknown) => {
      signal?.throwIfAborted()
      throw new UserError(
        `--mirror ${this.spec.name}: not ready on ${node.host.name} (127.0.0.1:${this.registryPort}, /readyz or /v2/): ${errorMessage(error)}`,
      )
    })
  }

  /** The process on a node; undefined when it does not run. */
  pid(node: ContainerdNode): number | undefined {
    return runningPid(this.#running.get(node))
  }

  logOf(node: ContainerdNode): string {
    return join(node.folder, this.spec.name, 'log')
  }

  async close(): Promise<void> {
    await Promise.all([...this.#running.values()].map((child) => endGroup(child)))
  }

  #filled(node: ContainerdNode): string {
    const port = (offset: number) => String(this.registryPort + offset)
    const values: Record<string, string> = {
      node: node.host.name,
      ip: node.host.ip,
      registryPort: port(0),
      routerPort: port(1),
      metricsPort: port(2),
      peers: this.#nodes.map(({ host }) => host.ip).join(','),
      upstream: this.#registry,
      socket: containerdSocket,
      content: contentPath,
      data: join(node.folder, this.spec.name, 'data'),
    }
    return fillPlaceholders(this.#command, values)
  }

  /** What is mounted where in the mirror's own view. */
  #view(node: ContainerdNode, hosts: string): string[] {
    return [join(node.folder, 'state'), join(node.folder, 'root'), node.certsFolder, hosts]
  }
}

/** The usual places, as a DaemonSet with hostPath mounts sees them. `exec`: the pid is the mirror's. */
const viewScript = `
mkdir -p /run/containerd /var/lib/containerd /etc/containerd/certs.d
mount --bind "$1" /run/containerd
mount --bind "$2" /var/lib/containerd
mount --bind "$3" /etc/containerd/certs.d
mount --bind "$4" /etc/hosts
exec sh -c "exec $5"`

/** Throws a UserError for a placeholder that does not exist. */
export function fillPlaceholders(command: string, values: Readonly<Record<string, string>>): string {
  return command.replaceAll(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name]
    if (value !== undefined) return value
    const known = Object.keys(values).map((key) => `{${key}}`)
    throw new UserError(`--mirror: ${whole} is not one of ${known.join(' ')}`)
  })
}
