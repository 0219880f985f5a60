/** Writes one benchmark image, then prints its digest and the most memory that this process had. */
import { parseBenchmarkTag } from '../../src/images/benchmark-tag.ts'
import { writeBenchmarkImage } from '../../src/images/benchmark-image.ts'

const [layout = '', tag = ''] = process.argv.slice(2)
const { version, sizeBytes, layers } = parseBenchmarkTag(tag)
const spec = { name: `registry.test/benchmark:${tag}`, sizeBytes, layers, seed: version }
const { target } = await writeBenchmarkImage(layout, spec)
const peakMiB = process.resourceUsage().maxRSS / 1024
process.stdout.write(JSON.stringify({ digest: target.digest, peakMiB }))
