/** Pushes an image from the network that this process is in; prints what came of it. */
import { pushImage } from '../../src/images/push.ts'
import type { Descriptor } from '../../src/images/layout.ts'
import { UserError } from '../../src/lib/errors.ts'

const [layout = '', url = '', target = ''] = process.argv.slice(2)
let answer
try {
  const image = { target: JSON.parse(target) as Descriptor }
  answer = { pushed: await pushImage({ layout, image, url, env: process.env }) }
} catch (error) {
  if (!(error instanceof UserError)) throw error
  answer = { error: error.message }
}
const peakMiB = process.resourceUsage().maxRSS / 1024
process.stdout.write(JSON.stringify({ ...answer, peakMiB }))
