/** Nodes of both kinds, each in a network namespace of its own. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Network } from '../../src/testbed/network.ts'
import { prepareGoPeer } from '../../src/testbed/tools.ts'
import { GoNode, type InteropNode, OurNode } from './interop-node.ts'
import { NamespaceClient } from './namespace-client.ts'

/** The name that stands for the headless service of a cluster. */
export const swarmDomain = 'nodes.swarm.test'

export class InteropWorld {
  readonly go: GoNode[] = []
  readonly ours: OurNode[] = []
  readonly #network: Network
  readonly #client: NamespaceClient
  readonly #folder: string

  private constructor(network: Network, client: NamespaceClient, folder: string) {
    this.#network = network
    this.#client = client
    this.#folder = folder
  }

  /** Each node has an image of its own and is not started. */
  static async create(counts: { go: number; ours: number }): Promise<InteropWorld> {
    const program = await prepareGoPeer((line) => process.stderr.write(`set-up: ${line}\n`))
    const folder = await mkdtemp(join(tmpdir(), 'spegel-ts-interop-'))
    const network = await Network.create()
    const client = new NamespaceClient(await network.addHost('client'))
    const world = new InteropWorld(network, client, folder)
    try {
      const hostsFile = join(folder, 'hosts')
      const init = async (name: string) => ({ host: await network.addHost(name), client, folder, hostsFile })
      for (let number = 1; number <= counts.go; number++)
        world.go.push(new GoNode(program, await init(`go${number}`)))
      for (let number = 1; number <= counts.ours; number++) world.ours.push(new OurNode(await init(`ours${number}`)))
      const addresses = world.nodes.map(({ host }) => `${host.ip} ${swarmDomain}\n`)
      await writeFile(hostsFile, `127.0.0.1 localhost\n${addresses.join('')}`)
      await Promise.all(world.nodes.map((node) => node.addImage(node.host.name)))
    } catch (error) {
      await world.close()
      throw error
    }
    return world
  }

  get nodes(): InteropNode[] {
    return [...this.go, ...this.ours]
  }

  async stop(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.stop()))
  }

  /** What our daemons complain of. */
  async complaints(): Promise<string[]> {
    const ofNodes = this.ours.map(async (node) =>
      (await node.lines())
        .filter(({ level }) => level === 'WARN' || level === 'ERROR')
        .map((line) => `${node.host.name}: ${JSON.stringify(line)}`),
    )
    return (await Promise.all(ofNodes)).flat()
  }

  /** The last that each node said: for a test that failed. */
  async lastWords(): Promise<string> {
    const ofNodes = this.nodes.map(async (node) =>
      (await node.lines()).slice(-15).map((line) => `${node.host.name} ${JSON.stringify(line)}\n`),
    )
    return (await Promise.all(ofNodes)).flat().join('')
  }

  async close(): Promise<void> {
    await this.stop()
    await this.#client.close()
    await this.#network.close()
    await rm(this.#folder, { recursive: true, force: true })
  }
}
