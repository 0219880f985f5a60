/**
 * `spegel-ts benchmark network` on a cluster that is made for it, with the image of this checkout:
 * `bin/run node test/kubernetes/network.ts NODES RESULT_FOLDER [OPTION...]`, such as `3 /tmp/result --rounds 2`.
 */
import { resolve } from 'node:path'
import { output } from '../../src/testbed/process.ts'
import { Cluster } from './cluster.ts'
import { publishSpegel } from './spegel.ts'

const [nodes = '', folder = '', ...options] = process.argv.slice(2)
if (folder === '') throw new Error('write NODES RESULT_FOLDER, such as 3 /tmp/result')
const program = resolve(import.meta.dirname, '../../bin/spegel-ts')
const cluster = await Cluster.start({ nodes: Number(nodes), containerd: ['new', 'old'] })
// Ctrl-C is for what runs in the cluster; then the cluster goes.
process.on('SIGINT', () => undefined)
try {
  // No mirror runs: it would only take a part of the CPU.
  await publishSpegel(cluster)
  const args = ['benchmark', 'network', 'run', '--result-dir', resolve(folder), ...options]
  await output(cluster.spawn(program, args, { stdio: 'inherit' }))
} finally {
  await cluster.stop()
}
