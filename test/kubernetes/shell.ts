/**
 * A cluster to play with: starts one, runs a shell (or the given command) with kubectl and helm in it, and removes it
 * when that ends. `bin/run node test/kubernetes/shell.ts [NODES] [COMMAND ARGS...]`
 */
import { once } from 'node:events'
import { Cluster } from './cluster.ts'

const [nodes = '3', command = process.env['SHELL'] ?? 'bash', ...args] = process.argv.slice(2)
if (!/^[1-9]\d?$/.test(nodes)) throw new Error(`"${nodes}" is not a number of nodes: write 1 to 99`)
const cluster = await Cluster.start({ nodes: Number(nodes) })
try {
  process.stderr.write(`${nodes} nodes are ready; files are below ${cluster.folder}\n`)
  // Ctrl-C in the shell is for what runs in it.
  process.on('SIGINT', () => undefined)
  await once(cluster.spawn(command, args, { stdio: 'inherit' }), 'exit')
} finally {
  await cluster.stop()
}
