/**
 * `spegel-ts benchmark network run` on a cluster of two nodes that is made for it, with the image and the chart of this
 * checkout: `bin/run node test/kubernetes/network.ts RESULT_FOLDER [OPTION...]`, such as `/tmp/result --rounds 3`.
 */
import { resolve } from 'node:path'
import { output } from '../../src/testbed/process.ts'
import { Cluster } from './cluster.ts'
import { installSpegel, publishSpegel } from './spegel.ts'

const [folder = '', ...options] = process.argv.slice(2)
if (folder === '') throw new Error('write RESULT_FOLDER, such as /tmp/result')
const program = resolve(import.meta.dirname, '../../bin/spegel-ts')
const cluster = await Cluster.start({ nodes: 2, containerd: ['new'], upstreamRate: '1gbit' })
// Ctrl-C is for what runs in the cluster; then the cluster goes.
process.on('SIGINT', () => undefined)
try {
  await publishSpegel(cluster)
  await installSpegel(cluster)
  const args = ['benchmark', 'network', 'run', '--result-dir', resolve(folder), ...options]
  await output(cluster.spawn(program, args, { stdio: 'inherit' }))
} finally {
  await cluster.stop()
}
