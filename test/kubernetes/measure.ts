/**
 * `spegel-ts benchmark measure` on a cluster that is made for it, with the image and the chart of this checkout:
 * `bin/run node test/kubernetes/measure.ts NODES UPSTREAM_RATE RESULT_FOLDER IMAGE [OPTION...]`,
 * such as `8 100mbit /tmp/result 10MB-4 --rounds 3`.
 */
import { join, resolve } from 'node:path'
import { parseBenchmarkTag } from '../../src/images/benchmark-tag.ts'
import { output } from '../../src/testbed/process.ts'
import { Cluster } from './cluster.ts'
import { installSpegel, publishSpegel } from './spegel.ts'

const [nodes = '', upstreamRate = '', folder = '', image = '', ...options] = process.argv.slice(2)
if (image === '')
  throw new Error('write NODES UPSTREAM_RATE RESULT_FOLDER IMAGE, such as 8 100mbit /tmp/result 10MB-4')
const program = resolve(import.meta.dirname, '../../bin/spegel-ts')
const tags = ['v1', 'v2'].map((version) => parseBenchmarkTag(`${version}-${image}`).tag)
const cluster = await Cluster.start({ nodes: Number(nodes), containerd: ['new', 'old'], upstreamRate })
// Ctrl-C is for what runs in the cluster; then the cluster goes.
process.on('SIGINT', () => undefined)
try {
  await publishSpegel(cluster)
  await installSpegel(cluster)
  const before = cluster.upstream.requests().length
  const push = ['--push', `${cluster.upstreamHost.ip}/benchmark`, '--images', ...tags]
  const args = ['benchmark', 'measure', '--result-dir', resolve(folder), ...push, ...options]
  const authority = `NODE_EXTRA_CA_CERTS=${join(cluster.node(1).disk, 'etc/kubernetes/authority.crt')}`
  await output(cluster.spawn('env', [authority, program, ...args], { stdio: 'inherit' }))
  const sentBytes = cluster.upstream
    .requests()
    .slice(before)
    .filter(({ method, path }) => method === 'GET' && path.includes('/benchmark/'))
    .reduce((sum, { bytes }) => sum + bytes, 0)
  process.stdout.write(`the registry sent ${sentBytes} bytes of these images in all rounds\n`)
} finally {
  await cluster.stop()
}
